"""One version in detail: what it covers, how its gates judged, what its kind remembers."""

import json
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from indexrelay.console.released import ReleasedVersion
from indexrelay.console.sheet import Sheet, flowing, number, whole
from indexrelay.console.tables import ago, covered, readable_bytes
from indexrelay.schemas.versions import VersionManifest


def manifest_page(released: ReleasedVersion) -> RenderableType:
    """The facts, the checks, the files."""
    return Group(_facts(released), _checks(released.manifest), _files(released.manifest))


def _facts(released: ReleasedVersion) -> Table:
    manifest = released.manifest
    facts: dict[str, str] = {
        "component": manifest.component,
        "kind": manifest.kind,
        "version": released.id,
        "covers": covered(manifest.covers, {}),
        "entries": f"{manifest.entries:,}",
        "size": readable_bytes(manifest.size),
        "built": f"{ago(manifest.created_at)}, in {manifest.build_seconds:.2f} s "
        f"and {manifest.verify_seconds:.2f} s of verification",
    }
    facts |= {f"made from {name}": version[:12] for name, version in manifest.parents.items()}
    facts |= {key: _shown(value) for key, value in manifest.parameters.items()}
    facts |= {key: _shown(value) for key, value in manifest.details.items()}
    table = Table.grid(padding=(0, 2))
    for key, value in facts.items():
        table.add_row(Text(key, style="bold"), Text(value))
    return table


def _checks(manifest: VersionManifest) -> Sheet:
    sheet = Sheet(
        "Checks",
        whole(""),
        flowing("check"),
        number("measured"),
        number("limit"),
        number("seconds"),
        flowing("detail"),
    )
    for check in manifest.checks:
        sheet.add(
            Text("✓", style="green") if check.passed else Text("✗", style="red"),
            check.name,
            _number(check.measured),
            _number(check.limit),
            f"{check.seconds:.3f}",
            check.detail,
        )
    return sheet


def _files(manifest: VersionManifest) -> Sheet:
    sheet = Sheet("Files", flowing("file"), number("size"), whole("sha256"))
    for name, blob in manifest.files.items():
        sheet.add(name, readable_bytes(blob.size), blob.digest[:16])
    return sheet


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
