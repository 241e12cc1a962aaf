"""Kinds that answer over HTTP as the real ones do, without FAISS."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from indexrelay.components.errors import InvalidQueryError, UnknownEntryError
from indexrelay.components.json_cache.kind import CachedDocument
from indexrelay.components.kind import Built, Job, Kind, KindParameters
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
