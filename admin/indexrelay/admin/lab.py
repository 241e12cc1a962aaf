"""The search lab: one question, asked of one or two sides, and how each side came to its answer.

A side is a component in a kept release; two sides are two releases of one component, or two
components. What is searched are released versions, opened read-only from the artifact store: live
changes that lie over them in a reader are not in here.

A mistake in the question is an error that names its field. What concerns one side only, such as an
id that the older release did not have, stands in that side's answer, and the other side answers.
Where no side answers, the first side's error is the answer's.

Everything is bounded: hits, the bytes of their payloads, the time, and the threads, which are the
lab's own. A question keeps no reader from its work.
"""

import contextlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from time import perf_counter
from typing import Annotated, Any, ClassVar, Final, Literal, Self

import numpy as np
from fastapi import APIRouter
from pydantic import BaseModel, Field, model_validator
from starlette.responses import Response

from indexrelay.admin.maps import MAX_TEXT, holders, shown_payload
from indexrelay.admin.resources import AdminResources
from indexrelay.admin.version_cache import FieldError, LookThreads, Named, VersionCache
from indexrelay.components.embedder import Embedders
from indexrelay.components.errors import EmbedderFunctionError, UnknownEntryError
from indexrelay.components.search.hybrid import ARMS
from indexrelay.components.served import Hit
from indexrelay.schemas.diagnostics import describe_error
from indexrelay.schemas.errors import EmbeddingError, IndexRelayError, InvalidQueryError
from indexrelay.schemas.filters import InvalidFilterError
from indexrelay.schemas.names import MAX_ERROR, Name, shortened
from indexrelay.schemas.settings import Settings
from indexrelay.schemas.versions import Release, VersionManifest
from indexrelay.service import dispatch
from indexrelay.service.bodies import Body, Count, EntryId, FilterObject, Vector, Weight
from indexrelay.service.dispatch import Search
from indexrelay.storage.entries import Vectors

MAX_K: Final = 200
"""Hits of one side: as many as light up on a map and can be told apart."""
MAX_RELEASES: Final = 200
"""Of the list to choose from."""
_MAX_TEXT: Final = 10_000
_PAYLOAD_BYTES: Final = 4 * 1024 * 1024
"""Of all hits of a side."""
_WITH_TEXTS: Final = ("search", "text_index")
_FORMS: Final = ("text", "vector", "id")
_NOT_SEARCHED: Final = frozenset({"projection", "json_cache", "embedding_cache"})
_QUESTIONS: Final[Mapping[str, tuple[str, ...]]] = {
    "vector_index": ("vector", "id"),
    "text_index": ("text",),
    "search": ("vector", "text", "id"),
}
"""What our own kinds are asked by; a user's kind says so once it is asked."""
_OPTIONS: Final[Mapping[str, tuple[str, ...]]] = {
    "vector_index": ("filter",),
    "text_index": ("filter",),
    "search": ("filter", "weights"),
}


class LabComponent(BaseModel):
    """A component that can be asked."""

    component: str
    kind: str
    collections: list[str]
    entries: int
    questions: list[str]
    """``vector``, ``text``, ``id``; of a kind that is not ours all of them."""
    by_text: str | None
    """Why it cannot be asked by a text; null: it can."""
    options: list[str]
    """``filter`` and ``weights``, as far as it takes them."""
    filterable: dict[str, str]
    """By field: the type of its values."""
    dimension: int | None
    """Numbers of a vector; null: it is made from several collections, or from none that is
    declared."""


class LabRelease(BaseModel):
    """A release to compare with."""

    number: int
    created_at: str
    reason: str
    components: list[str]


class LabChoice(BaseModel):
    """What can be asked."""

    release: int | None
    components: list[LabComponent]
    releases: list[LabRelease]
    """The newest first."""


class Side(Body):
    """What is asked."""

    component: Name
    release: Annotated[int, Field(ge=1, lt=2**53)] | None = None
    """A kept one; null: the newest."""


