"""The kind ``search``: a vector index and a text index over one collection, as one component.

Each half is built, verified and loaded by its own kind (`parts`); what is served asks both and
fuses their answers (`hybrid`).
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, Literal, cast

from pydantic import Field, field_validator

from indexrelay.components.errors import RerankFunctionError
from indexrelay.components.functions import FunctionName, function_of
from indexrelay.components.golden import (
    GOLDEN_KEYS,
    GoldenParameters,
    GoldenQuery,
    dimension_mistakes,
    golden_gates,
    read_golden,
)
from indexrelay.components.kind import Built, Files, Improvable, Job, Kind, Trial
from indexrelay.components.search.hybrid import ARMS, HybridSearch
from indexrelay.components.search.parts import Part, part_of, together
from indexrelay.components.search.weights import LearnedWeights, learned
from indexrelay.components.text_index import TextIndex, TextIndexParameters
from indexrelay.components.vector_index.kind import VectorIndex
from indexrelay.components.vector_index.spec import VectorIndexParameters
from indexrelay.schemas.filters import FilterableFields
from indexrelay.schemas.gates import GateSettings
from indexrelay.schemas.settings import CollectionSettings
from indexrelay.schemas.versions import BlobRef, Check, VersionManifest
from indexrelay.storage.entries import Vectors

VECTOR: Final = "vector"
TEXT: Final = "text"
WEIGHTS: Final = "weights.json"
"""The file of a version whose golden queries chose weights."""
Weight = Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)]
_KINDS: Final[Mapping[str, type[Kind[Any, Any]]]] = {VECTOR: VectorIndex, TEXT: TextIndex}
_VECTORS_SHARE: Final = 0.7
"""Of the time of a build."""


class HybridIndexParameters(GoldenParameters):
    """The keys of a ``kind = "search"`` table."""

    golden_by: ClassVar[frozenset[str]] = frozenset({"text", "vector", "text+vector", "id"})

    vector: VectorIndexParameters = VectorIndexParameters()
    """The keys of a ``vector_index``, as a table: ``vector = { min_recall = 0.99 }``."""

    text: TextIndexParameters = TextIndexParameters()
    """The keys of a ``text_index``, as a table: ``text = { tokenizer = "english" }``."""

    filterable: FilterableFields = Field(default_factory=dict)
    """Taken from the collection, where it is declared: do not give it here."""

    weights: Mapping[Literal["vector", "text"], Weight] | None = None
    """Of the two halves in a fusion of scores, where a search gives none:
    ``{ vector = 1, text = 2 }``. Absent: golden queries that ask by text and by vector choose them
    (20 at least), and without those they are equal."""

    rerank: FunctionName | None = None
    """``module:function``; called in the readers as ``function(query, hits)`` for each search, with
    a `HybridQuery` and the best hits (text, payload, rank and score of each half). It returns a
    number for each, higher for better, or the ids in a new order. ``None``: the fusion decides.
    Readers import it, and builds that ask golden queries."""

    rerank_hits: Annotated[int, Field(ge=1, le=1000)] = 50
    """How many of the best hits ``rerank`` is given; at least as many as are asked for. 50: where a
    model looks at each of them, more would be felt."""

    rerank_seconds: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 5.0
    """How long ``rerank`` may take for one search, the wait for a thread included. An answer that
    would come later comes without it, and says so (``degraded``). 5: longer than people wait for a
    search, so that only what hangs is left out. Builds that ask golden queries wait for it."""

    @field_validator("weights")
    @classmethod
    def _one_counts(cls, weights: Mapping[str, float] | None) -> Mapping[str, float] | None:
        if weights is not None and not any(weights.get(name, 1.0) for name in ARMS):
            raise ValueError("one of them must be above 0")
        return weights

    @field_validator("vector", "text", mode="before")
    @classmethod
    def _golden_stands_beside(cls, table: Any) -> Any:
        misplaced = sorted(GOLDEN_KEYS & table.keys()) if isinstance(table, Mapping) else ()
        if misplaced:
            raise ValueError(f"{misplaced[0]} stands beside it: golden queries ask both halves")
        if isinstance(table, Mapping) and "filterable" in table:
            raise ValueError("filterable is declared in the collection, for both halves")
        return table


class HybridIndex(Kind[HybridIndexParameters, HybridSearch]):
    """A vector index and a text index over one collection, searched together.

    Both are of one version, so they always hold the same entries.
    """

    preload = VectorIndex.preload
    # The halves depend on none: a build with others names their files again.
    gate_parameters = GOLDEN_KEYS | {"rerank", "rerank_hits", "rerank_seconds", "weights"}
    sandboxed = frozenset(f"{VECTOR}.{name}" for name in VectorIndex.sandboxed)
    max_inputs = 1
    takes_components = False
    has_quick_versions = True

    def __init__(self, parameters: HybridIndexParameters) -> None:
        super().__init__(parameters)
        fields = {"filterable": parameters.filterable}
        self._parts = self._vector, self._text = (
            Part(VECTOR, VectorIndex(parameters.vector.model_copy(update=fields))),
            Part(TEXT, TextIndex(parameters.text.model_copy(update=fields))),
        )

    @classmethod
    def outdated(cls, manifest: VersionManifest) -> str | None:
        """Versions of which a half is."""
        for name, kind in _KINDS.items():
            reason = kind.outdated(part_of(name, manifest))
            if reason is not None:
                return f"{name}: {reason}"
        return None

    @classmethod
    def improvable(cls, manifest: VersionManifest) -> Improvable | None:
        """What a better vector half would have; a text index is ready at once."""
        return VectorIndex.improvable(part_of(VECTOR, manifest))

    @classmethod
    def improves(cls, built: VersionManifest, served: VersionManifest) -> bool:
        """Whether the vector half does."""
        return VectorIndex.improves(part_of(VECTOR, built), part_of(VECTOR, served))

    def lacks(self) -> Iterator[str]:
        """What the halves lack, and the function of ``rerank``, where it cannot be imported."""
        for part in self._parts:
            yield from part.kind.lacks()
        try:
            self._rerank()
        except RerankFunctionError as error:
            yield str(error)

    def trial(self, collections: Mapping[str, CollectionSettings]) -> Trial:
        """What comes of trying the halves' parameters out; whether golden queries are as long."""
        trials = {part.name: part.kind.trial(collections) for part in self._parts}
        return Trial(
            wrong=(
                *dimension_mistakes(self.parameters, collections),
                *(f"{name}: {each}" for name, one in trials.items() for each in one.wrong),
            ),
            notes=tuple(f"{name}: {each}" for name, one in trials.items() for each in one.notes),
        )

    def build(self, job: Job) -> Built:
        """Build both halves; each continues its last version where it can.

        Raises:
            UnusableInputError: it is not made from one collection, or a vector cannot be indexed.
            UnbuildableIndexError: FAISS refuses the index over these vectors.
            MemoryLimitError: ``vector.max_bytes`` cannot be met.
        """
        vector = self._vector.build(job, start=0.0, end=_VECTORS_SHARE)
        text = self._text.build(job, start=_VECTORS_SHARE, end=1.0)
        made = together({self._vector: vector, self._text: text})
        learned = self._learned(job, made)
        if learned is None:
            return made
        file, weights = learned
        return replace(
            made,
            files={**made.files, WEIGHTS: file},
            details={**made.details, "weights": weights.model_dump(mode="json")},
        )

    def _learned(self, job: Job, made: Built) -> tuple[Path | BlobRef, LearnedWeights] | None:
        """The weights that golden queries choose; ``None``: nothing is left to them.

        An incremental build keeps those of the last version while the queries are the same ones: a
        small batch would wait for hundreds of searches, and hardly moves one number.
        """
        golden, k = self.parameters.golden, self.parameters.golden_k
        if golden is None or self.parameters.weights is not None:
            return None
        files: dict[str, Path] = {}
        previous = job.previous
        if previous is not None:
            before = previous.manifest.files
            if made.extends and WEIGHTS in before:
                weights = LearnedWeights.load(previous.files[WEIGHTS])
                if (weights.golden, weights.k) == (golden.sha256, k):
                    return before[WEIGHTS], weights
            kept = {blob: previous.files[name] for name, blob in before.items()}
            files = {
                name: kept[ref] for name, ref in made.files.items() if isinstance(ref, BlobRef)
            }
        files |= {name: file for name, file in made.files.items() if isinstance(file, Path)}
        with closing(self.load(files)) as search:
            found = learned(
                read_golden(golden, forms=self.parameters.golden_by),
                k=k,
                golden=golden.sha256,
                shares=lambda query: search.shares(
                    cast("Vectors", query.vector), cast("str", query.text)
                ),
                known=search.__contains__,
            )
        if found is None:
            return None
        file = job.workdir / WEIGHTS
        found.save(file)
        return file, found

    def verify(self, job: Job, built: Built, files: Mapping[str, Path]) -> Iterable[Check]:
        """The gates of both halves, with ``vector.`` or ``text.`` before their names."""
        gates = (check for part in self._parts for check in part.verify(job, built, files))

        def load() -> HybridSearch:
            return self._opened(
                files, lambda part: part.kind.load(part.files(files)), rerank_seconds=None
            )

        return golden_gates(gates, self.parameters, load=load, ask=_answer)

    def validate(
        self, files: Mapping[str, Path], manifest: VersionManifest, asked: GateSettings
    ) -> Iterable[Check]:
        """Both halves by themselves, and the golden queries of both together."""
        gates = (check for part in self._parts for check in part.validate(files, manifest, asked))
        return golden_gates(gates, self.parameters, load=lambda: self.load(files), ask=_answer)

    def load(self, files: Mapping[str, Path]) -> HybridSearch:
        """Open both halves for serving, and import the function of ``rerank``.

        Raises:
            CorruptFileError: a file is not what was written.
            MissingExtraError: FAISS is not installed.
            RerankFunctionError: the function of ``rerank`` cannot be imported.
        """
        return self._opened(
            files,
            lambda part: part.kind.load(part.files(files)),
            rerank_seconds=self.parameters.rerank_seconds,
        )

    def reload(self, files: Mapping[str, Path], previous: Any) -> HybridSearch:
        """`load`, where each half may share what ``previous`` has open."""
        served = cast("HybridSearch", previous)
        halves = {VECTOR: served.by_vector, TEXT: served.by_text}
        return self._opened(
            files,
            lambda part: part.kind.reload(part.files(files), halves[part.name]),
            rerank_seconds=self.parameters.rerank_seconds,
        )

    @classmethod
    def overlap(cls, new: Any, before: Any) -> float | None:
        """That of the vector half, which remembers its queries."""
        ours, theirs = cast("HybridSearch", new), cast("HybridSearch", before)
        return VectorIndex.overlap(ours.by_vector, theirs.by_vector)

    def inspect(self, value: Any) -> None:
        """Let each half's kind inspect what it opened.

        Raises:
            CorruptFileError: a file is not what a build writes.
        """
        served = cast("HybridSearch", value)
        self._vector.kind.inspect(served.by_vector)
        self._text.kind.inspect(served.by_text)

    def _opened(
        self, files: Files, open_: Callable[[Part], Any], *, rerank_seconds: float | None
    ) -> HybridSearch:
        rerank = self._rerank()
        weights: Mapping[str, float] | None = None
        if self.parameters.weights is not None:
            weights = {name: self.parameters.weights.get(name, 1.0) for name in ARMS}
        elif WEIGHTS in files:
            weights = LearnedWeights.load(files[WEIGHTS]).weights
        with ExitStack() as stack:
            vector = open_(self._vector)
            stack.callback(vector.close)
            text = open_(self._text)
            stack.pop_all()
        return HybridSearch(
            by_vector=vector,
            by_text=text,
            fields=self.parameters.filterable,
            rerank=rerank,
            rerank_hits=self.parameters.rerank_hits,
            rerank_seconds=rerank_seconds,
            weights=weights,
        )

    def _rerank(self) -> Callable[..., Any] | None:
        name = self.parameters.rerank
        return None if name is None else function_of(name, RerankFunctionError)


def _answer(search: HybridSearch, query: GoldenQuery, k: int) -> Iterator[str]:
    """The ids of the best entries for one golden query."""
    if query.id is not None:
        hits = search.search_by_id(query.id, k=k)
    else:
        hits = search.search(query.vector, query.text, k=k)
    return (hit.id for hit in hits)
