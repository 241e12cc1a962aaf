"""Whether a version that continues another has what the batch brought, and still all the rest."""

from functools import cached_property

import numpy as np

from indexrelay.components.inputs import changes_of
from indexrelay.components.judging import Verdict, equal
from indexrelay.components.vector_index.contents import Contents
from indexrelay.components.vector_index.metrics import prepared
from indexrelay.storage.entries import SourceSnapshot, Vectors


def held_against_source(
    new: Contents, source: SourceSnapshot, *, after: int
) -> tuple[Verdict, set[str]]:
    """Whether all that changed after generation ``after`` is in ``new`` as the source has it.

    With the ids that it touched: upserts and deletes, as far as the source was read.
    """
    touched: set[str] = set()
    wrong: list[str] = []
    for chunk in changes_of(source, after):
        upserts = chunk.upserts
        touched.update(upserts.ids, chunk.deletes)
        vectors = prepared(upserts.vectors, new.facts.metric)
        if not np.isfinite(vectors).all():
            return Verdict(False, "the source holds NaN or ±inf"), touched
        wrong += (
            entry_id
            for entry_id, vector, payload in zip(
                upserts.ids, vectors, upserts.payloads, strict=True
            )
            if not _holds(new, entry_id, vector, payload)
        )
        wrong += (entry_id for entry_id in chunk.deletes if entry_id in new.ids)
    worst = f"{wrong[0]!r} and perhaps others are not as the source has them" if wrong else ""
    return equal(len(wrong), 0, worst), touched


def _holds(new: Contents, entry_id: str, vector: Vectors, payload: str | None) -> bool:
    row = new.find(entry_id)
    return (
        row is not None
        and np.array_equal(new.vector(row), vector)
        and new.payload_texts_of(np.array([row]))[0] == payload
    )


class Untouched:
    """What a batch had nothing to do with: in the new version as it was in the last one.

    Args:
        new: the version that is judged.
        last: the one that it continues.
        touched: the ids that the batch brought, changed or deleted.
    """

    def __init__(self, new: Contents, last: Contents, touched: set[str]) -> None:
        self._new = new
        self._last = last
        self._touched = touched

    def kept(self) -> Verdict:
        """Everything is where it was: in the base, or in the delta with all it had."""
        was, is_now = self._last.ids.layers.tombstones, self._new.ids.layers.tombstones
        if len(np.setdiff1d(was, is_now, assume_unique=True)):
            return Verdict(False, "an entry of the base that was gone is back")
        newly = np.setdiff1d(is_now, was, assume_unique=True)
        if not self._touched.issuperset(self._new.base.ids.many(newly)):
            return Verdict(False, "an entry of the base is gone that did not change")
        last, new = self._delta_rows(self._last), self._in_new
        if list(last) != list(new):
            return Verdict(False, "the delta lost an entry that did not change, or made one up")
        return equal(self._differing(list(last.values()), list(new.values())), 0, "rows changed")

    def brought_in_order(self) -> Verdict:
        """What the batch brought stands where the order of the ids has it; the rest did before."""
        ids = self._new.ids
        old = list(self._in_new.values())
        brought = np.setdiff1d(np.arange(len(ids.layers.places)), old, assume_unique=True)
        return equal(ids.out_of_order(rows=brought), 0, "delta ids stand elsewhere")

    @cached_property
    def _in_new(self) -> dict[str, int]:
        return self._delta_rows(self._new)

    def _delta_rows(self, contents: Contents) -> dict[str, int]:
        """The delta rows that the batch did not touch, by id and in their order."""
        ids = [] if contents.ids.delta is None else list(contents.ids.delta)
        return {entry_id: row for row, entry_id in enumerate(ids) if entry_id not in self._touched}

    def _differing(self, last: list[int], new: list[int]) -> int:
        """How many delta rows are not what they were."""
        if self._last.delta is None or self._new.delta is None or not last:
            return 0
        here, there = np.array(last), np.array(new)
        vectors = (self._last.delta.vectors[here] != self._new.delta.vectors[there]).any(axis=1)
        payloads = zip(
            self._last.delta.payloads.text_many(here),
            self._new.delta.payloads.text_many(there),
            strict=True,
        )
        return int(np.count_nonzero(vectors)) + sum(old != now for old, now in payloads)