class LabRequest(Body):
    """One question, and who is asked."""

    WANTED: ClassVar[str] = "with sides and one of text, vector and id"

    sides: Annotated[list[Side], Field(min_length=1, max_length=2)]
    text: Annotated[str, Field(min_length=1, max_length=_MAX_TEXT)] | None = None
    vector: Vector | None = None
    id: EntryId | None = None
    k: Annotated[Count, Field(le=MAX_K)] = 10
    filter: FilterObject | None = None
    weights: dict[Literal["vector", "text"], Weight] | None = None
    """Of ``vector`` and ``text`` in a hybrid search."""

    @model_validator(mode="after")
    def _one_question(self) -> Self:
        asked = _asked(self)
        if not asked or ("id" in asked and len(asked) > 1):
            raise ValueError(
                "ask by a text, by a vector, by both together, or by an id, not by "
                f"{' and '.join(asked) or 'nothing'}"
            )
        if self.weights and not any(self.weights.get(arm, 1.0) for arm in ARMS):
            raise ValueError("weights: one of them must be above 0")
        return self


class Arm(BaseModel):
    """Where one half of a hybrid search found an entry."""

    rank: int | None
    score: float | None


class LabHit(BaseModel):
    """One hit of one side."""

    id: str
    rank: int
    """From 1."""
    score: float | None
    other_rank: int | None
    """On the other side; null: it is not among the hits there, or there is no other side."""
    payload: Any = None
    payload_start: str | None = None
    """Of a payload that is too long to be shown whole: how its JSON begins."""
    payload_bytes: int = 0
    text: str | None = None
    arms: dict[str, Arm] | None = None


class SideError(BaseModel):
    """Why a side has no answer."""

    field: str
    detail: str


class SideAnswer(BaseModel):
    """What one side found, and how."""

    component: str
    release: int
    version: str | None = None
    hits: list[LabHit] = []
    asked_by: list[str] = []
    """``vector``, ``text`` or ``id``: what it was asked with, after an embedder made a vector of a
    text."""
    notes: list[str] = []
    explanation: dict[str, Any] | None = None
    """Plan, layers, effort, candidates and stages; null: its kind does not explain."""
    seconds: float | None = None
    """Of the search alone, without opening the version and making the vector of a text."""
    open_seconds: float | None = None
    embed_seconds: float | None = None
    error: SideError | None = None


class LabAnswer(BaseModel):
    """Both sides, and how alike they are."""

    sides: list[SideAnswer]
    overlap_at_k: float | None
    """Share of the hits that both have; null: one side, no hits, or one has no answer."""
    only_first: int = 0
    only_second: int = 0
    moved: int = 0
    """Hits of both that have another rank."""


