"""An overview as tables for a person."""

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from indexrelay.console.overview import ComponentFacts, Condition, Overview, Problem
from indexrelay.schemas.results import BuildOutcome, LoadOutcome, ReaderState, RebuilderState

if TYPE_CHECKING:
    from indexrelay.console.requesting import Requested

_STYLES = {
    Condition.CURRENT: "green",
    Condition.BUILDING: "cyan",
    Condition.BEHIND: "yellow",
    Condition.CHANGED: "yellow",
    Condition.MISSING: "yellow",
    Condition.HELD: "magenta",
    Condition.PAUSED: "magenta",
    Condition.UNDECLARED: "yellow",
    Condition.FAILED: "red",
}
_NONE = "-"
_MARKS = {
    LoadOutcome.APPLIED: "✓",
    LoadOutcome.UNCHANGED: "✓",
    LoadOutcome.FAILED: "✗",
    LoadOutcome.SUPERSEDED: "⚠",
}


def overview_page(overview: Overview) -> RenderableType:
    """Everything, the verdict last: that is where a terminal's reader looks first."""
    parts: list[RenderableType] = [
        collections_table(overview),
        components_table(overview.components),
        readers_table(overview.readers),
        rebuilders_table(overview.rebuilders),
        problems_list(overview.problems, release=overview.release),
    ]
    return Group(*parts)


def collections_table(overview: Overview) -> Table:
    """One row for each collection."""
    table = _table("Collections", ("collection", "source", "dimension", "metric"))
    table.add_column("generation", justify="right")
    table.add_column("entries", justify="right")
    for name, facts in overview.collections.items():
        table.add_row(
            name,
            facts.source or "not declared",
            str(facts.dimension),
            str(facts.metric),
            str(facts.generation),
            f"{facts.entries:,}",
        )
    return table


def components_table(components: Mapping[str, ComponentFacts]) -> Table:
    """One row for each component."""
    table = _table("Components", ("component", "kind", "state", "covers"))
    table.add_column("version", no_wrap=True)
    table.add_column("entries", justify="right")
    table.add_column("size", justify="right")
    for name, facts in components.items():
        table.add_row(
            name,
            facts.kind.rpartition(":")[2],
            Text(facts.condition, style=_STYLES[facts.condition]),
            covered(facts.covers, facts.behind),
            (facts.version or _NONE)[:12],
            f"{facts.entries:,}",
            readable_bytes(facts.bytes),
        )
    return table


def readers_table(readers: Mapping[str, ReaderState]) -> Table:
    """One row for each reader; what it serves of each component in the last column."""
    table = _table("Readers", ("reader", "host", "pid", "ready", "release", "components"))
    for name, state in readers.items():
        served = "  ".join(
            f"{_MARKS[component.outcome]} {of}" for of, component in state.components.items()
        )
        ready = Text("yes", style="green") if state.ready else Text("no", style="yellow")
        table.add_row(name, state.host, str(state.pid), ready, str(state.release), served or _NONE)
    return table


def rebuilders_table(rebuilders: Mapping[str, RebuilderState]) -> Table:
    """One row for each rebuilder."""
    table = _table("Rebuilders", ("rebuilder", "host", "pid", "building", "last result"))
    for name, state in rebuilders.items():
        last = state.last_result
        table.add_row(
            name,
            state.host,
            str(state.pid),
            ", ".join(state.building) or _NONE,
            _NONE if last is None else f"{last.status}: {last.message}",
        )
    return table


def served_table(state: ReaderState) -> Table:
    """One reader in detail: a row for each component."""
    title = f"{state.reader}: release {state.release}, {'ready' if state.ready else 'not ready'}"
    table = _table(title, ("", "component", "outcome", "covers"))
    table.add_column("version", no_wrap=True)
    table.add_column("entries", justify="right")
    table.add_column("load", justify="right")
    table.add_column("error", overflow="fold")
    for name, component in state.components.items():
        table.add_row(
            _MARKS[component.outcome],
            name,
            str(component.outcome),
            covered(component.covers, {}),
            (component.version or _NONE)[:12],
            f"{component.entries:,}",
            f"{component.seconds * 1000:.1f} ms",
            Text(component.error or ""),
        )
    return table


def hits_table(hits: Iterable[Mapping[str, Any]]) -> Table:
    """Answers, the best first."""
    table = _table("Found", ("", "id"))
    table.add_column("score", justify="right")
    table.add_column("payload", overflow="fold")
    for rank, hit in enumerate(hits, 1):
        payload = "" if hit["payload"] is None else json.dumps(hit["payload"], ensure_ascii=False)
        table.add_row(str(rank), Text(hit["id"]), f"{hit['score']:.4f}", Text(payload))
    return table


def result_page(requested: "Requested") -> RenderableType:
    """What came of a request."""
    result = requested.result
    if result is None and requested.waited:
        return Text("✓ nothing was due: everything is up to date", style="green")
    if result is None:
        seen = f"; {len(requested.rebuilders)} rebuilder(s) will see it"
        nobody = "; no rebuilder is running: start one, or use --here"
        return Text(
            f"requested as {requested.request_id}{seen if requested.rebuilders else nobody}"
        )
    release = "" if result.release is None else f" (release {result.release})"
    verdict = Text(f"{result.status}: {result.message}{release}")
    if not result.components:
        return verdict
    table = _table("", ("", "component", "outcome", "covers"))
    table.add_column("entries", justify="right")
    table.add_column("seconds", justify="right")
    table.add_column("error", overflow="fold")
    for name, component in result.components.items():
        table.add_row(
            "✓" if component.outcome is BuildOutcome.REBUILT else "✗",
            name,
            str(component.outcome),
            covered(component.covers, {}),
            f"{component.entries:,}",
            f"{component.seconds:.2f}",
            Text(component.error or ""),
        )
    return Group(table, verdict)


def problems_list(problems: Iterable[Problem], *, release: int) -> RenderableType:
    """The verdict: all is well, or what is wrong and what to do."""
    lines: list[RenderableType] = []
    for problem in problems:
        lines.append(Text(f"⚠ {problem.what}", style="yellow"))
        lines.append(Text(f"  → {problem.advice}"))
    if lines:
        return Group(*lines)
    what = f"release {release} is served everywhere" if release else "there is nothing to serve yet"
    return Text(f"✓ all is well: {what}", style="green")


def covered(covers: Mapping[str, int], behind: Mapping[str, int]) -> str:
    """``tracks 41 (2 behind)``; each collection in turn."""
    parts = [
        f"{name} {covers.get(name, 0)}" + (f" ({behind[name]} behind)" if name in behind else "")
        for name in sorted({*covers, *behind})
    ]
    return ", ".join(parts) or _NONE


def readable_bytes(count: int) -> str:
    """Bytes with a binary prefix and one decimal."""
    size = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


def ago(moment: datetime | None) -> str:
    """How long ago, in the largest fitting unit."""
    if moment is None:
        return _NONE
    seconds = max(0.0, (datetime.now(UTC) - moment).total_seconds())
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit} ago"
    return f"{seconds:.0f} s ago"


def _table(title: str, columns: Iterable[str]) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD)
    for column in columns:
        # Names must stay whole to be copied; what is long may take several lines.
        table.add_column(column, overflow="fold", no_wrap=column in ("component", "kind", "reader"))
    return table
