"""One collection for a person, and what it means that it goes."""

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from indexrelay.console.collections import CollectionDetails, Dropped, Restored
from indexrelay.console.escaping import visible
from indexrelay.console.invocation import advice_line
from indexrelay.console.tables import components_table, counted
from indexrelay.console.verdict_page import problem_lines
from indexrelay.schemas import commands


def collection_page(details: CollectionDetails) -> RenderableType:
    """The facts, and a row for each component that is made from it."""
    facts = details.facts
    rows = {
        "collection": details.name,
        "source": facts.source or "not declared in the settings",
        "dimension": str(facts.dimension),
        "metric": str(facts.metric),
        "epoch": details.epoch or "none: nothing was committed yet",
        "generation": str(facts.generation),
        "entries": counted(facts.entries),
        "last batches": ", ".join(details.last_batches) or "none",
    }
    table = Table.grid(padding=(0, 2))
    for key, value in rows.items():
        table.add_row(Text(key, style="bold"), Text(visible(value)))
    parts: list[RenderableType] = [table, components_table(details.components)]
    parts += [line for problem in details.problems for line in problem_lines(problem)]
    return Group(*parts)


def what_goes(dropped: Dropped) -> str:
    """The sentence before the question."""
    return (
        f"{dropped.collection} has {dropped.entries:,} entries at generation "
        f"{dropped.generation}; they cannot be brought back."
    )


def dropped_page(dropped: Dropped) -> RenderableType:
    """That it is gone, and what comes next."""
    lines = [Text(f"✓ {dropped.collection} is gone, with {dropped.entries:,} entries")]
    if dropped.components:
        serving = ", ".join(dropped.components)
        lines.append(Text(f"  {serving}: served as before, until it is filled again"))
        again = commands.rebuild(*dropped.components, force=True)
        lines.append(advice_line(f"if it will have far fewer entries then: {again}"))
    return Group(*lines)


def restored_page(restored: Restored) -> RenderableType:
    """Where it goes on, and what comes next."""
    at = f"generation {restored.generation}, above all that were given before"
    lines = [Text(f"✓ {restored.collection} goes on at {at}")]
    if restored.components:
        lines.append(
            Text(f"  {', '.join(restored.components)}: built from scratch out of what it holds")
        )
        again = commands.rebuild(*restored.components, force=True)
        lines.append(advice_line(f"if it holds far fewer entries now: {again}"))
    lines.append(Text("  → commit again what the backup lacks"))
    return Group(*lines)
