"""Jobs: from analysis results to committed entries and a batch event.

Works without FAISS, and without any code of builds or reloads: a job sees them in presence alone.
"""

from indexrelay.producers.asynchronous import AsyncBatch, AsyncBatches, AsyncProducer
from indexrelay.producers.batch import Batch, Batches
from indexrelay.producers.errors import (
    BacklogFullError,
    BackPressureError,
    BatchClosedError,
    Behind,
    EventRefusedError,
    GroupFullError,
    NoRunningServerError,
    NotCommittedError,
    NotServedError,
    UndeclaredCollectionError,
    UndeclaredComponentError,
    WrongSourceError,
)
from indexrelay.producers.group import GroupCommit
from indexrelay.producers.producer import Producer
from indexrelay.producers.served import ServedBy
from indexrelay.schemas.errors import EmbeddingError, SettingsError
from indexrelay.schemas.logs import show_logs
from indexrelay.storage.catalog import Commit
from indexrelay.storage.errors import (
    BatchContentError,
    CollectionMismatchError,
    GuardedEntriesError,
    InvalidBatchIdError,
    InvalidEntriesError,
    TooManyRequestsError,
    UnknownEntriesError,
)

__all__ = [
    "AsyncBatch",
    "AsyncBatches",
    "AsyncProducer",
    "BackPressureError",
    "BacklogFullError",
    "Batch",
    "BatchClosedError",
    "BatchContentError",
    "Batches",
    "Behind",
    "CollectionMismatchError",
    "Commit",
    "EmbeddingError",
    "EventRefusedError",
    "GroupCommit",
    "GroupFullError",
    "GuardedEntriesError",
    "InvalidBatchIdError",
    "InvalidEntriesError",
    "NoRunningServerError",
    "NotCommittedError",
    "NotServedError",
    "Producer",
    "ServedBy",
    "SettingsError",
    "TooManyRequestsError",
    "UndeclaredCollectionError",
    "UndeclaredComponentError",
    "UnknownEntriesError",
    "WrongSourceError",
    "show_logs",
]
