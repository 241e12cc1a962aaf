"""Searches by a text in a collection that has an embedder: the text's vector is searched for, too.

Vectors are asked for before a search gets a thread, and waited for on the event loop: a slow
embedder keeps no thread from other searches. What comes of it decides how a search is answered:

- with its vector, a search by vector and text asks both, and a search by vector asks with it;
- without one, words are searched for, and the answer says that it is less than it could be, and
  why: by the component itself, or by another one of the same collection, which the answer names
  and which has to be as fresh as was asked. Where nothing does, there is no answer now (503).

A component that finds words alone is asked as ever, and nothing of it is less. No file of this is
entered where no collection has an embedder, and every component is served that is asked.

A component that cannot be loaded, and of which no earlier version can, either, answers searches by
text in the same way: another one of its collection finds the words, until there is a new version.
"""

from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Self

from indexrelay.components.embedder import Embedder, Embedders, Embedding, TextFailure
from indexrelay.schemas.errors import EmbeddingError
from indexrelay.schemas.versions import root_collections
from indexrelay.service.dispatch import Search, arms_of, takes_options
from indexrelay.storage.entries import Vectors

if TYPE_CHECKING:
    from indexrelay.reloaders import Snapshot
    from indexrelay.schemas.settings import Settings

_WORDS_ALONE: Final = "text_index"
"""A kind that finds words, and no vectors."""
_VECTORS: Final = "vector_index"
"""A kind that takes texts where its collection has an embedder."""
_TAKE_TEXTS: Final = frozenset({_WORDS_ALONE, "search"})


@dataclass(frozen=True, kw_only=True)
class QueryVectors:
    """The vectors of the texts of one request's searches, which may be on their way."""

    embedder: Embedder
    embedding: Embedding
    numbers: Sequence[int]
    """Of the searches that have a text without a vector, in the order of their texts."""

    @classmethod
    def submit(
        cls,
        embedders: Embedders,
        snapshot: "Snapshot",
        component: str,
        searches: Sequence[Search],
        *,
        caller: str | None,
    ) -> Self | None:
        """Have the vectors made, in turn with those of other callers.

        ``None``: there is no embedder for them, or no such text.

        Raises:
            EmbedderFunctionError: the embedder cannot be imported.
        """
        texts = {
            number: each.text
            for number, each in enumerate(searches)
            if each.text is not None and each.vector is None and _asks_vectors(each)
        }
        if not texts or component not in snapshot:
            return None
        manifest = snapshot.manifest(component)
        if len(manifest.covers) != 1 or manifest.kind == _WORDS_ALONE:
            return None
        [collection] = manifest.covers
        embedder = embedders.of(collection)
        if embedder is None:
            return None
        embedding = embedder.submit([*texts.values()], caller=caller)
        return cls(embedder=embedder, embedding=embedding, numbers=[*texts])

    async def arrive(self) -> None:
        """Return when they are there, or when searches wait no longer."""
        await self.embedder.arrival(self.embedding, self.embedder.settings.query_seconds)

    def leave(self) -> None:
        """Wait for them no more."""
        self.embedder.leave(self.embedding)

    def outcomes(self) -> Mapping[int, Vectors | TextFailure]:
        """By the number of the search: its vector, or why there is none."""
        found = self.embedding.result()
        return {
            number: found.failures.get(row, found.vectors[row])
            for row, number in enumerate(self.numbers)
        }


def _asks_vectors(search: Search) -> bool:
    weights = search.options.get("weights")
    return weights is None or bool(weights.get("vector", 1.0))


@dataclass(frozen=True, kw_only=True)
class Routed:
    """How a search by text is answered."""

    search: Search
    component: str
    served: Any
    degraded: str | None = None
    """Why the answer is less than it could be; ``None``: it is not."""


def route(
    snapshot: "Snapshot",
    component: str,
    search: Search,
    outcome: Vectors | TextFailure | None,
    *,
    filtered: bool = False,
    suffices: Callable[[str], bool] = lambda _: True,
) -> Routed:
    """Which component is asked with what.

    Args:
        snapshot: what is served.
        component: what was asked for.
        search: what is searched for.
        outcome: what came of its text; ``None``: no vector was asked for.
        filtered: whether the caller may see a part only, so that a filter goes with the search.
        suffices: whether another component is as fresh as the answer has to be.

    Raises:
        EmbeddingError: there is no vector, and nothing else answers.
        ComponentNotServedError: it is not served.
    """
    asked = Routed(search=search, component=component, served=snapshot[component])
    arms = arms_of(asked.served)
    if outcome is None or "vector" not in arms:
        return asked
    if not isinstance(outcome, TextFailure):
        text = search.text if "text" in arms else None
        return replace(asked, search=replace(search, vector=outcome, text=text))
    degraded = f"{outcome.reason}: found by words alone"
    if "text" in arms:
        return replace(asked, degraded=degraded)
    options = {*search.options, *(("filter",) if filtered else ())}
    other = _found_by_words(snapshot, component, options, suffices)
    if other is None:
        [collection] = snapshot.manifest(component).covers
        raise EmbeddingError(collection, {0: outcome.reason}, transient=outcome.transient)
    return replace(asked, component=other, served=snapshot[other], degraded=degraded)


def stand_in(
    snapshot: "Snapshot",
    settings: "Settings",
    component: str,
    searches: Sequence[Search],
    *,
    filtered: bool = False,
) -> str | None:
    """Which component finds the words of searches that ask one that cannot be served.

    Args:
        snapshot: what is served.
        settings: what is declared.
        component: what was asked for.
        searches: each has a text.
        filtered: as of `route`.

    Returns:
        ``None``: none does, or the one that was asked takes no texts.
    """
    declared = settings.components.get(component)
    if declared is None:
        return None
    collections = root_collections(component, settings.components)
    if len(collections) != 1:
        return None
    [collection] = collections
    embedder = settings.collections[collection].embedder
    if declared.kind not in _TAKE_TEXTS and (declared.kind != _VECTORS or embedder is None):
        return None
    options = {"filter"} if filtered else set[str]()
    return _finds_words(
        snapshot, collection, options.union(*(each.options for each in searches)), lambda _: True
    )


def _found_by_words(
    snapshot: "Snapshot",
    component: str,
    options: AbstractSet[str],
    suffices: Callable[[str], bool],
) -> str | None:
    """Another component of the same collection that finds words, takes these options, and is as
    fresh as the answer has to be."""
    [collection] = snapshot.manifest(component).covers
    return _finds_words(snapshot, collection, options, suffices)


def _finds_words(
    snapshot: "Snapshot",
    collection: str,
    options: AbstractSet[str],
    suffices: Callable[[str], bool],
) -> str | None:
    """A component of this collection alone that finds words, takes these options, and is as fresh
    as the answer has to be."""
    for name in sorted(snapshot, key=lambda each: (snapshot.manifest(each).kind, each)):
        served = snapshot[name] if [*snapshot.manifest(name).covers] == [collection] else None
        if "text" in arms_of(served) and takes_options(served, options) and suffices(name):
            return name
    return None
