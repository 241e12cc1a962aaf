"""The plan of the demo's batches: what comes, what changes and what goes in each of them.

A document first comes in with its summary alone; a later batch changes some of the earlier ones to
their full text, as a job does that looks again, and takes others away. The plan is drawn with a
fixed seed, so that two runs over the same corpus do the same.
"""

import dataclasses
import random
from collections.abc import Sequence
from dataclasses import dataclass

from indexrelay.console.demo.corpus import Document
from indexrelay.console.errors import CorpusError

_SEED = 20
_CHANGED = 0.10
"""Share of a batch's size that changes entries of earlier batches."""
_DELETED = 0.05
"""Share of a batch's size that deletes entries of earlier batches."""
_DOCUMENTS_PER_BATCH = 4
"""With fewer the shares above would round to nothing."""


@dataclass(frozen=True, kw_only=True)
class PlannedBatch:
    """One batch of the job."""

    batch_id: str
    upserts: tuple[Document, ...]
    """New ones with their summary, changed ones with their full text."""
    changed: int
    """How many of the upserts replace an earlier entry."""
    deletes: tuple[str, ...]

    @property
    def size(self) -> int:
        """How many changes it makes."""
        return len(self.upserts) + len(self.deletes)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All batches, and what must be there after the last one."""

    batches: tuple[PlannedBatch, ...]
    live: frozenset[str]
    """Ids of the entries that remain."""


def plan(documents: Sequence[Document], *, batches: int) -> Plan:
    """Spread ``documents`` over ``batches``; every batch but the first also changes and deletes.

    Raises:
        CorpusError: there are too few documents for that many batches.
    """
    if len(documents) < batches * _DOCUMENTS_PER_BATCH:
        raise CorpusError(
            f"{len(documents)} documents are too few for {batches} batches; "
            f"it takes at least {batches * _DOCUMENTS_PER_BATCH}"
        )
    draw = random.Random(_SEED)  # noqa: S311 - a plan that can be repeated, not a secret
    shuffled = draw.sample(documents, len(documents))
    summarised: dict[str, Document] = {}
    live: set[str] = set()
    planned = []
    for number in range(batches):
        new = shuffled[number * len(shuffled) // batches : (number + 1) * len(shuffled) // batches]
        changed = _take(draw, summarised, share=_CHANGED, size=len(new))
        deleted = _take(draw, summarised, share=_DELETED, size=len(new))
        live -= {document.id for document in deleted}
        live |= {document.id for document in new}
        summarised |= {document.id: document for document in new}
        planned.append(
            PlannedBatch(
                batch_id=f"demo-{number + 1}",
                upserts=(*(_summarised(document) for document in new), *changed),
                changed=len(changed),
                deletes=tuple(document.id for document in deleted),
            )
        )
    return Plan(batches=tuple(planned), live=frozenset(live))


def _take(
    draw: random.Random, pool: dict[str, Document], *, share: float, size: int
) -> list[Document]:
    """Draw earlier documents, and take them out of the pool: each is touched once more at most."""
    count = min(len(pool), max(1, round(share * size)))
    taken = draw.sample(sorted(pool), count)
    return [pool.pop(name) for name in taken]


def _summarised(document: Document) -> Document:
    return dataclasses.replace(document, text=document.summary)
