"""The demo's questions, its report as one JSON document, its verdict, and its page for a person.

Every reader is asked the same questions over HTTP: by vector, by words, and by both. All is well
when every reader serves the newest of everything, and their answers are the same to the last digit.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any, Final

from pydantic import BaseModel, ConfigDict
from rich.console import Group, RenderableType
from rich.text import Text

from indexrelay.console.commands.readers import asking
from indexrelay.console.commands.status import covered
from indexrelay.console.demo.corpus import Corpus
from indexrelay.console.demo.embedding import Embedding
from indexrelay.console.demo.settings import COLLECTION, SEARCH, TEXT_INDEX, VECTOR_INDEX
from indexrelay.console.errors import CommandError
from indexrelay.console.installation import Installation, signals_of
from indexrelay.console.sheet import Sheet, flowing, number, whole
from indexrelay.schemas.messages import BuildOutcome, LoadOutcome, RebuildResult, RebuildStatus
from indexrelay.schemas.names import Name
from indexrelay.schemas.versions import Generation

if TYPE_CHECKING:
    from indexrelay.service.client import Client, FoundHit, Query

QUESTIONS: Final = (
    "read a csv file row by row",
    "split a path into folder and name",
    "parse a date and time from a string",
    "run a command and capture its output",
    "compress bytes with gzip",
    "wait until a thread has finished",
)
NARROWED: Final = ("something that counts how often things occur", {"kind": "class"})
"""A question, and what its answers must match; the texts of a folder have other kinds."""
_ANSWERS: Final = 5
_SHOWN_ANSWERS: Final = 3
OWN_SHARE_TARGET_SECONDS: Final = 0.150
"""What the pipeline may add to a batch of a thousand, at the median."""


class _Fact(BaseModel):
    model_config = ConfigDict(frozen=True)


class CorpusFacts(_Fact):
    """What was found in the corpus, and what of it was dropped."""

    origin: str
    found: int
    empty: int
    repeated: int
    unreadable: int
    entries: int


class CollectionReport(_Fact):
    """The collection at the end."""

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


class BothHit(_Fact):
    """An entry that was found by vector and words together."""

    id: str
    by_vector: int | None
    """Its rank by vector alone; ``None``: it is not among the first."""
    by_text: int | None
    """Its rank by words alone."""


class NarrowedAnswer(_Fact):
    """One reader's answer to a question under a filter, and how it was found."""

    text: str
    reader: str
    filter: dict[str, Any]
    top: tuple[str, ...]
    explanation: dict[str, Any]
    """As the reader gives it: plan, layers, matches, stages with their seconds."""


class Answer(_Fact):
    """One reader's answer to one question, the best first."""

    text: str
    reader: str
    top: tuple[str, ...]
    """Ids found by the question's vector."""
    top_by_text: tuple[str, ...]
    """Ids found by the question's words."""
    top_by_both: tuple[BothHit, ...] = ()
    """What the fusion of the two rankings puts first."""
    scores: tuple[float, ...]
    """Of ``top``, then of ``top_by_text``, then of ``top_by_both``."""


class BatchReport(_Fact):
    """One batch from its commit until it is served."""

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
    narrowed: tuple[NarrowedAnswer, ...] = ()
    """The first question again, under a filter."""
    batches: tuple[BatchReport, ...]
    event_to_served_seconds: SpreadReport
    own_share_seconds: SpreadReport
    results: tuple[ResultReport, ...]
    seconds: float


def ask_all(
    installation: Installation, embedding: Embedding
) -> tuple[tuple[Answer, ...], tuple[NarrowedAnswer, ...]]:
    """Each reader's answer to each question that the corpus has words for, and to one narrowed.

    Raises:
        CommandError: a reader has no service, does not answer, or refuses.
    """
    vectors, known = embedding(QUESTIONS)
    answers, narrowed = [], []
    for state in signals_of(installation).readers.values():
        name = state.reader
        if state.address is None:
            raise CommandError(f"reader {name!r} reports no address, so it cannot be asked")
        with asking(name, state.address) as client:
            for text, vector, has_vector in zip(QUESTIONS, vectors, known, strict=True):
                by_vector = (
                    client.search(VECTOR_INDEX, vector=vector, k=_ANSWERS).hits
                    if has_vector
                    else ()
                )
                by_text = client.search(TEXT_INDEX, text=text, k=_ANSWERS).hits
                both: Query = {"text": text, "k": _ANSWERS}
                if has_vector:
                    both["vector"] = vector
                by_both = client.search(SEARCH, **both).hits
                answers.append(
                    Answer(
                        text=text,
                        reader=name,
                        top=tuple(hit.id for hit in by_vector),
                        top_by_text=tuple(hit.id for hit in by_text),
                        top_by_both=tuple(_both_hit(hit) for hit in by_both),
                        scores=tuple(hit.score for hit in (*by_vector, *by_text, *by_both)),
                    )
                )
            narrowed.append(_narrowed(name, client, embedding))
    return tuple(answers), tuple(narrowed)


