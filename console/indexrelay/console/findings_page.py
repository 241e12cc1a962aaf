"""A reconciliation for a person: a line for each finding, the verdict last."""

from rich.console import Group, RenderableType
from rich.text import Text

from indexrelay.console.escaping import visible
from indexrelay.rebuilder.findings import Finding, Reconciliation, Standing

_MARKS = {
    Standing.MENDED: ("✓", "green"),
    Standing.WAITING: ("…", "cyan"),
    Standing.DECIDED: ("-", "magenta"),
    Standing.LEFT: ("⚠", "yellow"),
}


def findings_page(found: Reconciliation) -> RenderableType:
    """What was mended, what waits, what is left."""
    return Group(*(line for each in found.findings for line in _lines(each)), _verdict(found))


def _lines(finding: Finding) -> list[RenderableType]:
    mark, style = _MARKS[finding.standing]
    lines: list[RenderableType] = [Text(f"{mark} {visible(finding.what)}", style=style)]
    if finding.advice:
        lines.append(Text(f"  → {finding.advice}"))
    return lines


def _verdict(found: Reconciliation) -> Text:
    if found.needs_a_person:
        left = sum(each.standing is Standing.LEFT for each in found.findings)
        return Text(f"{left} of {len(found.findings)} need(s) a person", style="yellow")
    if not found.findings:
        return Text("✓ nothing differs from what it should be", style="green")
    return Text(f"✓ {len(found.mended)} mended, nothing needs a person", style="green")