class SearchLab:
    """Asks versions of kept releases; safe to use from many threads."""

    def __init__(self, settings: Settings, versions: VersionCache, *, embedders: Embedders) -> None:
        """``embedders`` make vectors of texts, where a collection has one."""
        self._settings = settings
        self._versions = versions
        self._embedders = embedders

    def choice(self) -> LabChoice:
        """What can be asked; nothing while nothing is released."""
        try:
            newest = self._versions.release()
        except FieldError:
            return LabChoice(release=None, components=[], releases=[])
        manifests = self._versions.manifests(newest)
        return LabChoice(
            release=newest.number,
            components=[
                self._component(name, manifest)
                for name, manifest in manifests.items()
                if manifest.kind not in _NOT_SEARCHED
            ],
            releases=[
                LabRelease(
                    number=release.number,
                    created_at=release.created_at.isoformat(),
                    reason=shortened(release.reason, 200),
                    components=sorted(release.components),
                )
                for release in self._versions.releases(MAX_RELEASES)
            ],
        )

    def search(self, asked: LabRequest) -> LabAnswer:
        """Ask each side.

        Raises:
            FieldError: no side has an answer.
        """
        found = [self._side(number, side, asked) for number, side in enumerate(asked.sides)]
        errors = [each.error for each in found]
        if all(errors) and (error := errors[0]) is not None:
            raise FieldError(error.field, error.detail)
        if len(found) == 1:
            return LabAnswer(sides=found, overlap_at_k=None)
        first, second = ({hit.id: hit.rank for hit in each.hits} for each in found)
        both = first.keys() & second.keys()
        most = max(len(first), len(second))
        is_compared = most > 0 and not any(errors)
        return LabAnswer(
            sides=[_beside(found[0], second), _beside(found[1], first)],
            overlap_at_k=len(both) / most if is_compared else None,
            only_first=len(first) - len(both),
            only_second=len(second) - len(both),
            moved=sum(first[each] != second[each] for each in both),
        )

    def _component(self, name: str, manifest: VersionManifest) -> LabComponent:
        collections = sorted(manifest.covers)
        declared = self._settings.collections.get(collections[0]) if len(collections) == 1 else None
        questions = list(_QUESTIONS.get(manifest.kind, ("vector", "text", "id")))
        by_text = None
        if "text" not in questions:
            if declared is not None and declared.embedder is not None:
                questions.append("text")
            else:
                by_text = self._no_text(name, collections)
        return LabComponent(
            component=name,
            kind=manifest.kind,
            collections=collections,
            entries=manifest.entries,
            questions=questions,
            by_text=by_text,
            options=list(_OPTIONS.get(manifest.kind, ("filter", "weights"))),
            filterable={}
            if declared is None
            else {field: str(kind) for field, kind in declared.filterable.items()},
            dimension=None if declared is None else declared.dimension,
        )

    def _no_text(self, component: str, collections: Sequence[str]) -> str:
        """Why a component of vectors alone cannot be asked by a text, and what can be done."""
        where = f"{collections[0]} has" if len(collections) == 1 else "its collections have"
        others = sorted(
            name
            for name, definition in self._settings.components.items()
            if definition.kind in ("text_index", "search")
            and set(definition.inputs) & set(collections)
        )
        instead = f" ask {' or '.join(others[:5])}," if others else ""
        return (
            f"{component} finds vectors, and {where} no embedder that makes one of a text: name a "
            f"function as `embedder` of the collection,{instead} or give a vector or an id"
        )

    def _side(self, number: int, side: Side, asked: LabRequest) -> SideAnswer:
        """What one side answers; what goes wrong with it stands in its answer."""
        at = f"sides.{number}"
        answer = SideAnswer(component=side.component, release=side.release or 0)
        try:
            release = self._versions.release(side.release, field=f"{at}.release")
            answer = answer.model_copy(update={"release": release.number})
            named = self._versions.named(side.component, release, field=f"{at}.component")
            answer = answer.model_copy(update={"version": named.version})
            return self._ask(named, asked, answer, at)
        except FieldError as error:
            wrong = SideError(field=error.field, detail=str(error))
        except IndexRelayError as error:
            wrong = SideError(field=f"{at}.component", detail=str(error))
        except Exception as error:  # noqa: BLE001 - the code of a user's kind
            said = f"the search of {side.component} failed: {describe_error(error)}"
            wrong = SideError(field=f"{at}.component", detail=said)
        wrong = wrong.model_copy(update={"detail": shortened(wrong.detail, MAX_ERROR)})
        return answer.model_copy(update={"error": wrong})

    def _ask(self, named: Named, asked: LabRequest, answer: SideAnswer, at: str) -> SideAnswer:
        began = perf_counter()
        opened = self._versions.open(named)
        open_seconds = perf_counter() - began
        served = opened.value
        if not dispatch.questions_for(served):
            kind = opened.manifest.kind
            raise FieldError(f"{at}.component", f"{named.component} is a {kind}: it has no search")
        began = perf_counter()
        question, notes = self._question(served, opened.manifest, asked)
        embed_seconds = perf_counter() - began
        began = perf_counter()
        try:
            hits = dispatch.search(served, question, max_payload_bytes=_PAYLOAD_BYTES)
        except InvalidFilterError as error:
            raise FieldError("filter", str(error)) from error
        except UnknownEntryError as error:
            raise FieldError("id", f"release {named.release.number}: {error}") from error
        except InvalidQueryError as error:
            raise FieldError(_asked(asked)[0], f"{named.component}: {error}") from error
        seconds = perf_counter() - began
        explanation = getattr(hits, "explanation", None)
        degraded = getattr(hits, "degraded", None)
        was_embedded = asked.vector is None and question.vector is not None
        shown = [*hits[: asked.k]]
        texts = self._texts_of(shown, opened.manifest, named.release)
        return answer.model_copy(
            update={
                "hits": [_hit(rank, hit, texts.get(hit.id)) for rank, hit in enumerate(shown, 1)],
                "asked_by": [name for name in _FORMS if getattr(question, name) is not None],
                "notes": [*notes, *([] if degraded is None else [degraded])],
                "explanation": None if explanation is None else explanation.as_json(),
                "seconds": seconds,
                "open_seconds": open_seconds,
                "embed_seconds": embed_seconds if was_embedded else None,
            }
        )

    def _texts_of(
        self, hits: Sequence[Hit], manifest: VersionManifest, release: Release
    ) -> Mapping[str, str]:
        """The beginnings of the texts of hits: of a component that finds vectors, from another one
        of its release."""
        manifests = self._versions.manifests(release)
        found = holders(manifest, manifests, _WITH_TEXTS)
        if manifest.component in found:
            found = [manifest.component]
        ids = [hit.id for hit in hits]
        for component in found[:1] if ids else ():
            with contextlib.suppress(IndexRelayError):  # they are for reading, and not the answer
                served = self._versions.open(self._versions.named(component, release)).value
                entries = dispatch.get(served, ids, max_payload_bytes=2 * _PAYLOAD_BYTES)
                return {each.id: each.text[:MAX_TEXT] for each in entries if each and each.text}
        return {}

    def _question(
        self, served: Any, manifest: VersionManifest, asked: LabRequest
    ) -> tuple[Search, list[str]]:
        """What a component is asked with, and what is to be known of it.

        Raises:
            FieldError: it takes no filter or no weights, or cannot be asked by a text.
        """
        options: dict[str, Any] = {"k": asked.k}
        for name, given in (("filter", asked.filter), ("weights", asked.weights)):
            if given is None:
                continue
            if not dispatch.takes_options(served, [name]):
                raise FieldError(name, f"{manifest.component} takes no {name}: leave it empty")
            options[name] = given
        if asked.weights is not None and asked.id is not None:
            raise FieldError("weights", "by an id there is one ranking, and nothing to weigh")
        if dispatch.takes_options(served, ["explain"]) and (
            asked.id is None or type(served).__module__.startswith("indexrelay.components.")
        ):
            options["explain"] = True
        vector = None if asked.vector is None else np.asarray(asked.vector, dtype=np.float32)
        question = Search(vector=vector, text=asked.text, id=asked.id, options=options)
        arms = dispatch.arms_of(served)
        if asked.text is None or vector is not None or "vector" not in arms:
            return question, []
        made, note = self._vector_of(asked.text, manifest)
        if "text" in arms:
            return replace(question, vector=made), [] if made is not None else [note]
        if made is None:
            raise FieldError("text", note)
        return replace(question, vector=made, text=None), []

    def _vector_of(self, text: str, manifest: VersionManifest) -> tuple[Vectors | None, str]:
        """The vector of a text; or why there is none."""
        collections = sorted(manifest.covers)
        embedder = None
        if len(collections) == 1 and collections[0] in self._settings.collections:
            embedder = self._embedders.of(collections[0])
        if embedder is None:
            if manifest.kind == "vector_index":
                return None, self._no_text(manifest.component, collections)
            return None, f"found by words alone: {', '.join(collections)} has no embedder"
        try:
            return embedder.vector(text), ""
        except (EmbeddingError, EmbedderFunctionError) as error:
            return None, str(error)


