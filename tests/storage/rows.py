"""Entries for tests, made from ids: the vector tells which id and which writing it came from."""

from collections.abc import Iterable, Sequence

import numpy as np

from indexrelay.storage.entries import Entries


def entries(*ids: str, value: float = 1.0, dimension: int = 4) -> Entries:
    """One entry per id, every component ``value``, the id as its text, a payload with the value."""
    return Entries(
        ids=list(ids),
        vectors=np.full((len(ids), dimension), value, np.float32),
        texts=[f"text of {id_}" for id_ in ids],
        payloads=[f'{{"value":{value}}}' for _ in ids],
    )


def ids_of(chunks: Iterable[Entries]) -> list[str]:
    return [id_ for chunk in chunks for id_ in chunk.ids]


def values_of(chunks: Iterable[Entries]) -> dict[str, float]:
    """The value that each id was written with."""
    return {
        id_: float(vector[0])
        for chunk in chunks
        for id_, vector in zip(chunk.ids, chunk.vectors, strict=True)
    }


def flat(deletes: Iterable[Sequence[str]]) -> list[str]:
    return [id_ for chunk in deletes for id_ in chunk]
