"""Names for the shell to complete: what the settings declare.

Completion runs at every press of the tab key, so it reads the file itself, checks nothing, opens
nothing, and never says that something is wrong.
"""

import os
import tomllib
from pathlib import Path

import typer


def component_names(context: typer.Context, incomplete: str) -> list[str]:
    """The declared components that begin so."""
    return _declared(context, "components", incomplete)


def collection_names(context: typer.Context, incomplete: str) -> list[str]:
    """The declared collections that begin so."""
    return _declared(context, "collections", incomplete)


def _declared(context: typer.Context, table: str, incomplete: str) -> list[str]:
    from indexrelay.schemas.settings_file import DEFAULT_FILE
    from indexrelay.schemas.variables import CONFIG

    named = context.params.get("config") or os.environ.get(CONFIG) or DEFAULT_FILE
    try:
        declared = tomllib.loads(Path(named).read_text(encoding="utf-8-sig")).get(table)
    except (OSError, ValueError):
        return []
    return [name for name in declared or () if name.startswith(incomplete)]
