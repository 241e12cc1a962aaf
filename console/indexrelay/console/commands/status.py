"""``indexrelay status``: is all well, and if not, what is wrong and what to do.

A table each for collections, components, readers and rebuilders, then the judge's verdict. Other
commands show the same tables and the same lines, so that one state has one wording.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import typer
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from indexrelay.console import figures
from indexrelay.console.commands import Config, Json
from indexrelay.console.errors import ExitCode
from indexrelay.console.installation import Installation, verdict_of
from indexrelay.console.sheet import Sheet, flowing, number, spare, whole
from indexrelay.console.terminal import advice_line, print_json, stdout, visible
from indexrelay.console.watch import Watch, show_again
from indexrelay.health.status import (
    Actor,
    CollectionHealth,
    ComponentHealth,
    Condition,
    Problem,
    Verdict,
    summary,
)
from indexrelay.schemas.messages import LoadOutcome, ReaderState, RebuilderState

NONE: Final = "-"
"""An empty cell."""
LOAD_MARKS: Final = {
    LoadOutcome.APPLIED: "✓",
    LoadOutcome.UNCHANGED: "✓",
    LoadOutcome.FAILED: "✗",
    LoadOutcome.SUPERSEDED: "⚠",
}
_STYLES: Final = {
    Condition.CURRENT: "green",
    Condition.DEFERRED: "green",
    Condition.BEHIND: "yellow",
    Condition.CHANGED: "yellow",
    Condition.MISSING: "yellow",
    Condition.OUTRUN: "red",
    Condition.UNDECLARED: "yellow",
    Condition.CORRUPT: "red",
    Condition.FAILED: "red",
}
_PROBLEM_MARKS: Final = {
    Actor.PERSON: ("⚠", "yellow"),
    Actor.PROCESS: ("…", "cyan"),
    Actor.NOBODY: ("…", "cyan"),
}
_DECIDED: Final = ("-", "magenta")


def status(config: Config = None, json: Json = False, watch: Watch = False) -> None:
    """Collections, components, readers and rebuilders; exits 3 unless all is well."""
    with Installation.at(config) as installation:
        if watch:
            show_again(lambda: verdict_page(verdict_of(installation)), json=json)
        verdict = verdict_of(installation)
    if json:
        print_json(verdict)
    else:
        stdout().print(verdict_page(verdict))
    raise typer.Exit(ExitCode.SUCCESS if verdict.well else ExitCode.PARTIAL)


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
    lines = verdict_lines(verdict, well=verdict.sentence)
    return Group(lines, Text(), *parts) if verdict_first else Group(*parts, lines)


def verdict_lines(verdict: Verdict, *, well: str, besides: int = 0) -> RenderableType:
    """Each problem and note, and how many problems there are.

    Args:
        well: the sentence for none.
        besides: how many problems were shown already that need a person.
    """
    notes = [Text(f"· {visible(note)}", style="dim") for note in verdict.notes]
    return Group(*notes, problems_page(verdict.problems, well=well, besides=besides))


def problems_page(problems: Sequence[Problem], *, well: str, besides: int = 0) -> RenderableType:
    """Each problem with what to do, and how many there are; as `verdict_lines`."""
    if not problems and not besides:
        return Text(f"✓ {well}", style="green")
    by_advice: dict[str, list[Text]] = {}
    for problem in problems:  # problems with the same advice are together, above it
        by_advice.setdefault(problem.advice, []).append(_problem_line(problem))
    lines = [each for advice, whats in by_advice.items() for each in (*whats, advice_line(advice))]
    return Group(*lines, Text(summary(problems, besides=besides), style="yellow"))


def problem_lines(problem: Problem) -> list[Text]:
    """What is not well, and below it what to do."""
    return [_problem_line(problem), advice_line(problem.advice)]


def collections_table(collections: Mapping[str, CollectionHealth]) -> Sheet:
    """One row for each collection."""
    sheet = Sheet(
        "Collections",
        flowing("collection"),
        whole("source"),
        number("dimension"),
        whole("metric"),
        number("generation"),
        number("entries"),
    )
    for name, facts in collections.items():
        sheet.add(
            name,
            facts.source or "not declared",
            str(facts.dimension),
            str(facts.metric),
            str(facts.generation),
            _entries(facts),
        )
    return sheet


def _entries(facts: CollectionHealth) -> str:
    """How many there are, or that nothing is built of them."""
    if facts.conflict is not None:
        return "cannot be used"
    return "cannot be read" if facts.unreadable is not None else counted(facts.entries)


def components_table(components: Mapping[str, ComponentHealth]) -> Sheet:
    """One row for each component."""
    sheet = Sheet(
        "Components",
        flowing("component"),
        flowing("kind"),
        whole("state"),
        flowing("covers"),
        spare("version"),
        number("entries"),
        number("size"),
    )
    for name, facts in components.items():
        sheet.add(
            name,
            facts.kind.rpartition(":")[2],
            _state(facts),
            covered(facts.covers, facts.behind),
            (facts.version or NONE)[:12],
            f"{facts.entries:,}",
            figures.size(facts.bytes),
        )
    return sheet


def readers_table(readers: Mapping[str, ReaderState]) -> Sheet:
    """One row for each reader process; in the last column how much it serves, and what not."""
    sheet = Sheet(
        "Readers",
        flowing("reader"),
        flowing("host"),
        number("pid"),
        whole("ready"),
        number("release"),
        flowing("components"),
    )
    for state in readers.values():
        ready = Text("yes", style="green") if state.ready else Text("no", style="yellow")
        served = _served(state)
        sheet.add(state.reader, state.host, str(state.pid), ready, str(state.release), served)
    return sheet


def rebuilders_table(rebuilders: Mapping[str, RebuilderState]) -> Sheet:
    """One row for each rebuilder process."""
    sheet = Sheet(
        "Rebuilders",
        flowing("rebuilder"),
        flowing("host"),
        number("pid"),
        flowing("building"),
        flowing("last result"),
    )
    for state in rebuilders.values():
        last = state.last_result
        sheet.add(
            state.rebuilder,
            state.host,
            str(state.pid),
            ", ".join(builds_of(state)) or NONE,
            NONE if last is None else f"{last.status}: {last.message}",
        )
    return sheet


def builds_of(state: RebuilderState) -> Iterator[str]:
    """What a rebuilder builds, and how far each is: ``index (building, 40 %)``."""
    for name in (*state.building, *state.improving):
        progress = state.progress.get(name)
        if progress is None:
            yield name
        elif progress.share is None:
            yield f"{name} ({progress.step})"
        else:
            yield f"{name} ({progress.step}, {progress.share:.0%})"


def facts_table(facts: Mapping[str, str]) -> Table:
    """A line for each fact: its name, then its value."""
    table = Table.grid(padding=(0, 2))
    for name, value in facts.items():
        table.add_row(Text(name, style="bold"), Text(visible(value)))
    return table


def passed_mark(passed: bool) -> Text:
    """``✓`` or ``✗``."""
    return Text("✓", style="green") if passed else Text("✗", style="red")


def counted(entries: int | None) -> str:
    """How many entries there are; those of a table are not counted for a page."""
    return "not counted" if entries is None else f"{entries:,}"


def covered(covers: Mapping[str, int], behind: Mapping[str, int] | None = None) -> str:
    """``tracks 41 (2 behind)``; each collection in turn."""
    behind = behind or {}
    parts = [
        f"{name} {covers.get(name, 0)}" + (f" ({behind[name]} behind)" if name in behind else "")
        for name in sorted({*covers, *behind})
    ]
    return ", ".join(parts) or NONE


def _state(health: ComponentHealth) -> Text:
    """The condition, and what is going on beside it: ``behind, building``."""
    text = Text(health.condition, style=_STYLES[health.condition])
    if health.building:
        text.append(", building", style="cyan")
    if health.improvement is not None:
        word = "improving" if health.improvement.building else "to be improved"
        text.append(f", {word}", style="cyan")
    for decision, word in ((health.held, "held"), (health.paused, "paused")):
        if decision is not None:
            text.append(f", {word}", style="magenta")
    return text


def _served(state: ReaderState) -> str:
    """``✓ 6  ✗ map``: how many are as they should be, and the names of the others."""
    others: dict[str, list[str]] = {}
    for name, component in state.components.items():
        others.setdefault(LOAD_MARKS[component.outcome], []).append(name)
    good = others.pop("✓", [])
    parts = [f"✓ {len(good)}"] if good else []
    parts += [f"{mark} {', '.join(names)}" for mark, names in others.items()]
    return "  ".join(parts) or NONE


def _problem_line(problem: Problem) -> Text:
    mark, style = _DECIDED if problem.asked else _PROBLEM_MARKS[problem.acts]
    return Text(f"{mark} {visible(problem.what)}", style=style)
