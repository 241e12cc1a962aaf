"""Jobs: from analysis results to committed entries and a batch event.

Works without FAISS; knows nothing of builds or reloads but what readers' presence says.
"""

from indexrelay.producers.asynchronous import AsyncBatch, AsyncBatches, AsyncProducer
from indexrelay.producers.batch import Batch
from indexrelay.producers.batches import Batches
from indexrelay.producers.errors import (
    BacklogFullError,
    BackPressureError,
    BatchClosedError,
    Behind,
    EventRefusedError,
    NoRunningServerError,
    NotCommittedError,
    NotServedError,
    RepeatedIdsError,
    UndeclaredCollectionError,
    UndeclaredComponentError,
    WrongSourceError,
)
from indexrelay.producers.producer import Producer
from indexrelay.producers.waiting import ServedBy

__all__ = [
    "AsyncBatch",
    "AsyncBatches",
    "AsyncProducer",
    "BackPressureError",
    "BacklogFullError",
    "Batch",
    "BatchClosedError",
    "Batches",
    "Behind",
    "EventRefusedError",
    "NoRunningServerError",
    "NotCommittedError",
    "NotServedError",
    "Producer",
    "RepeatedIdsError",
    "ServedBy",
    "UndeclaredCollectionError",
    "UndeclaredComponentError",
    "WrongSourceError",
]
