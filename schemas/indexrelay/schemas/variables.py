"""Reads ``INDEXRELAY_…`` variables into the same tables that the file has.

A variable names its key with double underscores for the dots, in capitals:
``INDEXRELAY_REBUILDER__QUIET_SECONDS=0.5`` is ``[rebuilder] quiet_seconds = 0.5``. A value that
begins with ``[`` or ``{`` is a list or table in JSON, so that a whole component fits into one
variable. Everything else is text, which the setting's own type turns into a number or a truth
value; only a component's keys, whose types the kind knows and not we, are read as JSON scalars
where they are one, because their digest must be the one that the file's ``nprobe = 16`` gives.

An empty variable counts as not set: that is what a compose file makes of one that is missing.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

from indexrelay.schemas.mistakes import Mistake, suggestion
from indexrelay.schemas.redaction import HIDDEN

PREFIX: Final = "INDEXRELAY_"
CONFIG: Final = f"{PREFIX}CONFIG"
"""Names the settings file; the one variable that is not a setting."""


def tables_of(
    environ: Mapping[str, str], *, known: frozenset[str]
) -> tuple[dict[str, Any], list[Mistake]]:
    """The variables as nested tables, and what is wrong with them.

    Args:
        environ: the process's variables, or a test's.
        known: the top-level keys of the settings, in lower case.
    """
    tables: dict[str, Any] = {}
    mistakes: list[Mistake] = []
    # Sorted, so that COMPONENTS__MAP={…} comes before COMPONENTS__MAP__SEED, which wins.
    for variable in sorted(_ours(environ)):
        path = variable.removeprefix(PREFIX).lower().split("__")
        if path[0] not in known:
            right = "no such variable" + suggestion(path[0].upper(), {key.upper() for key in known})
            mistakes.append(Mistake(key=variable, value=HIDDEN, right=right))
            continue
        try:
            value = _value(environ[variable], scalars=path[0] == "components")
        except (ValueError, RecursionError):
            right = "begins like a list or table, but is not JSON"
            mistakes.append(Mistake(key=variable, value=HIDDEN, right=right))
            continue
        tables = merged(tables, _nested(path, value))
    return tables, mistakes


def merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Both, table by table; ``above`` wins."""
    both = dict(below)
    for key, value in above.items():
        beneath = both.get(key)
        if isinstance(value, dict) and isinstance(beneath, dict):
            both[key] = merged(beneath, value)
        else:
            both[key] = value
    return both


def _ours(environ: Mapping[str, str]) -> Iterator[str]:
    for variable, value in environ.items():
        if variable.startswith(PREFIX) and variable != CONFIG and value:
            yield variable


def _nested(path: list[str], value: Any) -> dict[str, Any]:
    table = {path[-1]: value}
    for key in reversed(path[:-1]):
        table = {key: table}
    return table


def _value(text: str, *, scalars: bool) -> Any:
    if text.lstrip().startswith(("[", "{")):
        return json.loads(text)
    if scalars:
        try:
            return json.loads(text)
        except ValueError:
            return text  # a plain word, such as a kind's name
    return text
