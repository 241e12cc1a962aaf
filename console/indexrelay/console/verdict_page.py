"""The judge's verdict for a person: what there is, what is not well, and what to do."""

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from indexrelay.console.escaping import visible
from indexrelay.console.invocation import advice_line
from indexrelay.console.tables import (
    collections_table,
    components_table,
    readers_table,
    rebuilders_table,
)
from indexrelay.health.verdict import Actor, Problem, Verdict

_MARKS = {
    Actor.PERSON: ("⚠", "yellow"),
    Actor.PROCESS: ("…", "cyan"),
    Actor.NOBODY: ("…", "cyan"),
}
_DECIDED = ("-", "magenta")


def verdict_page(verdict: Verdict, *, verdict_first: bool = False) -> RenderableType:
    """Everything, the verdict last: that is where a terminal's reader looks first.

    On a page that fills the screen it comes first, since there the end is what is cut off.
    """
    parts: list[RenderableType] = [
        collections_table(verdict.collections),
        components_table(verdict.components),
        readers_table(verdict.readers),
        rebuilders_table(verdict.rebuilders),
    ]
    lines = verdict_lines(verdict, well=_all_is_well(verdict))
    return Group(lines, Text(), *parts) if verdict_first else Group(*parts, lines)


def verdict_lines(verdict: Verdict, *, well: str, besides: int = 0) -> RenderableType:
    """Each problem and note, and how many problems there are.

    Args:
        well: what to say of none.
        besides: how many problems were shown already that need a person.
    """
    notes = [Text(f"· {visible(note)}", style="dim") for note in verdict.notes]
    return Group(*notes, problems_page(verdict.problems, well=well, besides=besides))


def problems_page(problems: Sequence[Problem], *, well: str, besides: int = 0) -> RenderableType:
    """Each problem with what to do, and how many there are; as `verdict_lines`."""
    if not problems and not besides:
        return Text(f"✓ {well}", style="green")
    said: dict[str, list[Text]] = {}
    for problem in problems:  # what one thing puts right stands together, above it
        said.setdefault(problem.advice, []).append(_what(problem))
    lines = [line for advice, whats in said.items() for line in (*whats, advice_line(advice))]
    return Group(*lines, Text(_summary(problems, besides), style="yellow"))


def problem_lines(problem: Problem) -> list[Text]:
    """What is not well, and below it what to do."""
    return [_what(problem), advice_line(problem.advice)]


def _what(problem: Problem) -> Text:
    mark, style = _DECIDED if problem.asked else _MARKS[problem.acts]
    return Text(f"{mark} {visible(problem.what)}", style=style)


def _all_is_well(verdict: Verdict) -> str:
    if verdict.release:
        return f"all is well: release {verdict.release} is served everywhere"
    return "all is well: there is nothing to serve yet"


def _summary(problems: Sequence[Problem], besides: int) -> str:
    """Who has to do something: ``not all is well: 2 need a person, 1 is as asked``."""
    decided = sum(problem.asked for problem in problems)
    people = sum(problem.acts is Actor.PERSON and not problem.asked for problem in problems)
    others = len(problems) - decided - people
    people += besides
    said = [
        f"{people} need{'s' * (people == 1)} a person" if people else "",
        f"{decided} {'is' if decided == 1 else 'are'} as somebody asked" if decided else "",
        f"{others} will end without you" if others else "",
    ]
    return f"not all is well: {', '.join(part for part in said if part)}"
