"""``indexrelay check``: are the settings right, and can what they name be read? Makes nothing.

Three kinds of findings. A *mistake* (exit 2) is a setting that can never work: an option that a
client refuses, an index that FAISS cannot make; both are found by trying, with nothing connected,
in the code that the real connection runs. What is *lacking* (exit 3) is missing on this host only:
a driver, a function, a folder. The rest is the judge's verdict on the places that the settings
name.
"""

import os
from collections.abc import Iterator
from json import dumps, loads
from pathlib import Path
from typing import Any, Final

import typer

from indexrelay.components.errors import EmbedderFunctionError
from indexrelay.components.registry import kind_of, lacks_of, trial_of
from indexrelay.console.commands import Config, Json
from indexrelay.console.commands.status import verdict_lines
from indexrelay.console.errors import ExitCode
from indexrelay.console.installation import Installation
from indexrelay.console.terminal import print_json, stdout
from indexrelay.health.judge import judge
from indexrelay.health.persistence import policy_note
from indexrelay.health.status import PLACES
from indexrelay.schemas.diagnostics import HIDDEN
from indexrelay.schemas.errors import EmbeddingError, MissingExtraError, Mistake, SettingsError
from indexrelay.schemas.filters import InvalidFilterError, parse_filter
from indexrelay.schemas.settings import FILTERING_KINDS, Settings, TableSource
from indexrelay.schemas.settings_file import origins_of
from indexrelay.storage.artifacts import SigningKey, SigningKeyError
from indexrelay.storage.urls import lacking_driver, refused_options
from indexrelay.streams.connection import try_url
from indexrelay.streams.errors import RedisUrlError

_TRIED_TEXT: Final = "Is there a vector of these words?"
"""What embedders are tried with."""


