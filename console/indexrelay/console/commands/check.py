"""``indexrelay check``: are the settings right, and can what they name be read? Makes nothing."""

from json import dumps, loads
from typing import TYPE_CHECKING, Any

import typer

from indexrelay.console.options import Config, Json

if TYPE_CHECKING:
    from indexrelay.schemas.settings import Settings


def check(config: Config = None, json: Json = False) -> None:
    """Check the settings, open each source and ask Redis: a mistake exits 2, not well exits 3."""
    from indexrelay.console.collecting import survey_of
    from indexrelay.console.exits import ExitCode
    from indexrelay.console.installation import Installation
    from indexrelay.console.lacking import lacking
    from indexrelay.console.output import print_json, stdout
    from indexrelay.console.trials import tried
    from indexrelay.console.verdict_page import verdict_lines
    from indexrelay.health.judge import judge
    from indexrelay.health.verdict import PLACES
    from indexrelay.schemas.mistakes import SettingsError

    try:
        installation = Installation.at(config)
        trials = tried(installation.settings)
    except SettingsError as error:
        if json:
            mistakes = [
                {"key": each.key, "value": jsonable(each.value), "right": each.right}
                for each in error.mistakes
            ]
            print_json({"right": False, "mistakes": mistakes})
        raise
    settings = installation.settings
    found = lacking(settings)
    with installation:
        verdict = judge(survey_of(installation).of_places()).within(PLACES)
    if json:
        print_json(
            {
                "right": True,
                "mistakes": [],
                "lacking": found,
                "well": verdict.well and not found,
                "problems": [each.model_dump(mode="json") for each in verdict.problems],
                "notes": [*verdict.notes, *(f"{key}: {what}" for key, what in trials.items())],
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
        for key, what in trials.items():
            stdout().print(f"· {key}: {what}", soft_wrap=True)
        for key, what in found.items():
            stdout().print(f"⚠ {key}: {what}", soft_wrap=True)
        stdout().print(verdict_lines(verdict, well=_looked_at(settings)))
    if found or not verdict.well:
        raise typer.Exit(ExitCode.PARTIAL)


def _looked_at(settings: "Settings") -> str:
    outside = sorted(
        name for name, each in settings.collections.items() if each.source.kind != "catalog"
    )
    sources = (
        f"each source can be read: {', '.join(outside)}"
        if outside
        else "nothing that is there already contradicts them"
    )
    return sources if settings.redis_url is None else f"{sources}; Redis answers"


def jsonable(value: Any) -> Any:
    """A setting's value as JSON has it; what JSON has not (a date, a path) as text."""
    return loads(dumps(value, default=str, allow_nan=True), parse_constant=str)
