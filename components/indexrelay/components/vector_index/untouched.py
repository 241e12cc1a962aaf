"""Whether a version that continues another has what the batch brought, and still all the rest."""

from functools import cached_property

import numpy as np

from indexrelay.components.inputs import changes_of
from indexrelay.components.judging import Verdict, equal
from indexrelay.components.row_sets import without
from indexrelay.components.runs import runs
from indexrelay.components.string_table import Rows
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
        if len(without(was, is_now)):
            return Verdict(False, "an entry of the base that was gone is back")
        newly = without(is_now, was)
        if not self._touched.issuperset(self._new.base.ids.many(newly)):
            return Verdict(False, "an entry of the base is gone that did not change")
        touched_there = self._last.ids.delta_rows(self._touched)
        last = without(self._last.ids.layers.delta_rows, touched_there)
        new = without(self._new.ids.layers.delta_rows, self._brought)
        if len(last) != len(new):
            return Verdict(False, "the delta lost an entry that did not change, or made one up")
        places_were, places_are = self._last.ids.layers.places, self._new.ids.layers.places
        if not np.array_equal(places_were[last], places_are[new]):
            return Verdict(False, "an entry of the delta stands elsewhere that did not change")
        changed = sum(
            not self._same(int(last[start]), int(new[start]), stop - start)
            for start, stop in runs(last, new)
        )
        return equal(changed, 0, "rows of the delta changed that the batch did not touch")

    def brought_in_order(self) -> Verdict:
        """What the batch brought stands where the order of the ids has it; the rest did before."""
        wrong = self._new.ids.out_of_order(rows=self._brought)
        return equal(wrong, 0, "delta ids stand elsewhere")

    @cached_property
    def _brought(self) -> Rows:
        """The new delta's rows that the batch touched."""
        return self._new.ids.delta_rows(self._touched)

    def _same(self, last: int, new: int, count: int) -> bool:
        """Whether so many delta rows are what they were: id, vector and payload."""
        was, is_now = self._last.delta, self._new.delta
        ids_were, ids_are = self._last.ids.delta, self._new.ids.delta
        if was is None or is_now is None or ids_were is None or ids_are is None:
            return not count
        return (
            ids_are.same(new, ids_were, last, count=count)
            and np.array_equal(is_now.vectors[new : new + count], was.vectors[last : last + count])
            and is_now.payloads.same(new, was.payloads, last, count=count)
        )
