"""Writes the page of every key of `indexrelay.toml`, from the models that read the file.

The sentences are those that stand under the fields, so that a person who edits the file and one who
edits the code read the same.

Usage: ``python -m scripts.settings_page PAGE [--check]``.
"""
# ruff: noqa: INP001 - a script: nothing is installed from this folder

import inspect
import json
import re
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel

from indexrelay.components.kind import Kind
from indexrelay.components.registry import GROUP, kind_class
from indexrelay.schemas.admin import AdminSettings, AdminToken, AdminUser
from indexrelay.schemas.backups import BackupSettings
from indexrelay.schemas.documents import json_schema_of
from indexrelay.schemas.gates import GateSettings
from indexrelay.schemas.monitoring import (
    AlertSettings,
    MonitoringSettings,
    NotificationSettings,
    NotificationTarget,
)
from indexrelay.schemas.schedules import ScheduleSettings
from indexrelay.schemas.settings import (
    ArtifactSettings,
    CatalogSettings,
    CatalogSource,
    CollectionSettings,
    ComponentDefinition,
    EmbedderSettings,
    FolderSource,
    HttpSettings,
    LogSettings,
    ProducerSettings,
    ReaderSettings,
    RebuilderSettings,
    RedisSettings,
    ReleaseSettings,
    Settings,
    TableSource,
    TokenSettings,
)
from scripts.pages import write_or_check

_PYPROJECT: Final = Path(__file__).resolve().parent.parent / "pyproject.toml"
KINDS: Final = tuple(
    tomllib.loads(_PYPROJECT.read_text(encoding="utf-8"))["project"]["entry-points"][GROUP]
)
_INTRODUCTION: Final = """\
# Settings

Every key of `indexrelay.toml`, written by `make docs` from the models that read it; do not edit.
A key that is not here is a mistake, and `indexrelay check` names it. A variable wins over the file:
`INDEXRELAY_REBUILDER__WORKERS=4` is `workers` of `[rebuilder]`. An editor takes the same from
[schemas/settings.json](schemas/settings.json).
"""
_TABLES: Final[tuple[tuple[str, type[BaseModel] | type[Kind[Any, Any]]], ...]] = (
    ("At the top of the file", Settings),
    ("`[collections.NAME]`", CollectionSettings),
    ('`[collections.NAME.source]`, `kind = "catalog"`', CatalogSource),
    ('`[collections.NAME.source]`, `kind = "table"`', TableSource),
    ('`[collections.NAME.source]`, `kind = "folder"`', FolderSource),
    ("`[collections.NAME.embedder]`", EmbedderSettings),
    ("`[components.NAME]`", ComponentDefinition),
    ("`[components.NAME.gates]`", GateSettings),
    *((f'`[components.NAME]`, `kind = "{kind}"`', kind_class(kind)) for kind in KINDS),
    ("`[redis]`", RedisSettings),
    ("`[catalog]`", CatalogSettings),
    ("`[artifacts]`", ArtifactSettings),
    ("`[producer]`", ProducerSettings),
    ("`[rebuilder]`", RebuilderSettings),
    ("`[releases]`", ReleaseSettings),
    ("`[reader]`", ReaderSettings),
    ("`[http]`", HttpSettings),
    ("`[http.tokens.NAME]`", TokenSettings),
    ("`[admin]`", AdminSettings),
    ("`[admin.users.NAME]`", AdminUser),
    ("`[admin.tokens.NAME]`", AdminToken),
    ("`[backups]`", BackupSettings),
    ("`[schedules.NAME]`", ScheduleSettings),
    ("`[monitoring]`", MonitoringSettings),
    ("`[alerts]`", AlertSettings),
    ("`[notifications]`", NotificationSettings),
    ("`[notifications.targets.NAME]`", NotificationTarget),
    ("`[log]`", LogSettings),
)
_LIMITS: Final = {
    "minimum": "≥",
    "exclusiveMinimum": ">",
    "maximum": "≤",
    "exclusiveMaximum": "<",
}
_TYPES: Final = {
    "string": "text",
    "integer": "whole number",
    "number": "number",
    "boolean": "true, false",
    "object": "table",
    "array": "list",
}


def page() -> str:
    """The whole page; the same models give the same text."""
    return "\n".join([_INTRODUCTION, *(_section(title, model) for title, model in _TABLES)])


def _section(title: str, of: type[BaseModel] | type[Kind[Any, Any]]) -> str:
    schema = json_schema_of(of.Parameters if issubclass(of, Kind) else of)
    definitions = schema.get("$defs", {})
    rows = [
        f"| `{key}` | {_value(field, definitions)} "
        f"| {_default(field, required=key in schema.get('required', ()))} | {_meaning(field)} |"
        for key, field in schema["properties"].items()
        # The table of a kind's half has no section of its own: its keys are those of another kind.
        if issubclass(of, Kind) or not _is_table(field, definitions)
    ]
    about = " ".join(inspect.cleandoc(of.__doc__ or "").split())
    header = ["| key | value | default | meaning |", "|---|---|---|---|"]
    table = [*header, *rows] if rows else ["There are no keys of its own."]
    return "\n".join([f"## {title}", _plain(about), "", *table, ""])


def _is_table(of: Mapping[str, Any], definitions: Mapping[str, Any]) -> bool:
    """Whether the key opens a table, which has a section of its own."""
    if "discriminator" in of or "patternProperties" in of:
        return True
    reference = of.get("$ref")
    return reference is not None and _referred(reference, definitions)["type"] == "object"


def _referred(reference: str, definitions: Mapping[str, Any]) -> Mapping[str, Any]:
    found: Mapping[str, Any] = definitions[reference.rpartition("/")[2]]
    return found


def _value(of: Mapping[str, Any], definitions: Mapping[str, Any]) -> str:
    """What may be written, in a few words."""
    if "$ref" in of:
        return _value(_referred(of["$ref"], definitions), definitions)
    if "anyOf" in of:
        kinds = [_value(each, definitions) for each in of["anyOf"] if each.get("type") != "null"]
        return " or ".join(dict.fromkeys(kinds))
    if "enum" in of:
        return ", ".join(f"`{json.dumps(each)}`" for each in of["enum"])
    if "const" in of:
        return f"`{json.dumps(of['const'])}`"
    kind = "path" if of.get("format") == "path" else _TYPES[of["type"]]
    limits = [f"{sign} {of[name]:,}" for name, sign in _LIMITS.items() if name in of]
    return f"{kind} {', '.join(limits)}".rstrip()


def _default(of: Mapping[str, Any], *, required: bool) -> str:
    if required:
        return "*must be given*"
    value = of.get("default")
    if isinstance(value, dict):  # a table of which every key has its default
        return ""
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # as a person writes it
    return "" if value is None else f"`{json.dumps(value, ensure_ascii=False)}`"


def _meaning(of: Mapping[str, Any]) -> str:
    return _plain(of.get("description", "")).replace("|", "\\|")


def _plain(text: str) -> str:
    """A docstring's marks as Markdown's; an absent key is what the code calls ``None``."""
    text = re.sub(r"(^|[.!?] )``None``", r"\1Not given", text).replace("``None``", "not given")
    return re.sub(r"``(.+?)``", r"`\1`", text)


def main() -> int:
    """Write the page, or compare it."""
    return write_or_check("settings_page", page, described=__doc__ or "", of="the models say")


if __name__ == "__main__":
    sys.exit(main())
