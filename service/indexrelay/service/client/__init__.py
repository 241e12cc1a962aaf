"""A typed client of readers over HTTP.

    with Client("http://127.0.0.1:8001", token=token) as client:
        for hit in client.search("similar", vector=vector, k=10, filter={"genre": "jazz"}).hits:
            print(hit.id, hit.score)

`Client` waits and `AsyncClient` is awaited; both ask the same and read answers alike. A request has
one deadline for all of it: for the connection, the header and the last byte of the answer, however
slowly they come. Of several instances of a reader the one is asked that answered last, and where it
cannot answer the next one; what the client has written and read is in every answer (its session).
An answer is read up to a size, is not unpacked, and is followed nowhere else: the
address may be one that somebody else has said.
"""

from indexrelay.schemas.errors import see_installed

see_installed("httpcore", "httpx")

from indexrelay.service.client.answers import (  # noqa: E402 - a missing module is named first
    ArmRank,
    BadAnswerError,
    Behind,
    CountResult,
    EntriesResult,
    EntryPage,
    FoundHit,
    InvalidRequestError,
    NeighboursResult,
    NotAllowedError,
    NotFoundError,
    ReadEntry,
    ReaderBehindError,
    ReaderBusyError,
    ReaderError,
    ReaderUnreachableError,
    RequestRefusedError,
    SearchResult,
    ServedComponents,
    ServedVersion,
    StoredEntry,
    WriteResult,
)
from indexrelay.service.client.calls import Freshness, FreshQuery, Keep, Query  # noqa: E402
from indexrelay.service.client.clients import AsyncClient, Client  # noqa: E402

__all__ = [
    "ArmRank",
    "AsyncClient",
    "BadAnswerError",
    "Behind",
    "Client",
    "CountResult",
    "EntriesResult",
    "EntryPage",
    "FoundHit",
    "FreshQuery",
    "Freshness",
    "InvalidRequestError",
    "Keep",
    "NeighboursResult",
    "NotAllowedError",
    "NotFoundError",
    "Query",
    "ReadEntry",
    "ReaderBehindError",
    "ReaderBusyError",
    "ReaderError",
    "ReaderUnreachableError",
    "RequestRefusedError",
    "SearchResult",
    "ServedComponents",
    "ServedVersion",
    "StoredEntry",
    "WriteResult",
]
