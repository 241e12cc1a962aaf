"""The entries of a version and the changes since it: what a vector index and a text index share.

A version is asked for more hits than are wanted, so that enough is left when those are dropped that
live rows replace or delete; what live rows fit is found beside it, and both are merged by score.
"""

from abc import abstractmethod
from bisect import bisect_right
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from functools import cached_property
from heapq import merge
from pathlib import Path
from typing import Any, Final

from indexrelay.components.arrangement import Arrangement
from indexrelay.components.errors import UnknownEntryError
from indexrelay.components.live.rows import LiveView, Mask, Rows
from indexrelay.components.query import (
    MAX_PAGE,
    Entry,
    Explanation,
    FilterObject,
    Hits,
    Layer,
    Page,
    QueryOptions,
    Stopwatch,
    checked_after,
    checked_ids,
    checked_limit,
)
from indexrelay.components.served import (
    Hit,
    check_bytes_of_hits,
    check_payload_bytes,
    check_payload_values,
    parsed_payload,
    stored_hits,
)
from indexrelay.schemas.filters import Fields, parse_filter
from indexrelay.storage.entries import Vectors

LIVE: Final = "live"
"""The layer of changes, beside those of a version."""
CATALOG: Final = Path("the catalog")
"""Where the payloads of live rows come from, for an error."""
SPARE: Final = 8
"""More hits of the version than are wanted, at first; most changes are far from a query."""
STEP: Final = 4
"""By how much more it is asked for where that was too few."""


