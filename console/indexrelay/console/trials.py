"""What only trying shows: options that a client refuses, an index that FAISS cannot make.

The clients' own code reads the options, with nothing connected, so that ``check`` and the real
connection cannot disagree.
"""

from collections.abc import Iterator

from indexrelay.components.conformance import trial_of
from indexrelay.components.registry import kind_of
from indexrelay.schemas.mistakes import Mistake, SettingsError
from indexrelay.schemas.redaction import HIDDEN
from indexrelay.schemas.settings import Settings, TableSource
from indexrelay.storage.urls import refused_options
from indexrelay.streams.clients import try_url
from indexrelay.streams.errors import RedisUrlError


def tried(settings: Settings) -> dict[str, str]:
    """Try everything; by key of the settings, what else there is to know.

    Raises:
        SettingsError: with everything that is wrong.
    """
    wrong, notes = component_trials(settings)
    wrong += url_mistakes(settings)
    if wrong:
        raise SettingsError(wrong, origin="settings")
    return notes


def url_mistakes(settings: Settings) -> Iterator[Mistake]:
    """URLs whose options no connection would take; no part of a URL is shown."""
    if settings.redis_url is not None:
        try:
            try_url(settings.redis_url)
        except RedisUrlError as error:
            yield Mistake(key="redis.url", value=HIDDEN, right=str(error))
    urls = {"catalog.url": settings.catalog_url}
    for name, collection in settings.collections.items():
        if isinstance(collection.source, TableSource):
            urls[f"collections.{name}.source.url"] = collection.source.url.get_secret_value()
    for key, url in urls.items():
        refused = refused_options(url)
        if refused is not None:
            yield Mistake(key=key, value=HIDDEN, right=refused)


def component_trials(settings: Settings) -> tuple[list[Mistake], dict[str, str]]:
    """What cannot be built as it is declared, and by key of the settings what else to know."""
    wrong: list[Mistake] = []
    notes: dict[str, str] = {}
    for name, definition in settings.components.items():
        inputs = {
            source: settings.collections[source]
            for source in definition.inputs
            if source in settings.collections
        }
        trial = trial_of(kind_of(definition), inputs)
        key = f"components.{name}"
        wrong += (Mistake(key=key, value=definition.kind, right=each) for each in trial.wrong)
        if trial.notes:
            notes[key] = "; ".join(trial.notes)
    return wrong, notes
