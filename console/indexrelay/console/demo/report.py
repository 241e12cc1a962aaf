"""What the demo found: one JSON document, and whether it is as it should be."""

from collections.abc import Mapping, Sequence
from statistics import median

from pydantic import BaseModel, ConfigDict

from indexrelay.schemas.names import Name
from indexrelay.schemas.results import BuildOutcome, LoadOutcome, RebuildResult, RebuildStatus
from indexrelay.schemas.versions import Generation


class _Fact(BaseModel):
    model_config = ConfigDict(frozen=True)


class CorpusFacts(_Fact):
    """What the job found and dropped."""

    origin: str
    found: int
    empty: int
    repeated: int
    unreadable: int
    entries: int


class CollectionReport(_Fact):
    """Where the collection stands."""

    generation: Generation
    entries: int
    expected: int
    """What the plan of batches leaves."""


class ComponentReport(_Fact):
    """The last build of one component, and what is released."""

    outcome: BuildOutcome
    covers: dict[Name, Generation]
    entries: int


class ServedReport(_Fact):
    """One component in one reader."""

    outcome: LoadOutcome
    covers: dict[Name, Generation]


class ReaderReport(_Fact):
    """One reader process."""

    release: int
    ready: bool
    components: dict[Name, ServedReport]


class Answer(_Fact):
    """One reader's answer to one question, the best first."""

    text: str
    reader: str
    top: tuple[str, ...]
    """Ids found by the question's vector."""
    top_by_text: tuple[str, ...]
    """Ids found by the question's words."""
    scores: tuple[float, ...]
    """Of ``top``, then of ``top_by_text``."""


class BatchReport(_Fact):
    """One batch's way."""

    batch_id: str
    generation: Generation
    upserts: int
    deletes: int
    status: RebuildStatus
    event_to_served_seconds: float
    own_share_seconds: float
    release: int


class SpreadReport(_Fact):
    """The middle and the worst of some durations, in seconds."""

    p50: float
    max: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> "SpreadReport":
        """Of at least one duration."""
        return cls(p50=median(seconds), max=max(seconds))


class ResultReport(_Fact):
    """One rebuild, as operators read it."""

    status: RebuildStatus
    message: str
    indexes_rebuilt: tuple[Name, ...]
    indexes_failed: tuple[Name, ...]

    @classmethod
    def of(cls, result: RebuildResult) -> "ResultReport":
        """The four names that operators know."""
        return cls(
            status=result.status,
            message=result.message,
            indexes_rebuilt=result.indexes_rebuilt,
            indexes_failed=result.indexes_failed,
        )


class DemoReport(_Fact):
    """Everything."""

    converged: bool
    """Every reader serves every component at the newest generation, and nothing else."""
    agree: bool
    """Every reader gave the same answers."""
    release: int
    corpus: CorpusFacts
    collections: dict[Name, CollectionReport]
    components: dict[Name, ComponentReport]
    readers: dict[str, ReaderReport]
    queries: tuple[Answer, ...]
    batches: tuple[BatchReport, ...]
    event_to_served_seconds: SpreadReport
    own_share_seconds: SpreadReport
    results: tuple[ResultReport, ...]
    seconds: float


def has_converged(
    *,
    release: int,
    collections: Mapping[str, CollectionReport],
    components: Mapping[str, ComponentReport],
    readers: Mapping[str, ReaderReport],
    expected_readers: int,
) -> bool:
    """Whether everything that should serve serves the newest of everything."""
    newest = {name: collection.generation for name, collection in collections.items()}
    return (
        len(readers) == expected_readers
        and all(each.entries == each.expected for each in collections.values())
        and all(each.covers == newest for each in components.values())
        and all(
            reader.ready
            and reader.release == release
            and reader.components.keys() == components.keys()
            and all(
                served.covers == newest and served.outcome is not LoadOutcome.FAILED
                for served in reader.components.values()
            )
            for reader in readers.values()
        )
    )


def readers_agree(answers: Sequence[Answer]) -> bool:
    """Whether each question has one answer, whichever reader was asked, and there are answers.

    Readers map the same files, so ids and scores must be the very same, not merely close. A corpus
    of one's own may have no words for some of the questions; not for all of them.
    """
    by_question: dict[str, set[tuple[tuple[str, ...], tuple[str, ...], tuple[float, ...]]]] = {}
    for answer in answers:
        key = (answer.top, answer.top_by_text, answer.scores)
        by_question.setdefault(answer.text, set()).add(key)
    answered = any(answer.top or answer.top_by_text for answer in answers)
    return answered and all(len(different) == 1 for different in by_question.values())