class LiveEntries:
    """A version and the changes since it; immutable, and safe to use from many threads."""

    with_texts = False
    """Whether its entries are given with their texts."""

    def __init__(self, index: Any, covers: int, view: LiveView) -> None:
        """Lay ``view`` over ``index``, which contains its collection up to ``covers``.

        ``view`` holds every change since then, up to its generation.
        """
        self._index = index
        self._covers = covers
        self.view = view

    @cached_property
    def _current(self) -> Rows:
        """The newest row of each entry that changed since the version."""
        return self.view.current(self._covers)

    @cached_property
    def _alive(self) -> Rows:
        """Those of them that are entries."""
        return self._current[self.view.rows.present[self._current]]

    @property
    def fields(self) -> Fields:
        """The fields that can be filtered by, and the type of each."""
        fields: Fields = self._index.fields
        return fields

    @property
    def generation(self) -> int:
        """The newest generation in its answers."""
        return max(self.view.generation, self._covers)

    @property
    def entries(self) -> int:
        """How many entries are live rows."""
        return len(self._alive)

    @property
    def changed(self) -> int:
        """How many entries were written or deleted since the version."""
        return len(self._current)

    def __len__(self) -> int:
        """How many entries it holds."""
        return len(self._index) - self._replaced(None) + len(self._alive)

    def __bool__(self) -> bool:
        """True, even without entries; ``len`` is their number."""
        return True

    def __contains__(self, entry_id: object) -> bool:
        row = self.find(entry_id) if isinstance(entry_id, str) else None
        return entry_id in self._index if row is None else bool(self.view.rows.present[row])

    def close(self) -> None:
        """Nothing: the version is closed by its last user."""

    def count(self, filter: Any = None) -> int:  # noqa: A002 - as every search calls it
        """How many entries match; as that of a version."""
        kept = int(self._index.count(filter)) - self._replaced(filter)
        return kept + len(self.among(filter))

    def get(
        self,
        ids: Collection[str],
        *,
        filter: Any = None,  # noqa: A002 - as every search calls it
        max_payload_bytes: int | None = None,
    ) -> list[Entry | None]:
        """The entries with these ids; as that of a version."""
        wanted, among = checked_ids(ids), set(self.among(filter).tolist())
        rows = [self.find(each) for each in wanted]
        live = [row for row in rows if row is not None and row in among]
        size = self._payload_bytes(live)
        check_payload_bytes(size, max_payload_bytes)
        texts = (self.view.rows.payloads[row] for row in live)
        check_payload_values((text.decode() for text in texts if text is not None), size)
        unchanged = [each for each, row in zip(wanted, rows, strict=True) if row is None]
        left = None if max_payload_bytes is None else max_payload_bytes - size
        released = iter(self._index.get(unchanged, filter=filter, max_payload_bytes=left))
        return [
            next(released) if row is None else self.entry(row) if row in among else None
            for row in rows
        ]

    def scroll(
        self,
        filter: Any = None,  # noqa: A002 - as every search calls it
        *,
        after: str | None = None,
        limit: int = 100,
        max_payload_bytes: int | None = None,
    ) -> Page:
        """The next entries; as that of a version, payloads of changed ones limited on their own."""
        limit, behind, among = checked_limit(limit), checked_after(after), self.among(filter)
        ordered, matching = self.ordered, set(among.tolist())
        first = 0 if behind is None else bisect_right(ordered, behind, key=lambda each: each[0])
        live = [row for _, _, row in ordered[first:] if row in matching][: limit + 1]
        kept: list[Entry] = []
        more = True
        while more and len(kept) <= limit:
            page = self._index.scroll(
                filter,
                after=after,
                limit=min(limit + 1, MAX_PAGE),
                max_payload_bytes=max_payload_bytes,
            )
            kept += [each for each in page.entries if self.find(each.id) is None]
            after, more = page.after, page.after is not None
        names = self.view.rows.ids
        both: list[tuple[bytes, Entry | None, int]] = [
            *((each.id.encode(), each, -1) for each in kept),
            *((names[row].encode(), None, row) for row in live),
        ]
        both.sort(key=lambda each: each[0])
        taken = both[:limit]
        check_payload_bytes(
            self._payload_bytes([row for _, _, row in taken if row >= 0]), max_payload_bytes
        )
        entries = [entry or self.entry(row) for _, entry, row in taken]
        return Page(entries, entries[-1].id if len(both) > limit else None)

    def payload(self, entry_id: str) -> Any:
        """The parsed payload of one entry, or ``None``.

        Raises:
            UnknownEntryError: it is not in here.
        """
        row = self.live_row(entry_id)
        return self._index.payload(entry_id) if row is None else self.entry(row).payload

    def among(self, filter_: Any) -> Rows:
        """The live rows that are entries and that a filter matches.

        Raises:
            InvalidFilterError: the filter cannot be answered.
        """
        matching = self._matching(filter_)
        return self._alive if matching is None else self._alive[matching[self._alive]]

    def find(self, entry_id: str) -> int | None:
        """The row that replaces or deletes an entry of the version; ``None``: none does."""
        return self.view.find(entry_id, self._covers)

    def live_row(self, entry_id: str) -> int | None:
        """`find`; raises `UnknownEntryError` where the entry was deleted."""
        row = self.find(entry_id)
        if row is not None and not self.view.rows.present[row]:
            raise UnknownEntryError(entry_id)
        return row

    def entry(self, row: int) -> Entry:
        """The entry of a live row."""
        rows = self.view.rows
        payload = rows.payloads[row]
        parsed = None if payload is None else parsed_payload(payload, CATALOG)
        return Entry(rows.ids[row], parsed, rows.texts[row] if self.with_texts else None)

    def hits_of(self, found: Sequence[tuple[float, int]]) -> list[Hit]:
        """The hits of live rows, each given with its score, in the same order."""
        rows = self.view.rows
        return stored_hits(
            [rows.ids[row] for _, row in found],
            [score for score, _ in found],
            [rows.payloads[row] for _, row in found],
            [CATALOG] * len(found),
        )

    @cached_property
    def ordered(self) -> list[tuple[bytes, str, int]]:
        """The UTF-8 bytes, the id and the row of each changed entry that is there, in order."""
        names = self.view.rows.ids
        return sorted((names[row].encode(), names[row], row) for row in self._alive.tolist())

    @cached_property
    def _changed_ids(self) -> list[str]:
        names = self.view.rows.ids
        return [names[row] for row in self._current.tolist()]

    @property
    def searched_by(self) -> str:
        """How live rows are found, for an explanation."""
        return "scan"

    @abstractmethod
    def _replaced(self, filter_: Any) -> int:
        """How many entries of the version that a filter matches were written or deleted since."""

    def _matching(self, filter_: Any) -> Mask | None:
        """Which rows of the view a filter matches; ``None``: it asks for nothing."""
        asked = None if filter_ is None else parse_filter(filter_, self.fields)
        if asked is None or asked.everything:
            return None
        return self.view.rows.matching(asked, self.fields, self.view.count)

    def _payload_bytes(self, rows: Sequence[int]) -> int:
        return sum(len(self.view.rows.payloads[row] or b"") for row in rows)