def check(config: Config = None, json: Json = False) -> None:
    """Check the settings, open each source and ask Redis: a mistake exits 2, not well exits 3."""
    try:
        installation, notes = tried(config)
    except SettingsError as error:
        if json:
            print_json({"right": False, "mistakes": mistake_documents(error)})
        raise
    settings = installation.settings
    lacking = lacks_of_host(settings)
    with installation:
        verdict = judge(installation.survey.of_places()).within(PLACES)
    if json:
        print_json(
            {
                "right": True,
                "mistakes": [],
                "lacking": lacking,
                "well": verdict.well and not lacking,
                "problems": [each.model_dump(mode="json") for each in verdict.problems],
                "notes": [*verdict.notes, *(f"{key}: {what}" for key, what in notes.items())],
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
        for key, what in notes.items():
            stdout().print(f"· {key}: {what}", soft_wrap=True)
        for key, what in lacking.items():
            stdout().print(f"⚠ {key}: {what}", soft_wrap=True)
        stdout().print(verdict_lines(verdict, well=_looked_at(settings)))
    if lacking or not verdict.well:
        raise typer.Exit(ExitCode.PARTIAL)


def tried(config: Path | None) -> tuple[Installation, dict[str, str]]:
    """The installation whose settings can all work, and by key of the settings notes about them.

    Raises:
        SettingsError: with everything that is wrong, and the line of each.
    """
    installation = Installation.at(config)
    try:
        return installation, trial_notes(installation.settings)
    except SettingsError as error:
        origins = origins_of(config)
        file = error.origin if origins.file is None else str(origins.file)
        raise SettingsError(origins.located(error.mistakes), origin=file) from None


def mistake_documents(error: SettingsError) -> list[dict[str, Any]]:
    """Each mistake as JSON has it."""
    return [
        {
            "key": each.key,
            "value": _jsonable(each.value),
            "right": each.right,
            "line": each.line,
            "variable": each.variable,
        }
        for each in error.mistakes
    ]


def trial_notes(settings: Settings) -> dict[str, str]:
    """Try everything; by key of the settings, notes about what is right.

    Raises:
        SettingsError: with everything that is wrong.
    """
    mistakes, notes = component_trials(settings)
    mistakes += url_mistakes(settings)
    wrong, blind = token_trials(settings)
    mistakes += wrong
    unseen = {
        f"collections.{name}": note
        for name, each in settings.collections.items()
        if (note := policy_note(name, each)) is not None
    }
    if mistakes:
        raise SettingsError(mistakes, origin="settings")
    return {**notes, **blind, **unseen}


def url_mistakes(settings: Settings) -> Iterator[Mistake]:
    """URLs whose options no connection would take; no part of a URL is shown."""
    if settings.redis_url is not None:
        try:
            try_url(settings.redis_url)
        except RedisUrlError as error:
            yield Mistake(key="redis.url", value=HIDDEN, right=str(error))
    for key, url in _database_urls(settings).items():
        refused = refused_options(url)
        if refused is not None:
            yield Mistake(key=key, value=HIDDEN, right=refused)


def token_trials(settings: Settings) -> tuple[list[Mistake], dict[str, str]]:
    """Forced filters of tokens that nothing can answer, or that leave nothing out; and by key of
    the settings, which components answer nothing to a token because their collection does not
    declare what it filters by."""
    mistakes: list[Mistake] = []
    notes: dict[str, str] = {}
    filtered = {
        name: settings.collections[each.inputs[0]].filterable
        for name, each in settings.components.items()
        if each.kind in FILTERING_KINDS and each.inputs[0] in settings.collections
    }
    for token, each in settings.http.tokens.items():
        if each.filter is None:
            continue
        key, refusals, open_to_all = f"http.tokens.{token}.filter", {}, []
        for name, fields in filtered.items():
            try:
                if parse_filter(each.filter, fields).everything:
                    open_to_all.append(name)
            except InvalidFilterError as error:
                refusals[name] = str(error)
        others = len(settings.components) > len(filtered)  # a kind of one's own may filter, too
        if open_to_all:
            right = f"a filter that leaves something out: this one matches all of {open_to_all[0]}"
            mistakes.append(Mistake(key=key, value=each.filter, right=right))
        elif refusals and len(refusals) == len(filtered) and not others:
            right = f"a filter that a component can answer: {next(iter(refusals.values()))}"
            mistakes.append(Mistake(key=key, value=each.filter, right=right))
        elif refusals:
            blind = "; ".join(f"{name} ({reason})" for name, reason in refusals.items())
            notes[key] = f"with this token nothing is answered by {blind}"
    return mistakes, notes


def component_trials(settings: Settings) -> tuple[list[Mistake], dict[str, str]]:
    """What cannot be built as it is declared, and by key of the settings notes about the rest."""
    mistakes: list[Mistake] = []
    notes: dict[str, str] = {}
    for name, definition in settings.components.items():
        inputs = {
            source: settings.collections[source]
            for source in definition.inputs
            if source in settings.collections
        }
        trial = trial_of(kind_of(definition), inputs)
        key = f"components.{name}"
        mistakes += (
            Mistake(key=key, value=definition.kind, right=each, plain=True) for each in trial.wrong
        )
        if trial.notes:
            notes[key] = "; ".join(trial.notes)
    return mistakes, notes


def lacks_of_host(settings: Settings) -> dict[str, str]:
    """By key of the settings: what builds and texts on this host would not find.

    A host that only reads needs none of it, unless it is asked by text.
    """
    return {
        **dict(_lacks_of_kinds(settings)),
        **dict(_lacking_embedders(settings)),
        **dict(_lacking_drivers(settings)),
        **dict(_lacking_folders(settings)),
        **dict(_lacks_of_signing(settings)),
    }


def _lacks_of_kinds(settings: Settings) -> Iterator[tuple[str, str]]:
    for name, definition in settings.components.items():
        lacks = "; ".join(lacks_of(kind_of(definition)))
        if lacks:
            yield f"components.{name}", f"{lacks}; a build on this host would fail"


def _lacking_embedders(settings: Settings) -> Iterator[tuple[str, str]]:
    """The embedders that make no vector of a short text here, and why."""
    if not any(each.embedder is not None for each in settings.collections.values()):
        return
    from indexrelay.components.embedder import Embedders

    embedders = Embedders(settings)
    for name in settings.collections:
        embedder = embedders.of(name)
        if embedder is None:
            continue
        try:
            embedder.embed([_TRIED_TEXT]).raise_for_failures()
        except (EmbedderFunctionError, EmbeddingError) as error:
            yield f"collections.{name}.embedder", f"{error}; no text gets a vector on this host"


def _lacking_drivers(settings: Settings) -> Iterator[tuple[str, str]]:
    for key, url in _database_urls(settings).items():
        lacks = lacking_driver(url)
        if lacks is not None:
            yield key, f"{lacks}; nothing on this host could connect to it"


def _lacks_of_signing(settings: Settings) -> Iterator[tuple[str, str]]:
    artifacts = settings.artifacts
    key = "artifacts.signing_key_file"
    if artifacts.signing_key_file is None:
        if artifacts.trusted_keys is not None:
            yield key, "not given: this host takes signed releases only, and can make none"
        return
    try:
        public = SigningKey.read(artifacts.signing_key_file).public
    except (SigningKeyError, MissingExtraError) as error:
        yield key, f"{error}; no release could be made on this host"
        return
    if artifacts.trusted_keys is not None and public not in artifacts.trusted_keys:
        yield key, f"its public key {public} is not in artifacts.trusted_keys"


def _lacking_folders(settings: Settings) -> Iterator[tuple[str, str]]:
    for key, folder in (("data_dir", settings.data_dir), ("artifacts.dir", settings.artifacts_dir)):
        obstacle = _obstacle(folder)
        if obstacle is not None:
            yield key, f"{folder} cannot be a folder: {obstacle} is something else"


def _obstacle(folder: Path) -> Path | None:
    """What is in place of ``folder`` or of one above it; a dangling link is something, too."""
    there = next(path for path in (folder, *folder.parents) if os.path.lexists(path))
    return None if os.path.isdir(there) else there  # noqa: PTH112 - asks without raising


def _database_urls(settings: Settings) -> dict[str, str]:
    """By key of the settings."""
    urls = {"catalog.url": settings.catalog_url}
    for name, collection in settings.collections.items():
        if isinstance(collection.source, TableSource):
            urls[f"collections.{name}.source.url"] = collection.source.url.get_secret_value()
    return urls


def _looked_at(settings: Settings) -> str:
    outside = sorted(
        name for name, each in settings.collections.items() if each.source.kind != "catalog"
    )
    sources = (
        f"each source can be read: {', '.join(outside)}"
        if outside
        else "nothing that is there already contradicts them"
    )
    return sources if settings.redis_url is None else f"{sources}; Redis answers"


def _jsonable(value: Any) -> Any:
    """A setting's value as JSON has it; what JSON has not (a date, a path) as text."""
    return loads(dumps(value, default=str, allow_nan=True), parse_constant=str)
