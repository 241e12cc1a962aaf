"""``indexrelay check``: are the settings right, and is there what they name? Opens nothing else."""

from json import dumps, loads
from typing import Any

import typer

from indexrelay.console.options import Config, Json


def check(config: Config = None, json: Json = False) -> None:
    """Check the settings: a mistake exits 2, what a build would not find on this host exits 3."""
    from indexrelay.console.exits import ExitCode
    from indexrelay.console.installation import Installation
    from indexrelay.console.lacking import lacking
    from indexrelay.console.output import print_json, stdout
    from indexrelay.schemas.mistakes import SettingsError

    try:
        settings = Installation.at(config).settings
    except SettingsError as error:
        if json:
            mistakes = [
                {"key": each.key, "value": jsonable(each.value), "right": each.right}
                for each in error.mistakes
            ]
            print_json({"right": False, "mistakes": mistakes})
        raise
    found = lacking(settings)
    if json:
        print_json(
            {
                "right": True,
                "mistakes": [],
                "lacking": found,
                "namespace": settings.namespace,
                "data_dir": str(settings.data_dir),
                "collections": sorted(settings.collections),
                "components": sorted(settings.components),
            }
        )
    else:
        stdout().print(
            f"✓ the settings are right: {len(settings.collections)} collection(s), "
            f"{len(settings.components)} component(s), data in {settings.data_dir}",
            soft_wrap=True,
        )
        for key, what in found.items():
            stdout().print(f"⚠ {key}: {what}", soft_wrap=True)
    if found:
        raise typer.Exit(ExitCode.PARTIAL)


def jsonable(value: Any) -> Any:
    """A setting's value as JSON has it; what JSON has not (a date, a path) as text."""
    return loads(dumps(value, default=str, allow_nan=True), parse_constant=str)
