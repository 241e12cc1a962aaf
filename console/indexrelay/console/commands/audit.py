"""``indexrelay audit``: who had what done on this host."""

from datetime import datetime
from typing import Annotated, Any, Final

import typer

from indexrelay.console.commands import Config, Json
from indexrelay.console.figures import value
from indexrelay.console.installation import Installation
from indexrelay.console.sheet import Sheet, flowing, whole
from indexrelay.console.terminal import note, print_json, stdout
from indexrelay.storage.audit import AuditLog

_SHOWN: Final = ("time", "who", "action", "subject")


def audit(
    last: Annotated[
        int, typer.Option("--last", min=1, max=1_000_000, help="How many of the newest lines.")
    ] = 20,
    config: Config = None,
    json: Json = False,
) -> None:
    """Who had what done on this host: the newest lines of the audit log."""
    with Installation.at(config) as installation:
        lines = AuditLog.of(installation.settings).newest(last)
    if json:
        print_json({"lines": lines})
    elif not lines:
        note("nobody had anything done on this host yet")
    else:
        sheet = Sheet("", whole("time (UTC)"), flowing("who"), whole("action"), flowing("what"))
        for line in lines:
            sheet.add(
                _moment(str(line["time"])), str(line["who"]), str(line["action"]), _what(line)
            )
        stdout().print(sheet)


def _moment(written: str) -> str:
    try:
        return f"{datetime.fromisoformat(written):%Y-%m-%d %H:%M:%S}"
    except ValueError:
        return written


def _what(line: dict[str, Any]) -> str:
    """The subject, and what else the action is known by."""
    more = [f"{key} {value(each)}" for key, each in line.items() if key not in _SHOWN]
    return "; ".join([*([str(line["subject"])] if line.get("subject") else []), *more])