def _narrowed(reader: str, client: "Client", embedding: Embedding) -> NarrowedAnswer:
    text, asked = NARROWED
    (vector,), _ = embedding([text])
    answer = client.search(SEARCH, vector=vector, text=text, filter=asked, k=_ANSWERS, explain=True)
    return NarrowedAnswer(
        text=text,
        reader=reader,
        filter=dict(asked),
        top=tuple(hit.id for hit in answer.hits),
        explanation=dict(answer.explanation or {}),
    )


def _both_hit(hit: "FoundHit") -> BothHit:
    ranks = {arm: found.rank for arm, found in (hit.arms or {}).items()}
    return BothHit(id=hit.id, by_vector=ranks.get("vector"), by_text=ranks.get("text"))


@dataclass(frozen=True, kw_only=True)
class Observed:
    """What the demo measured while it ran."""

    corpus: Corpus
    live: Collection[str]
    """Ids of the entries that the batches should have left."""
    batches: Sequence[BatchReport]
    results: Sequence[RebuildResult]
    answers: Sequence[Answer]
    narrowed: Sequence[NarrowedAnswer]
    readers: int
    """How many were started."""
    seconds: float


def summarise(observed: Observed, installation: Installation) -> DemoReport:
    """Read what is released and served now, and judge it.

    Raises:
        CommandError: nothing was released.
        IndexRelayError: the catalog or the artifacts cannot be read.
    """
    release = installation.store.newest_release()
    if release is None:
        raise CommandError("the demo ended without any release; its logs say why (--data)")
    collection = installation.catalog.collections.get(COLLECTION)
    collections = {
        COLLECTION: CollectionReport(
            generation=collection.generation,
            entries=collection.count,
            expected=len(observed.live),
        )
    }
    outcomes: dict[str, BuildOutcome] = {}
    for result in observed.results:
        outcomes |= {name: each.outcome for name, each in result.components.items()}
    components = {}
    for name in installation.settings.components:
        if name in release.components:
            manifest = installation.store.version(name, release.components[name])
            components[name] = ComponentReport(
                outcome=outcomes.get(name, BuildOutcome.REBUILT),
                covers=manifest.covers,
                entries=manifest.entries,
            )
        else:
            components[name] = ComponentReport(
                outcome=outcomes.get(name, BuildOutcome.FAILED), covers={}, entries=0
            )
    readers = {
        state.reader: ReaderReport(
            release=state.release,
            ready=state.ready,
            components={
                component: ServedReport(outcome=served.outcome, covers=served.covers)
                for component, served in state.components.items()
            },
        )
        for state in signals_of(installation).readers.values()
    }
    return DemoReport(
        converged=has_converged(
            release=release.number,
            collections=collections,
            components=components,
            readers=readers,
            expected_readers=observed.readers,
        ),
        agree=readers_agree(observed.answers)
        and len({answer.top for answer in observed.narrowed}) == 1,
        release=release.number,
        corpus=CorpusFacts(
            origin=observed.corpus.origin,
            found=observed.corpus.found,
            empty=observed.corpus.empty,
            repeated=observed.corpus.repeated,
            unreadable=observed.corpus.unreadable,
            entries=len(observed.corpus.documents),
        ),
        collections=collections,
        components=components,
        readers=readers,
        queries=tuple(observed.answers),
        narrowed=tuple(observed.narrowed),
        batches=tuple(observed.batches),
        event_to_served_seconds=SpreadReport.of(
            [b.event_to_served_seconds for b in observed.batches]
        ),
        own_share_seconds=SpreadReport.of([b.own_share_seconds for b in observed.batches]),
        results=tuple(ResultReport.of(result) for result in observed.results),
        seconds=observed.seconds,
    )


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

    Readers map the same files, so ids and scores must be the very same, not merely close. A user's
    own corpus may have no words for some of the questions; not for all of them.
    """
    by_question: dict[str, set[Answer]] = {}
    for answer in answers:
        of_any_reader = answer.model_copy(update={"reader": ""})
        by_question.setdefault(answer.text, set()).add(of_any_reader)
    answered = any(answer.top or answer.top_by_text for answer in answers)
    return answered and all(len(different) == 1 for different in by_question.values())


def report_page(report: DemoReport) -> RenderableType:
    """Batches, components, readers, answers, figures, verdict."""
    return Group(
        _batches(report),
        _components(report),
        _readers(report),
        _answers(report),
        *(_narrowed_answer(answer) for answer in report.narrowed[:1] if answer.top),
        _verdict(report),
    )


def _batches(report: DemoReport) -> Sheet:
    sheet = Sheet(
        "Batches",
        whole("batch"),
        number("upserts"),
        number("deletes"),
        whole("rebuild"),
        number("served after"),
        number("own share"),
    )
    for batch in report.batches:
        sheet.add(
            batch.batch_id,
            f"{batch.upserts:,}",
            f"{batch.deletes:,}",
            Text(
                batch.status, style="green" if batch.status is RebuildStatus.SUCCESS else "yellow"
            ),
            f"{batch.event_to_served_seconds:.2f} s",
            f"{batch.own_share_seconds * 1000:.0f} ms",
        )
    return sheet


def _components(report: DemoReport) -> Sheet:
    sheet = Sheet(
        "Components", flowing("component"), whole("outcome"), flowing("covers"), number("entries")
    )
    for name, component in report.components.items():
        good = component.outcome is BuildOutcome.REBUILT
        sheet.add(
            name,
            Text(f"{'✓' if good else '✗'} {component.outcome}", style="green" if good else "red"),
            covered(component.covers),
            f"{component.entries:,}",
        )
    return sheet


def _readers(report: DemoReport) -> Sheet:
    sheet = Sheet(
        "Readers (generation served)",
        whole("reader"),
        number("release"),
        *(whole(component) for component in report.components),
    )
    for name, reader in report.readers.items():
        cells = []
        for component in report.components:
            served = reader.components.get(component)
            if served is None:
                cells.append("-")
                continue
            mark = "✗" if served.outcome is LoadOutcome.FAILED else "✓"
            cells.append(f"{mark} {max(served.covers.values(), default=0)}")
        sheet.add(name, str(reader.release), *cells)
    return sheet


def _answers(report: DemoReport) -> Sheet:
    same = f"Answers, the same from {len(report.readers)} reader(s)"
    sheet = Sheet(
        same if report.agree else "Answers of the first reader; others differ",
        flowing("question"),
        flowing("by vector"),
        flowing("by words"),
        flowing("by both (rank by vector, by words)"),
    )
    first = next(iter(report.readers), None)
    for answer in report.queries:
        if answer.reader == first:
            sheet.add(
                answer.text,
                "\n".join(answer.top[:_SHOWN_ANSWERS]),
                "\n".join(answer.top_by_text[:_SHOWN_ANSWERS]),
                "\n".join(map(_ranked, answer.top_by_both[:_SHOWN_ANSWERS])),
                end_section=True,
            )
    return sheet


def _narrowed_answer(answer: NarrowedAnswer) -> Text:
    """The answer under a filter, and what each half of the search did for it."""
    asked = ", ".join(f"{field} = {value}" for field, value in answer.filter.items())
    text = Text.assemble(("Narrowed ", "bold"), f"to {asked}: {answer.text!r}\n")
    text.append("".join(f"  {entry_id}\n" for entry_id in answer.top[:_SHOWN_ANSWERS]))
    for name, arm in answer.explanation.get("arms", {}).items():
        searched = ", ".join(
            f"{layer['name']} ({layer['entries']:,}, {layer['how']})" for layer in arm["layers"]
        )
        matches = f"{arm['matches']:,} matches" if "matches" in arm else "everything"
        text.append(
            f"  by {name}: {searched}; {arm['plan']}, {matches}; {1000 * arm['seconds']:.1f} ms\n",
            style="dim",
        )
    return text


def _ranked(hit: BothHit) -> str:
    ranks = ", ".join("-" if rank is None else str(rank) for rank in (hit.by_vector, hit.by_text))
    return f"{hit.id} ({ranks})"


def _verdict(report: DemoReport) -> Text:
    served, own = report.event_to_served_seconds, report.own_share_seconds
    within = own.p50 < OWN_SHARE_TARGET_SECONDS
    text = Text(
        f"event to served: {served.p50:.2f} s at the median, {served.max:.2f} s at most\n"
        f"the pipeline's own share (neither quiet wait nor build nor verification): "
        f"{own.p50 * 1000:.0f} ms at the median, {own.max * 1000:.0f} ms at most "
        f"({'within' if within else 'beyond'} {OWN_SHARE_TARGET_SECONDS * 1000:.0f} ms)\n"
        f"whole demo: {report.seconds:.0f} s\n"
    )
    for good, yes, no in (
        (
            report.converged,
            f"every reader serves every component at release {report.release}",
            "readers do not all serve the newest of everything",
        ),
        (report.agree, "all readers give the same answers", "readers give different answers"),
    ):
        text.append(f"✓ {yes}\n" if good else f"✗ {no}\n", style="green" if good else "red")
    text.rstrip()
    return text
