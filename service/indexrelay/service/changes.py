"""What the body of a write changes: the entries that it hands to a batch."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from indexrelay.components.errors import InvalidQueryError
from indexrelay.producers import Batch, InvalidEntriesError
from indexrelay.service.bodies import (
    DeleteRequest,
    PatchRequest,
    UpsertRequest,
    WriteOptions,
    read_upserts,
    read_write,
)
from indexrelay.service.problems import RefusedError
from indexrelay.storage.validation import EntryRules, check_ids, check_texts

if TYPE_CHECKING:  # needed where a collection has an embedder
    from indexrelay.components.embedder import Embedder

Change: TypeAlias = Callable[[Batch], None]
Read: TypeAlias = Callable[[bytes, str], tuple[WriteOptions, Change]]
"""Reads a body of a media type: what is waited for, and what makes the changes."""


def upserting(body: bytes, kind: str) -> tuple[WriteOptions, Change]:
    """What the body of an upsert says, which is of one media type or the other."""
    asked, vectors = read_upserts(body, kind)
    return asked, Upsert(asked, vectors)


@dataclass(frozen=True)
class Upsert:
    """Hands entries over."""

    asked: UpsertRequest
    vectors: Sequence[Any] | NDArray[np.float32]
    """One for each entry; ``None``: it has none."""
    texts: Mapping[str, str] = field(default_factory=dict)
    """By the id of entries whose vectors were made here: the text of each."""

    @property
    def lacking(self) -> list[int]:
        """The rows without a vector."""
        return [row for row, vector in enumerate(self.vectors) if vector is None]

    async def embedded(
        self, embedder: "Embedder", rules: EntryRules, *, caller: str | None
    ) -> "Upsert":
        """The same with the vectors of texts where there was none; ``caller``: whose they are.

        Raises:
            RefusedError: a text has none, or there is neither.
            InvalidEntriesError: an id, or a text, that no entry has; it is not embedded.
        """
        ids = check_ids([each.id for each in self.asked.entries])
        check_texts([each.text for each in self.asked.entries], ids, max_bytes=rules.text)
        vectors = list(self.vectors)
        rows, size = self.lacking, embedder.settings.batch_texts
        texts = [self.asked.entries[row].text for row in rows]
        for row, text in zip(rows, texts, strict=True):
            if text is None:
                entry_id = self.asked.entries[row].id
                raise RefusedError(
                    422, f"entries.{row}: {entry_id!r:.80} has neither a vector nor a text"
                )
        for first in range(0, len(rows), size):
            some = [text for text in texts[first : first + size] if text is not None]
            found = await embedder.submit(some, caller=caller).arrival()
            for number, failure in found.failures.items():
                row = rows[first + number]
                raise RefusedError(
                    503 if failure.transient else 422,
                    f"entries.{row}.text: nothing was written: {failure.reason}",
                )
            for number, vector in enumerate(found.vectors):
                vectors[rows[first + number]] = vector
        made = {
            self.asked.entries[row].id: text
            for row, text in zip(rows, texts, strict=True)
            if text is not None
        }
        return Upsert(self.asked, vectors, made)

    def __call__(self, batch: Batch) -> None:
        """Raises `InvalidEntriesError` as the batch does, by row and id."""
        ids = [each.id for each in self.asked.entries]
        dimension = batch.declared.dimension
        for row in self.lacking:
            raise InvalidQueryError(f"entries.{row}.vector: {ids[row]!r:.80} has none")
        wrong = [row for row, vector in enumerate(self.vectors) if len(vector) != dimension]
        if wrong:
            numbers = len(self.vectors[wrong[0]])
            problem = f"vector of {numbers} numbers, where {dimension} are wanted"
            raise InvalidEntriesError(problem, rows=wrong, ids=ids)
        batch.upsert(
            ids,
            self.vectors,
            texts=[each.text for each in self.asked.entries],
            payloads=[each.payload for each in self.asked.entries],
        )
        batch.note_embedded(self.texts)


def deleting(body: bytes, _kind: str) -> tuple[WriteOptions, Change]:
    """What the body of a delete says."""
    asked = read_write(body, DeleteRequest)
    return asked, lambda batch: batch.delete(asked.ids)


def patching(entry_id: str) -> Read:
    """Reads what a patch of one entry says."""

    def read(body: bytes, _kind: str) -> tuple[WriteOptions, Change]:
        asked = read_write(body, PatchRequest)
        return asked, lambda batch: _patch(batch, entry_id, asked)

    return read


def _patch(batch: Batch, entry_id: str, asked: PatchRequest) -> None:
    """Set what was given, and take away what was given as null."""
    if "payload" in asked.model_fields_set:
        if asked.payload is None:
            batch.clear_payloads([entry_id])
        else:
            batch.set_payloads([entry_id], [asked.payload])
    if "text" in asked.model_fields_set:
        if asked.text is None:
            batch.clear_texts([entry_id])
        else:
            batch.set_texts([entry_id], [asked.text])
