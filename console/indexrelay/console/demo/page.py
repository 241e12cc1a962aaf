"""The demo's report as a person reads it."""

from rich.console import Group, RenderableType
from rich.text import Text

from indexrelay.console.demo.report import DemoReport
from indexrelay.console.sheet import Sheet, flowing, number, whole
from indexrelay.console.tables import covered
from indexrelay.schemas.results import BuildOutcome, LoadOutcome, RebuildStatus

OWN_SHARE_TARGET_SECONDS = 0.150
"""What the pipeline may add to a batch of a thousand, at the median."""
_SHOWN_ANSWERS = 3


def report_page(report: DemoReport) -> RenderableType:
    """Batches, components, readers, answers, figures, verdict."""
    return Group(
        _batches(report), _components(report), _readers(report), _answers(report), _verdict(report)
    )


def _batches(report: DemoReport) -> Sheet:
    sheet = Sheet(
        "Batches",
        whole("batch"),
        number("upserts"),
        number("deletes"),
        whole("rebuild"),
        number("served after"),
        number("own share"),
    )
    for batch in report.batches:
        sheet.add(
            batch.batch_id,
            f"{batch.upserts:,}",
            f"{batch.deletes:,}",
            Text(
                batch.status, style="green" if batch.status is RebuildStatus.SUCCESS else "yellow"
            ),
            f"{batch.event_to_served_seconds:.2f} s",
            f"{batch.own_share_seconds * 1000:.0f} ms",
        )
    return sheet


def _components(report: DemoReport) -> Sheet:
    sheet = Sheet(
        "Components", flowing("component"), whole("outcome"), flowing("covers"), number("entries")
    )
    for name, component in report.components.items():
        good = component.outcome is BuildOutcome.REBUILT
        sheet.add(
            name,
            Text(f"{'✓' if good else '✗'} {component.outcome}", style="green" if good else "red"),
            covered(component.covers, {}),
            f"{component.entries:,}",
        )
    return sheet


def _readers(report: DemoReport) -> Sheet:
    sheet = Sheet(
        "Readers (generation served)",
        whole("reader"),
        number("release"),
        *(whole(component) for component in report.components),
    )
    for name, reader in report.readers.items():
        cells = []
        for component in report.components:
            served = reader.components.get(component)
            if served is None:
                cells.append("-")
                continue
            mark = "✗" if served.outcome is LoadOutcome.FAILED else "✓"
            cells.append(f"{mark} {max(served.covers.values(), default=0)}")
        sheet.add(name, str(reader.release), *cells)
    return sheet


def _answers(report: DemoReport) -> Sheet:
    same = f"Answers, the same from {len(report.readers)} reader(s)"
    sheet = Sheet(
        same if report.agree else "Answers of the first reader; others differ",
        flowing("question"),
        flowing("by vector"),
        flowing("by words"),
    )
    first = next(iter(report.readers), None)
    for answer in report.queries:
        if answer.reader == first:
            sheet.add(
                answer.text,
                "\n".join(answer.top[:_SHOWN_ANSWERS]),
                "\n".join(answer.top_by_text[:_SHOWN_ANSWERS]),
                end_section=True,
            )
    return sheet


def _verdict(report: DemoReport) -> Text:
    served, own = report.event_to_served_seconds, report.own_share_seconds
    within = own.p50 < OWN_SHARE_TARGET_SECONDS
    text = Text(
        f"event to served: {served.p50:.2f} s at the median, {served.max:.2f} s at most\n"
        f"the pipeline's own share (neither quiet wait nor build nor verification): "
        f"{own.p50 * 1000:.0f} ms at the median, {own.max * 1000:.0f} ms at most "
        f"({'within' if within else 'beyond'} {OWN_SHARE_TARGET_SECONDS * 1000:.0f} ms)\n"
        f"whole demo: {report.seconds:.0f} s\n"
    )
    for good, yes, no in (
        (
            report.converged,
            f"every reader serves every component at release {report.release}",
            "readers do not all serve the newest of everything",
        ),
        (report.agree, "all readers give the same answers", "readers give different answers"),
    ):
        text.append(f"✓ {yes}\n" if good else f"✗ {no}\n", style="green" if good else "red")
    text.rstrip()
    return text
