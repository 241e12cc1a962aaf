"""What a job hands over under one batch id, and what it gets back."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from indexrelay.storage.entries import Entries
from indexrelay.storage.errors import InvalidBatchIdError

MAX_BATCH_ID = 200
"""Characters; as in the events that carry it."""


@dataclass(frozen=True, kw_only=True)
class BatchChanges:
    """What a job hands over under one batch id.

    Applied in the order of the fields; `indexrelay.storage.catalog.batch_content` says what comes
    of it.
    """

    collection: str
    batch_id: str
    upserts: Sequence[Entries] = ()
    """As `indexrelay.storage.validation.check_entries` gives them. A text or payload that is
    ``None`` stays what it is."""
    texts: Mapping[str, str | None] = field(default_factory=dict)
    """By id, for entries that are there or among the upserts; ``None``: the text goes."""
    payloads: Mapping[str, str | None] = field(default_factory=dict)
    """The same, each a JSON value as text."""
    deletes: Sequence[str] = ()
    own_data: bool = False
    """Whether the job keeps the entries itself: what changed is then not known here."""


@dataclass(frozen=True, kw_only=True)
class Commit:
    """What became of a batch."""

    collection: str
    epoch: str
    batch_id: str
    generation: int
    upserts: int
    """Entries that came, were written again, or got or lost a text or payload."""
    deletes: int
    """Entries that went; ids that were not there do not count."""
    repeated: bool
    """Whether the batch had been committed before: this is what it got then."""


def check_batch_id(batch_id: str) -> None:
    """Refuse what the database or an event could not carry.

    Raises:
        InvalidBatchIdError: empty, too long, NUL or a lone surrogate in it.
    """
    plain = isinstance(batch_id, str) and "\0" not in batch_id
    if not plain or not 1 <= len(batch_id) <= MAX_BATCH_ID:
        raise InvalidBatchIdError(batch_id)
    try:
        batch_id.encode()
    except UnicodeEncodeError as error:
        raise InvalidBatchIdError(batch_id) from error