Find = Callable[[QueryOptions], Hits]
"""The hits of the version."""
FindLive = Callable[[int, Rows, float | None], Sequence[Hit]]
"""So many hits among live rows, the best first, that are better than a score; ``None``: any."""


class LiveQuestion:
    """One question to a version and its changes."""

    def __init__(
        self,
        over: LiveEntries,
        of_version: Find,
        of_rows: FindLive,
        *,
        smaller_first: bool = False,
        own: str | None = None,
    ) -> None:
        """Take what is common to all rounds.

        Args:
            over: what is asked.
            of_version: asks the version.
            of_rows: asks the live rows.
            smaller_first: whether a lower score is better.
            own: an entry that is not to be found, since it is asked about.
        """
        self._over = over
        self._of_version = of_version
        self._of_rows = of_rows
        self._smaller_first = smaller_first
        self._own = own
        self._hidden = over.changed + (own is not None)

    def answer(
        self,
        options: QueryOptions,
        vectors: Callable[[Sequence[Hit]], Vectors] | None = None,
    ) -> Hits:
        """The hits; ``vectors`` are those of hits, ``None`` where there are none."""
        arrangement = Arrangement.of(options, self._over.fields)
        if arrangement is None:
            return self._nearest(options)
        return arrangement.search(
            lambda number, beyond: self._nearest(options.candidates(number, beyond)),
            k=options.k,
            entries=len(self._over),
            vectors=vectors,
            max_payload_bytes=options.max_payload_bytes,
        )

    def first_depth(self, k: int) -> int:
        """How many hits of the version are asked for at first, where ``k`` are wanted."""
        return k + min(self._hidden, SPARE)

    def merged(self, options: QueryOptions, found: Hits, depth: int) -> Hits:
        """Both together, where the version gave ``found`` to ``depth``; more is asked as needed."""
        over = self._over
        k, kept = options.k, self._kept(found)
        while len(kept) < k and len(found) >= depth and depth < k + self._hidden:
            depth = min(k + self._hidden, STEP * depth)
            found = self._of_version(options.candidates(depth))
            kept = self._kept(found)
        watch = Stopwatch()
        among = over.among(options.filter)
        gone = {*options.without, *(() if self._own is None else (self._own,))}
        # Most rows are farther than what the version found: of them no hit is made.
        worst = kept[k - 1].score if len(kept) >= k else None
        live = self._of_rows(k + len(gone), among, worst)
        both = [*kept, *(hit for hit in live if hit.id not in gone)]
        if len(both) > len(kept):
            both.sort(key=lambda hit: hit.score, reverse=not self._smaller_first)
        hits = Hits(both[:k])
        check_bytes_of_hits(hits, options.max_payload_bytes)
        watch.stage(LIVE)
        if found.explanation is not None:
            left_out = {over.find(each) for each in gone}
            compared = len(among) - len(left_out.intersection(among.tolist()))
            hits.explanation = self._explained(found.explanation, watch, compared, options.filter)
        return hits

    def _nearest(self, options: QueryOptions) -> Hits:
        """The best of both, the best first."""
        depth = self.first_depth(options.k)
        return self.merged(options, self._of_version(options.candidates(depth)), depth)

    def _kept(self, found: Sequence[Hit]) -> list[Hit]:
        find, own, changed = self._over.find, self._own, self._over.view.rows.changed
        return [
            hit
            for hit in found
            if hit.id != own and (hit.id not in changed or find(hit.id) is None)
        ]

    def _explained(
        self, found: Explanation, watch: Stopwatch, compared: int, filter_: FilterObject | None
    ) -> Explanation:
        """How the version was searched, and the live rows besides."""
        over, candidates = self._over, found.candidates
        return replace(
            found,
            layers=(*found.layers, Layer(LIVE, over.entries, over.searched_by)),
            matches=None if found.matches is None else over.count(filter_),
            candidates=None if candidates is None else candidates + compared,
            stages=(*found.stages, *watch.stages),
        )


def merged_ids(index_ids: Sequence[str], over: LiveEntries) -> list[str]:
    """Every id of both, in the order of the ids' UTF-8 bytes."""
    kept = (each for each in index_ids if over.find(each) is None)
    return list(merge(kept, (each for _, each, _ in over.ordered), key=str.encode))
