"""Puts the demo's report together from what was observed and from what stands now."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from indexrelay.console.collecting import signals_of
from indexrelay.console.demo.corpus import Corpus
from indexrelay.console.demo.declaring import COLLECTION
from indexrelay.console.demo.report import (
    Answer,
    BatchReport,
    CollectionReport,
    ComponentReport,
    CorpusFacts,
    DemoReport,
    ReaderReport,
    ResultReport,
    ServedReport,
    SpreadReport,
    has_converged,
    readers_agree,
)
from indexrelay.console.errors import CommandError
from indexrelay.console.installation import Installation
from indexrelay.schemas.results import BuildOutcome, RebuildResult


@dataclass(frozen=True, kw_only=True)
class Observed:
    """What the demo saw on its way."""

    corpus: Corpus
    live: Collection[str]
    """Ids of the entries that the batches should have left."""
    batches: Sequence[BatchReport]
    results: Sequence[RebuildResult]
    answers: Sequence[Answer]
    readers: int
    """How many were started."""
    seconds: float


def summarise(observed: Observed, installation: Installation) -> DemoReport:
    """Look at what stands now, and judge it.

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
        agree=readers_agree(observed.answers),
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
        batches=tuple(observed.batches),
        event_to_served_seconds=SpreadReport.of(
            [b.event_to_served_seconds for b in observed.batches]
        ),
        own_share_seconds=SpreadReport.of([b.own_share_seconds for b in observed.batches]),
        results=tuple(ResultReport.of(result) for result in observed.results),
        seconds=observed.seconds,
    )
