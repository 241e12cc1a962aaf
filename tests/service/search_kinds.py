"""Kinds that answer over HTTP as the real ones do, without FAISS."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexrelay.components.errors import InvalidQueryError, UnknownEntryError
from indexrelay.components.json_cache.kind import CachedDocument
from indexrelay.components.kind import Built, Job, Kind, KindParameters
from indexrelay.components.query import Entry, Explanation, Hits, Page
from indexrelay.components.served import Hit
from indexrelay.schemas.versions import Check

MODULE = "tests.service.search_kinds"


class _OnlyLoaded:
    """These kinds are put into the store by hand."""

    def build(self, job: Job) -> Built:
        raise NotImplementedError

    def verify(self, job: Job, built: Built, files: Mapping[str, Path]) -> Iterable[Check]:
        raise NotImplementedError


class ServedPoints:
    """Two-dimensional points with the ids ``a``, ``b``, …"""

    def __init__(self, points: NDArray[np.float32]) -> None:
        self._points = points

    def search(self, vector: NDArray[np.float32], *, k: int) -> list[Hit]:
        if vector.shape != (2,):
            raise InvalidQueryError(f"a vector of length 2, not {len(vector)}")
        distances = np.linalg.norm(self._points - vector, axis=1)
        rows = np.argsort(distances, kind="stable")[:k]
        return [
            Hit(id=chr(97 + row), score=float(distances[row]), payload={"row": int(row)})
            for row in rows
        ]

    def search_by_id(self, entry_id: str, *, k: int) -> list[Hit]:
        row = ord(entry_id[0]) - 97
        if not 0 <= row < len(self._points):
            raise UnknownEntryError(entry_id)
        return [hit for hit in self.search(self._points[row], k=k + 1) if hit.id != entry_id]

    def close(self) -> None:
        """Nothing is open."""


class ServedLines:
    """Lines that are found by a word."""

    def __init__(self, lines: list[str]) -> None:
        self._lines = lines

    def search(self, text: str, *, k: int, max_payload_bytes: int | None = None) -> list[Hit]:
        if text == "limit":
            return [Hit(id="a", score=1.0, payload=max_payload_bytes)]
        if text in ("inf", "-inf", "nan"):  # what overflowed distances are
            return [Hit(id="a", score=1.0, payload=None), Hit(id="b", score=float(text), payload=1)]
        if text == "payload":
            return [Hit(id="a", score=1.0, payload={"deep": [float("nan")]})]
        if text == "half":
            return [Hit(id="a", score=1.0, payload="\ud800")]
        if text == "raise":
            raise RuntimeError("of a kind's own")
        found = [line for line in self._lines if text in line.split()]
        return [Hit(id=line, score=1.0, payload=None) for line in found[:k]]

    def close(self) -> None:
        """Nothing is open."""


class Points(_OnlyLoaded, Kind[KindParameters, ServedPoints]):
    def load(self, files: Mapping[str, Path]) -> ServedPoints:
        rows = [line.split() for line in files["part0"].read_text().splitlines()]
        return ServedPoints(np.array(rows, dtype=np.float32))


class Lines(_OnlyLoaded, Kind[KindParameters, ServedLines]):
    def load(self, files: Mapping[str, Path]) -> ServedLines:
        return ServedLines(files["part0"].read_text().splitlines())


class Document(_OnlyLoaded, Kind[KindParameters, CachedDocument]):
    def load(self, files: Mapping[str, Path]) -> CachedDocument:
        import gzip

        body = files["part0"].read_bytes()
        return CachedDocument(body, gzip.compress(body, mtime=0))


def matches(filter_: Mapping[str, Any] | None, payload: Mapping[str, Any]) -> bool:
    """Equality and ``$and``, which is what these tests filter by."""
    return all(
        all(matches(each, payload) for each in value)
        if field == "$and"
        else payload.get(field) == value
        for field, value in (filter_ or {}).items()
    )


class ServedSongs:
    """Points with a genre, asked in every way that a component may be."""

    def __init__(self, songs: list[tuple[str, NDArray[np.float32], str]]) -> None:
        self._songs = {song: (point, {"genre": genre}) for song, point, genre in songs}

    def _nearest(
        self,
        point: NDArray[np.float32],
        *,
        k: int,
        filter_: Mapping[str, Any] | None,
        without: Iterable[str] = (),
    ) -> Hits:
        found = [
            Hit(id=song, score=float(np.linalg.norm(at - point)), payload=payload)
            for song, (at, payload) in self._songs.items()
            if song not in set(without) and matches(filter_, payload)
        ]
        return Hits(sorted(found, key=lambda hit: (hit.score, hit.id))[:k])

    def search(
        self,
        vector: NDArray[np.float32] | None = None,
        text: str | None = None,
        *,
        k: int = 10,
        filter: Mapping[str, Any] | None = None,  # noqa: A002 - its name
        without: Iterable[str] = (),
        weights: Mapping[str, float] | None = None,
        explain: bool = False,
    ) -> Hits:
        if vector is not None and vector.shape != (2,):
            raise InvalidQueryError(f"a vector of length 2, not {len(vector)}")
        point = np.zeros(2, dtype=np.float32) if vector is None else vector
        hits = self._nearest(point, k=k, filter_=filter, without=without)
        if text is not None:
            hits = Hits([hit for hit in hits if text in hit.id])
        for rank, hit in enumerate(hits, 1):
            hit.payload = {**hit.payload, "weights": weights, "rank": rank}
        if explain:
            hits.explanation = Explanation(plan="exact", effort={"nprobe": 3}, candidates=7)
        return hits

    def search_by_id(
        self,
        entry_id: str,
        *,
        k: int = 10,
        filter: Mapping[str, Any] | None = None,  # noqa: A002 - its name
    ) -> Hits:
        if entry_id not in self._songs:
            raise UnknownEntryError(entry_id)
        return self._nearest(self._songs[entry_id][0], k=k, filter_=filter, without=[entry_id])

    def search_like(
        self,
        like: Iterable[str | NDArray[np.float32]],
        unlike: Iterable[str | NDArray[np.float32]] = (),
        *,
        k: int = 10,
        filter: Mapping[str, Any] | None = None,  # noqa: A002 - its name
    ) -> Hits:
        points = [self._songs[each][0] if isinstance(each, str) else each for each in like]
        away = [self._songs[each][0] if isinstance(each, str) else each for each in unlike]
        point = np.mean(points, axis=0) - (np.mean(away, axis=0) if away else 0)
        return self._nearest(point, k=k, filter_=filter)

    def get(
        self,
        ids: Iterable[str],
        *,
        filter: Mapping[str, Any] | None = None,  # noqa: A002 - its name
    ) -> list[Entry | None]:
        return [
            Entry(song, self._songs[song][1], text=f"about {song}")
            if song in self._songs and matches(filter, self._songs[song][1])
            else None
            for song in ids
        ]

    def count(self, filter: Mapping[str, Any] | None = None) -> int:  # noqa: A002 - its name
        return sum(matches(filter, payload) for _, payload in self._songs.values())

    def scroll(
        self,
        filter: Mapping[str, Any] | None = None,  # noqa: A002 - its name
        *,
        after: str | None = None,
        limit: int = 100,
    ) -> Page:
        left = sorted(
            song
            for song, (_, payload) in self._songs.items()
            if matches(filter, payload) and (after is None or song > after)
        )
        entries = [Entry(song, self._songs[song][1]) for song in left[:limit]]
        return Page(entries=entries, after=left[limit - 1] if len(left) > limit else None)

    def neighbours(
        self,
        ids: Iterable[str],
        *,
        k: int = 10,
        filter: Mapping[str, Any] | None = None,  # noqa: A002 - its name
    ) -> dict[str, Hits]:
        return {each: self.search_by_id(each, k=k, filter=filter) for each in ids}

    def close(self) -> None:
        """Nothing is open."""


class Songs(_OnlyLoaded, Kind[KindParameters, ServedSongs]):
    """Each line: an id, two numbers and a genre."""

    def load(self, files: Mapping[str, Path]) -> ServedSongs:
        rows = [line.split() for line in files["part0"].read_text().splitlines()]
        return ServedSongs(
            [(song, np.array([x, y], dtype=np.float32), genre) for song, x, y, genre in rows]
        )
