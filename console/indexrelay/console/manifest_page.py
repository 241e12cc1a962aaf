"""One version in detail: what it covers, why it is what it is, how its gates judged, what it holds.

And where it comes from: the versions before it, so that a jump in size or time stands out.
"""

from collections.abc import Iterable

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from indexrelay.console import figures
from indexrelay.console.decision_page import DECISION, decision_page
from indexrelay.console.released import ReleasedVersion
from indexrelay.console.sheet import Sheet, flowing, number, spare, whole
from indexrelay.console.tables import covered
from indexrelay.console.version_history import HistoricalVersion
from indexrelay.schemas.versions import VersionManifest


def manifest_page(
    released: ReleasedVersion, history: Iterable[HistoricalVersion]
) -> RenderableType:
    """The facts, the decision, the checks, the files, the history."""
    manifest = released.manifest
    return Group(
        _facts(released),
        Text(),
        *decision_page(manifest.details, manifest.parameters),
        _checks(manifest),
        _files(manifest),
        _history(history),
    )


def _facts(released: ReleasedVersion) -> Table:
    manifest = released.manifest
    facts: dict[str, str] = {
        "component": manifest.component,
        "kind": manifest.kind,
        "version": released.id,
        "covers": covered(manifest.covers, {}),
        "entries": f"{manifest.entries:,}",
        **{f"with {what}": f"{count:,}" for what, count in manifest.counts.items()},
        **{
            f"left out of {name}": ", ".join(
                f"{count:,} {kind}" for kind, count in left_out.items()
            )
            for name, left_out in manifest.left_out.items()
        },
        "size": figures.size(manifest.size),
        "built": f"{figures.ago(manifest.created_at)}, "
        f"in {figures.seconds(manifest.build_seconds)} "
        f"and {figures.seconds(manifest.verify_seconds)} of verification",
    }
    facts |= {f"made from {name}": version[:12] for name, version in manifest.parents.items()}
    facts |= {key: figures.value(value) for key, value in manifest.parameters.items()}
    hidden = DECISION if "index" in manifest.details else ()
    facts |= {
        key: figures.value(value) for key, value in manifest.details.items() if key not in hidden
    }
    table = Table.grid(padding=(0, 2))
    for key, value in facts.items():
        if not value:
            continue  # a detail that this version has nothing to say of
        table.add_row(Text(key, style="bold"), Text(value))
    return table


def _checks(manifest: VersionManifest) -> Sheet:
    sheet = Sheet(
        "Checks",
        whole(""),
        flowing("check"),
        number("measured"),
        number("limit"),
        number("took"),
        flowing("detail"),
    )
    files = {blob.digest: name for name, blob in manifest.files.items()}
    for check in manifest.checks:
        sheet.add(
            Text("✓", style="green") if check.passed else Text("✗", style="red"),
            check.name,
            figures.measured(check.name, check.measured),
            figures.measured(check.name, check.limit),
            figures.seconds(check.seconds),
            check.detail or files.get(check.blob or "", ""),
        )
    return sheet


def _files(manifest: VersionManifest) -> Sheet:
    sheet = Sheet("Files", flowing("file"), number("size"), whole("sha256"))
    for name, blob in manifest.files.items():
        sheet.add(name, figures.size(blob.size), blob.digest[:16])
    return sheet


def _history(history: Iterable[HistoricalVersion]) -> Sheet:
    sheet = Sheet(
        "History",
        number("releases"),
        whole("built"),
        flowing("covers"),
        number("entries"),
        number("size"),
        number("build"),
        number("verify"),
        spare("version"),
        flowing("why"),
    )
    for each in history:
        first, last, manifest = each.first_release, each.last_release, each.manifest
        releases = str(last) if first == last else f"{first}-{last}"
        facts = (
            ("not readable", "", "", "", "", "")
            if manifest is None
            else (
                figures.ago(manifest.created_at),
                covered(manifest.covers, {}),
                f"{manifest.entries:,}",
                figures.size(manifest.size),
                figures.seconds(manifest.build_seconds),
                figures.seconds(manifest.verify_seconds),
            )
        )
        sheet.add(releases, *facts, each.version[:12], each.reason)
    return sheet
