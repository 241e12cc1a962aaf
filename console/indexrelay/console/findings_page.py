"""A reconciliation for a person: what was repaired, then the judge's verdict."""

from rich.console import Group, RenderableType
from rich.text import Text

from indexrelay.console.escaping import visible
from indexrelay.console.invocation import advice_line
from indexrelay.console.reconciling import Reconciled
from indexrelay.console.verdict_page import verdict_lines
from indexrelay.rebuilder.findings import Finding, Standing


def findings_page(found: Reconciled) -> RenderableType:
    """A line for each repair, then what is not well, the verdict last."""
    repairs = [
        Text(f"✓ {visible(each.what)}", style="green")
        for each in found.findings
        if each.standing is Standing.MENDED
    ]
    failed = [line for each in found.unrepaired for line in _failed(each)]
    well = "nothing differs from what it should be"
    if repairs:
        well = f"{len(repairs)} repaired, and all is well now"
    verdict = verdict_lines(found.verdict, well=well, besides=len(found.unrepaired))
    return Group(*repairs, *failed, verdict)


def _failed(finding: Finding) -> list[Text]:
    return [
        Text(f"⚠ {visible(finding.what)}", style="yellow"),
        advice_line(finding.advice),
    ]