def _asked(asked: LabRequest) -> list[str]:
    return [name for name in _FORMS if getattr(asked, name) is not None]


def _hit(rank: int, hit: Hit, text: str | None) -> LabHit:
    """A hit within the limits of an answer."""
    raw = hit.payload_json or b""
    payload, start = shown_payload(raw)
    arms: Mapping[str, Any] = getattr(hit, "arms", None) or {}
    shown = {name: Arm(rank=arm.rank, score=_finite(arm.score)) for name, arm in arms.items()}
    return LabHit(
        id=hit.id,
        rank=rank,
        score=_finite(hit.score),
        other_rank=None,
        payload=payload,
        payload_start=start,
        payload_bytes=len(raw),
        text=text,
        arms=shown or None,
    )


def _beside(side: SideAnswer, other: Mapping[str, int]) -> SideAnswer:
    """A side whose hits know their ranks on the other one."""
    hits = [hit.model_copy(update={"other_rank": other.get(hit.id)}) for hit in side.hits]
    return side.model_copy(update={"hits": hits})


def _finite(score: float) -> float | None:
    return float(score) if math.isfinite(score) else None


def lab_routes(resources: AdminResources) -> APIRouter:
    """The routes of the lab; whoever may look may ask."""
    settings = resources.settings
    lab = SearchLab(settings, resources.versions, embedders=Embedders(settings))
    router = APIRouter(tags=["lab"])
    threads = LookThreads("questions of people to answer")

    @router.get("/lab", response_model=LabChoice)
    async def choose() -> Response:
        """What can be asked, and the kept releases."""
        return await threads.answer(lab.choice)

    @router.post("/lab/search", response_model=LabAnswer)
    async def search(asked: LabRequest) -> Response:
        """Ask one question of one or two sides; it changes nothing."""
        names = " and ".join(sorted({each.component for each in asked.sides}))
        return await threads.answer(lambda: lab.search(asked), of=names)

    return router
