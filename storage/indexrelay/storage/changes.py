"""Changes of a collection as they travel: what a job reads after its commit, and a reader takes.

A job reads in a snapshot what changed since the generation before its commits, so that a message
holds whole states and never a part of one. A later commit of somebody else may be in it already;
the message says so by its ``generation``.
"""

import base64
import binascii
from typing import Final

import numpy as np

from indexrelay.schemas.errors import IndexRelayError
from indexrelay.schemas.messages import ChangedEntries, ChangesCommitted
from indexrelay.storage.entries import STORED, Changes, Entries, SourceSnapshot

MAX_MESSAGE_BYTES: Final = 256 * 1024
"""Of changes in one message: 350 entries of 128 dimensions. More are fetched from the catalog by
each reader, which is the shorter way for so many."""
_BESIDE: Final = 4
"""Bytes of quotes and commas beside each text."""


class UnreadableChangesError(IndexRelayError):
    """Raised when the content of a message is not what its form promises; never leaves a reader."""


def read_changes(
    snapshot: SourceSnapshot, *, after: int, most_bytes: int = MAX_MESSAGE_BYTES
) -> Changes | None:
    """What changed since the generation ``after``; ``None``: more than a message holds.

    Raises:
        sqlalchemy.exc.SQLAlchemyError: the catalog cannot be read.
    """
    most = most_bytes // (snapshot.dimension * STORED.itemsize)
    chunks = snapshot.changes(after, most + 1)
    if chunks is None:
        return None
    nothing = np.empty((0, snapshot.dimension), dtype=np.float32)
    none = Entries(ids=[], vectors=nothing, texts=[], payloads=[])
    first = next(chunks, Changes(upserts=none, deletes=[]))
    return first if _size(first) <= most_bytes else None


def _size(changes: Changes) -> int:
    """About how many bytes they take in a message."""
    upserts = changes.upserts
    columns = (upserts.ids, upserts.texts, upserts.payloads, changes.deletes)
    texts = sum(
        len(each.encode()) + _BESIDE for column in columns for each in column if each is not None
    )
    return texts + upserts.vectors.size * STORED.itemsize * 4 // 3


def packed(changes: Changes) -> ChangedEntries:
    """Changes as a message has them."""
    upserts = changes.upserts
    return ChangedEntries(
        ids=tuple(upserts.ids),
        vectors=base64.b64encode(upserts.vectors.astype(STORED).tobytes()).decode(),
        texts=_column(upserts.texts),
        payloads=_column(upserts.payloads),
        deletes=tuple(changes.deletes),
    )


def _column(values: list[str | None]) -> tuple[str | None, ...]:
    return tuple(values) if any(each is not None for each in values) else ()


def unpacked(message: ChangesCommitted, *, dimension: int) -> Changes:
    """The changes of a message that was verified.

    Raises:
        UnreadableChangesError: it has none, or its columns do not fit each other and ``dimension``.
    """
    given = message.changes
    if given is None:
        raise UnreadableChangesError("it holds no changes")
    count = len(given.ids)
    try:
        raw = base64.b64decode(given.vectors, validate=True)
    except (binascii.Error, ValueError) as error:
        raise UnreadableChangesError("its vectors are not base64") from error
    if len(raw) != count * dimension * STORED.itemsize:
        raise UnreadableChangesError(f"its vectors are not {count} of {dimension} dimensions")
    vectors = np.frombuffer(raw, STORED).reshape(count, dimension).astype(np.float32)
    if not np.isfinite(vectors).all():
        raise UnreadableChangesError("one of its vectors is not finite")
    for column in (given.texts, given.payloads):
        if column and len(column) != count:
            raise UnreadableChangesError(f"one of its columns has not {count} values")
    if len({*given.ids, *given.deletes}) != count + len(given.deletes):
        raise UnreadableChangesError("an id is in it twice")
    return Changes(
        upserts=Entries(
            ids=list(given.ids),
            vectors=vectors,
            texts=list(given.texts or [None] * count),
            payloads=list(given.payloads or [None] * count),
        ),
        deletes=list(given.deletes),
    )
