"""The collections of a reader, as whoever asks them has to know them: ``GET /v1/collections``.

What each holds, by which fields it can be filtered, and which components answer for it, to what
kind of question. All of it is known in memory: from the settings, and from what is served.
"""

from collections.abc import Iterable, Iterator

from anyio import to_thread
from fastapi import APIRouter, Request
from pydantic import BaseModel

from indexrelay.components.query import EntriesServed
from indexrelay.reloaders import Reloader, Snapshot
from indexrelay.schemas.filters import FieldType
from indexrelay.schemas.settings import Metric, Settings
from indexrelay.schemas.versions import root_collections
from indexrelay.service.description import refusals
from indexrelay.service.dispatch import questions_for
from indexrelay.service.tokens import see_everything


class Answering(BaseModel):
    """A component that answers for a collection."""

    kind: str
    served: bool
    answers: tuple[str, ...] = ()
    """What it can be searched for: ``vector``, ``text``, ``id``, ``like``."""
    entries: int | None = None
    """How many it holds, with live changes; null: it does not count them."""
    generation: int | None = None
    """Of the collection: up to where it has what was committed."""


class CollectionFacts(BaseModel):
    """A collection: what its entries are, and who answers for them."""

    dimension: int
    """Of every vector."""
    metric: Metric
    live: bool
    """Whether what is committed is found within milliseconds, and not only once it is released."""
    fields: dict[str, FieldType]
    """By which fields of the payloads searches may filter."""
    embedder: str | None
    """What makes vectors of its texts, as ``module:function``; null: vectors are given."""
    components: dict[str, Answering]


class CollectionsAnswer(BaseModel):
    """Every collection that the settings declare."""

    release: int
    collections: dict[str, CollectionFacts]


def collections_of(reloader: Reloader) -> CollectionsAnswer:
    """What a reader has of each collection."""
    settings = reloader.settings
    with reloader.acquire() as snapshot:
        return CollectionsAnswer(
            release=snapshot.release,
            collections={
                name: CollectionFacts(
                    dimension=collection.dimension,
                    metric=collection.metric,
                    live=collection.live,
                    fields=dict(collection.filterable),
                    embedder=None if collection.embedder is None else collection.embedder.function,
                    components={
                        each: _answering(each, name, settings, snapshot)
                        for each in sorted(components_of(name, settings, snapshot))
                    },
                )
                for name, collection in sorted(settings.collections.items())
            },
        )


def components_of(collection: str, settings: Settings, snapshot: Snapshot) -> set[str]:
    """The components of a collection that this reader serves, or is to serve."""
    return {*_declared(collection, settings), *_served(collection, snapshot)}


def _declared(collection: str, settings: Settings) -> Iterator[str]:
    chosen: Iterable[str] | None = settings.reader.components
    for name in settings.components:
        if collection in root_collections(name, settings.components) and (
            chosen is None or name in chosen
        ):
            yield name


def _served(collection: str, snapshot: Snapshot) -> Iterator[str]:
    for name, covers in snapshot.covers.items():
        if collection in covers:
            yield name


def _answering(name: str, collection: str, settings: Settings, snapshot: Snapshot) -> Answering:
    if name not in snapshot:
        return Answering(kind=settings.components[name].kind, served=False)
    served, manifest = snapshot[name], snapshot.manifest(name)
    answers = questions_for(served)
    if settings.collections[collection].embedder is not None and "vector" in answers:
        answers = ("text", *(each for each in answers if each != "text"))
    reached = {each.collection: each.generation for each in snapshot.reached(name)}
    return Answering(
        kind=manifest.kind,
        served=True,
        answers=answers,
        entries=served.count() if isinstance(served, EntriesServed) else manifest.entries,
        generation=reached.get(collection),
    )


def collection_routes(reloader: Reloader) -> APIRouter:
    """The route about collections."""
    router = APIRouter()

    @router.get("/collections", responses=refusals())
    async def collections(request: Request) -> CollectionsAnswer:
        see_everything(request)
        return await to_thread.run_sync(collections_of, reloader)

    return router
