"""One version in detail: what it covers, how its gates judged, what its kind remembers."""

import json
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from indexrelay.console.tables import ago, covered, readable_bytes
from indexrelay.schemas.versions import VersionManifest


def manifest_page(manifest: VersionManifest) -> RenderableType:
    """The facts, the checks, the files."""
    return Group(_facts(manifest), _checks(manifest), _files(manifest))


def _facts(manifest: VersionManifest) -> Table:
    facts: dict[str, str] = {
        "component": manifest.component,
        "kind": manifest.kind,
        "version": manifest.id,
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


def _checks(manifest: VersionManifest) -> Table:
    table = Table(title="Checks", title_justify="left", title_style="bold", box=SIMPLE_HEAD)
    for column in ("", "check", "measured", "limit", "seconds", "detail"):
        table.add_column(column, overflow="fold")
    for check in manifest.checks:
        table.add_row(
            Text("✓", style="green") if check.passed else Text("✗", style="red"),
            check.name,
            _number(check.measured),
            _number(check.limit),
            f"{check.seconds:.3f}",
            Text(check.detail),
        )
    return table


def _files(manifest: VersionManifest) -> Table:
    table = Table(title="Files", title_justify="left", title_style="bold", box=SIMPLE_HEAD)
    for column in ("file", "size", "sha256"):
        table.add_column(column)
    for name, blob in manifest.files.items():
        table.add_row(name, readable_bytes(blob.size), blob.digest[:16])
    return table


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
