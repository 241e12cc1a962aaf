"""A repair of Redis for a person: what is wrong, and what was done or would be."""

from rich.console import Group, RenderableType
from rich.text import Text

from indexrelay.console.escaping import visible
from indexrelay.console.invocation import advice_line
from indexrelay.console.redis_repair import Repaired, RepairStep
from indexrelay.schemas import commands


def repair_page(repaired: Repaired) -> RenderableType:
    """A line or two for each step, the verdict last."""
    if not repaired.steps:
        return Text("nothing in Redis needs repair", style="green")
    lines = [line for step in repaired.steps for line in _lines(step)]
    count = len(repaired.steps)
    if repaired.only_looked:
        verdict = Text(f"{count} to repair; nothing was changed", style="yellow")
        return Group(*lines, verdict, advice_line(f"do it: {commands.DO_REPAIR_REDIS}"))
    if not repaired.well:
        return Group(*lines, Text("not all could be repaired", style="yellow"))
    verdict = Text(f"{count} repaired", style="green")
    return Group(*lines, verdict, advice_line(f"look at all of it: {commands.RECONCILE}"))


def _lines(step: RepairStep) -> list[Text]:
    if step.done:
        return [Text(f"✓ {visible(step.said)}", style="green")]
    return [
        Text(f"⚠ {visible(step.what)}", style="yellow"),
        Text(f"  → {visible(step.said or step.how)}"),
    ]
