"""What there is, as tables for a person."""

import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.text import Text

from indexrelay.console import figures
from indexrelay.console.escaping import visible
from indexrelay.console.invocation import adapted
from indexrelay.console.sheet import Sheet, flowing, number, spare, whole
from indexrelay.health.verdict import CollectionHealth, ComponentHealth, Condition
from indexrelay.schemas import commands
from indexrelay.schemas.results import BuildOutcome, LoadOutcome, ReaderState, RebuilderState

if TYPE_CHECKING:
    from indexrelay.console.requesting import Requested

_STYLES = {
    Condition.CURRENT: "green",
    Condition.BEHIND: "yellow",
    Condition.CHANGED: "yellow",
    Condition.MISSING: "yellow",
    Condition.OUTRUN: "red",
    Condition.UNDECLARED: "yellow",
    Condition.DAMAGED: "red",
    Condition.FAILED: "red",
}
_NONE = "-"
_LONGEST_PAYLOAD = 300
_MARKS = {
    LoadOutcome.APPLIED: "✓",
    LoadOutcome.UNCHANGED: "✓",
    LoadOutcome.FAILED: "✗",
    LoadOutcome.SUPERSEDED: "⚠",
}


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
            counted(facts.entries),
        )
    return sheet


def counted(entries: int | None) -> str:
    """How many there are; a table's are not counted for a page."""
    return "not counted" if entries is None else f"{entries:,}"


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
            (facts.version or _NONE)[:12],
            f"{facts.entries:,}",
            figures.size(facts.bytes),
        )
    return sheet


def _state(health: ComponentHealth) -> Text:
    """How it stands, and what is going on beside that: ``behind, building``."""
    text = Text(health.condition, style=_STYLES[health.condition])
    if health.building:
        text.append(", building", style="cyan")
    for decision, word in ((health.held, "held"), (health.paused, "paused")):
        if decision is not None:
            text.append(f", {word}", style="magenta")
    return text


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


def _served(state: ReaderState) -> str:
    """``✓ 6  ✗ map``: how many are as they should be, and the names of the others."""
    others: dict[str, list[str]] = {}
    for name, component in state.components.items():
        others.setdefault(_MARKS[component.outcome], []).append(name)
    good = others.pop("✓", [])
    counted = [f"✓ {len(good)}"] if good else []
    return (
        "  ".join([*counted, *(f"{mark} {', '.join(of)}" for mark, of in others.items())]) or _NONE
    )


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
            ", ".join(state.building) or _NONE,
            _NONE if last is None else f"{last.status}: {last.message}",
        )
    return sheet


def served_table(state: ReaderState) -> Sheet:
    """One reader in detail: a row for each component."""
    ready = "ready" if state.ready else "not ready"
    title = visible(f"{state.process}: release {state.release}, {ready}")
    sheet = Sheet(
        title,
        whole(""),
        flowing("component"),
        whole("outcome"),
        flowing("covers"),
        spare("version"),
        number("entries"),
        number("load"),
        flowing("error"),
    )
    for name, component in state.components.items():
        sheet.add(
            _MARKS[component.outcome],
            name,
            str(component.outcome),
            covered(component.covers, {}),
            (component.version or _NONE)[:12],
            f"{component.entries:,}",
            figures.seconds(component.seconds),
            component.error or "",
        )
    return sheet


def hits_table(hits: Iterable[Mapping[str, Any]]) -> Sheet:
    """Answers, the best first; a long payload is cut, and whole with ``--json``."""
    sheet = Sheet("Found", number(""), flowing("id"), number("score"), flowing("payload"))
    for rank, hit in enumerate(hits, 1):
        payload = "" if hit["payload"] is None else json.dumps(hit["payload"], ensure_ascii=False)
        if len(payload) > _LONGEST_PAYLOAD:
            payload = f"{payload[:_LONGEST_PAYLOAD]}… ({len(payload):,} characters)"
        # An id is one line, whatever it holds.
        sheet.add(str(rank), visible(hit["id"]), f"{hit['score']:.4f}", payload)
    return sheet


def result_page(requested: "Requested") -> RenderableType:
    """What came of a request."""
    result = requested.result
    if result is None and requested.waited:
        return Text("nothing was due")
    if result is None:
        seen = f"; {len(requested.rebuilders)} rebuilder(s) will see it"
        nobody = f"; no rebuilder is running, start one: {adapted(commands.REBUILDER)}"
        return Text(
            f"requested as {requested.request_id}{seen if requested.rebuilders else nobody}"
        )
    release = "" if result.release is None else f" (release {result.release})"
    verdict = Text(f"{result.status}: {result.message}{release}")
    if not result.components:
        return verdict
    sheet = Sheet(
        "",
        whole(""),
        flowing("component"),
        whole("outcome"),
        spare("build"),
        flowing("covers"),
        number("entries"),
        number("took"),
        flowing("error"),
    )
    for name, component in result.components.items():
        sheet.add(
            "✓" if component.outcome is BuildOutcome.REBUILT else "✗",
            name,
            str(component.outcome),
            str(component.mode or _NONE),
            covered(component.covers, {}),
            f"{component.entries:,}",
            figures.seconds(component.seconds),
            component.error or "",
        )
    return Group(sheet, verdict)


def covered(covers: Mapping[str, int], behind: Mapping[str, int]) -> str:
    """``tracks 41 (2 behind)``; each collection in turn."""
    parts = [
        f"{name} {covers.get(name, 0)}" + (f" ({behind[name]} behind)" if name in behind else "")
        for name in sorted({*covers, *behind})
    ]
    return ", ".join(parts) or _NONE
