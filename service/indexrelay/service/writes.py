"""Writes over HTTP: the routes ``/v1/collections/…``, there where ``http.writes`` allows them.

    PUT   /v1/collections/{collection}/entries         entries that are new, or replace others
    POST  /v1/collections/{collection}/entries/delete  entries that are to go
    PATCH /v1/collections/{collection}/entries/{id}    another payload or text of one entry
    GET   /v1/collections/{collection}/entries/{id}    one entry, as the catalog has it now

A write is answered once it is durable: it is one batch, committed with those of other requests that
came meanwhile (`indexrelay.producers.GroupCommit`). What it waits for beyond that has a limit, and
ends in 202 where it did not come: the write stands all the same. An ``Idempotency-Key`` becomes the
id of the batch, which the catalog keeps in the same transaction: the same request again gets the
answer of the first one, also after a crash between commit and answer, and another one is refused.

A caller whose token has a filter writes what it matches and nothing else. Whether an entry is its
own is looked up inside of the transaction: an upsert of another's entry is refused, and for every
other request that entry is not there.
"""

import asyncio
import hashlib
import re
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Annotated, Any, Final, TypeVar

from fastapi import APIRouter, Header, Request, Response
from pydantic import BaseModel
from pydantic_core import from_json

from indexrelay.components.errors import InvalidQueryError
from indexrelay.producers import (
    BatchContentError,
    CollectionMismatchError,
    Commit,
    GroupFullError,
    GuardedEntriesError,
    InvalidEntriesError,
    UndeclaredCollectionError,
    UnknownEntriesError,
    WrongSourceError,
)
from indexrelay.reloaders import Reloader
from indexrelay.schemas.errors import IndexRelayError
from indexrelay.schemas.filters import matches, parse_filter
from indexrelay.schemas.loggers import get_logger
from indexrelay.schemas.session import HEADER, SessionToken
from indexrelay.service.answers import LargeResponse, plain_json
from indexrelay.service.bodies import (
    JSON,
    VECTORS,
    DeleteRequest,
    PatchRequest,
    UpsertRequest,
    WriteOptions,
)
from indexrelay.service.changes import Change, Read, Upsert, deleting, patching, upserting
from indexrelay.service.connections import connection_of
from indexrelay.service.description import body_of, refusals
from indexrelay.service.limits import FewThreads, Room
from indexrelay.service.metrics import WriteCounts, WriteOutcome
from indexrelay.service.problems import OverloadedError, RefusedError
from indexrelay.service.queries import Queries, sent
from indexrelay.service.tokens import Caller, caller_of, see_writer
from indexrelay.service.waits import CommitWaits
from indexrelay.service.writer import CatalogMissingError, EntryWriter
from indexrelay.storage.entries import Guard, StoredEntry
from indexrelay.storage.errors import UnknownCollectionError
from indexrelay.storage.validation import EntryRules, check_ids

log = get_logger(__name__)

_KEY: Final = re.compile(r'"[\x20\x21\x23-\x7e]{1,200}"|[\x21\x23-\x7e]{1,200}')
"""Of the header ``Idempotency-Key``: a text in quotes, as the draft of the IETF has it, or without.
(draft-ietf-httpapi-idempotency-key-header)"""
_OPERATIONS: Final = {"PUT": "upsert", "POST": "delete", "PATCH": "patch"}
"""As the metrics call them."""
_CATALOG_THREADS: Final = 4
"""Threads that read the catalog, and open it; where it does not answer they wait for minutes."""
_TURN_SECONDS: Final = 10.0
"""For how long one of those is waited for."""
_UNKNOWN: Final = (
    "the catalog does not answer as it should, and whether this was written is not known: send it "
    "again with the same Idempotency-Key"
)
_AWAY: Final = "the catalog does not answer as it should, and nothing was written; ask again"
_NOTHING: Final = "nothing was written"
_REPEATED: Final = "; an earlier request under this Idempotency-Key may have written it"


class WriteAnswer(BaseModel):
    """What was committed; it is durable."""

    collection: str
    generation: int
    """Of the commit."""
    upserts: int
    """Entries that were written, or whose text or payload was set or taken away."""
    deletes: int
    """Entries that were deleted; ids that were not there do not count."""
    repeated: bool
    """Whether it had been committed before, under the same ``Idempotency-Key``."""
    wait: str
    """What it was to wait for."""
    reached: bool
    """Whether that has come; with 202 it had not."""
    reason: str | None = None
    """Why not."""
    session: str
    """Send it with the next question, to any reader: its answer has this write."""


class StoredAnswer(BaseModel):
    """One entry, as the catalog has it."""

    collection: str
    generation: int
    """Of the collection when the entry was read: it is what every write up to that made of it."""
    session: str
    """The session token of whoever has seen it."""
    id: str
    payload: Any
    """Its JSON payload; null where it has none."""
    text: str | None


ResultT = TypeVar("ResultT")


class _Requests:
    """Reads a request, has it committed, waits, and answers; for one event loop."""

    def __init__(
        self, writer: EntryWriter, reloader: Reloader, queries: Queries, counts: WriteCounts
    ) -> None:
        self._writer = writer
        self._queries = queries
        self._counts = counts
        self._waits = CommitWaits(writer, reloader)
        self._embedders = reloader.embedders
        most, http = writer.max_waiting, writer.settings.http
        self._writing = Room(most, http, "writes{} to commit")
        self._reading = Room(most, http, "entries{} to read from the catalog")
        self._threads = FewThreads(_CATALOG_THREADS, "looks into the catalog to make")

    async def write(
        self,
        request: Request,
        collection: str,
        key: str | None,
        read: Read,
        *,
        kinds: Sequence[str] = (JSON,),
        only: str | None = None,
    ) -> Response:
        """The answer to a write.

        Args:
            request: whose write it is.
            collection: its name.
            key: of the header ``Idempotency-Key``.
            read: reads the body, on a thread.
            kinds: the media types that a body may have.
            only: the one entry that has to be there.

        Raises:
            RefusedError: nothing was written, or nobody knows whether it was; it says which.
        """
        see_writer(request)
        caller = caller_of(request)
        began = time.perf_counter()
        outcome: WriteOutcome = "failed"
        try:
            with self._writing.place(caller.name):
                commit, asked = await self._committed(request, collection, key, read, kinds)
            missing = None if commit.upserts else only
            outcome = "repeated" if commit.repeated else "written"
            if missing is not None:
                outcome = "refused"
        except Exception as error:
            outcome = _outcome_of(error)
            if key is not None and _claims_nothing_written(error):
                raise RefusedError(503, f"{error}{_REPEATED}") from error
            raise
        finally:
            known = collection if collection in self._writer.settings.collections else ""
            seconds = time.perf_counter() - began
            self._counts.observe(known, _OPERATIONS[request.method], outcome, seconds)
        if missing is not None:
            raise _no_entry(
                collection, missing
            )  # to take away what is not there is no batch's error
        connection = connection_of(request.scope)
        if connection is not None:
            connection.release()  # its body is gone, and a wait may be long
        return await self._answer(commit, asked, caller)

    async def _committed(
        self, request: Request, collection: str, key: str | None, read: Read, kinds: Sequence[str]
    ) -> tuple[Commit, WriteOptions]:
        """The commit of a request, and what it waits for; keeps nothing of its body."""
        caller = caller_of(request)
        batch_id = _batch_id(key, caller)
        body, kind, given = await sent(request, *kinds)
        if given:
            raise RefusedError(422, "a write has no options in the address")

        embedder = None if self._embedders is None else self._embedders.of(collection)
        if embedder is not None or not self._writer.is_ready(collection):
            reading = self._queries.on_thread(request, partial(read, body, kind))
            found = await self._told(reading, caller)
            if not self._writer.is_ready(collection):
                await self._of_catalog(partial(self._writer.make_ready, collection), caller)
            asked, change = found
            if embedder is not None and isinstance(change, Upsert) and change.lacking:
                rules = EntryRules.of(self._writer.settings.collections[collection])
                # No thread waits for it.
                embedding = change.embedded(embedder, rules, caller=caller.name)
                found = asked, await self._told(embedding, caller)
            read = _already(found)

        def prepare() -> tuple["Future[Commit]", WriteOptions]:
            asked, change = read(body, kind)
            guard = self._guard(caller, collection)
            group = self._writer.open().group
            prepared = group.prepared(collection, batch_id, change, guard=guard)
            waits = WriteOptions(wait=asked.wait, wait_seconds=asked.wait_seconds)
            return group.submit(prepared), waits

        outcome, asked = await self._told(self._queries.on_thread(request, prepare), caller)
        return await self._told(asyncio.wrap_future(outcome), caller, unknown=_UNKNOWN), asked

    async def _of_catalog(self, work: Callable[[], ResultT], caller: Caller) -> ResultT:
        """What ``work`` finds in the catalog; searches wait for none of it."""
        found: ResultT = await self._told(self._threads.run(work, seconds=_TURN_SECONDS), caller)
        return found

    async def _answer(self, commit: Commit, asked: WriteOptions, caller: Caller) -> Response:
        """The answer, when what was asked for has come, or its time is over."""
        reason = await self._waits.until(commit, asked)
        if reason is not None and caller.filter is not None:
            reason = f"not {asked.wait} within {asked.wait_seconds:g} s"  # no names of readers
        body = WriteAnswer(
            collection=commit.collection,
            generation=commit.generation,
            upserts=commit.upserts,
            deletes=commit.deletes,
            repeated=commit.repeated,
            wait=asked.wait,
            reached=reason is None,
            reason=reason,
            session=str(commit.session),
        )
        status = 200 if reason is None else 202
        session = {HEADER: body.session}
        return Response(body.model_dump_json(), status, session, media_type=JSON)

    async def stored(self, request: Request, collection: str, entry_id: str) -> Response:
        """One entry."""
        caller = caller_of(request)

        def find() -> StoredEntry | None:
            check_ids([entry_id])
            guard = self._guard(caller, collection)
            self._see_declared(collection)
            try:
                found = self._writer.open().catalog.entries.get(collection, entry_id)
            except UnknownCollectionError:  # nothing was written to it yet
                return None
            return None if found is None or (guard and not guard(found.payload)) else found

        with self._reading.place(caller.name):
            found = await self._of_catalog(find, caller)
        if found is None:
            raise _no_entry(collection, entry_id)
        session = str(SessionToken.at(collection, found.epoch, found.generation))
        head = {
            "collection": collection,
            "generation": found.generation,
            "session": session,
            "id": found.id,
        }
        text = plain_json(found.text)
        payload = b"null" if found.payload is None else found.payload.encode()
        body = b'%b,"text":%b,"payload":%b}' % (plain_json(head)[:-1], text, payload)
        return LargeResponse(body, headers={HEADER: session}, media_type=JSON)

    def _see_declared(self, collection: str) -> None:
        declared = self._writer.settings.collections.get(collection)
        if declared is None:
            raise UndeclaredCollectionError(collection, self._writer.settings.collections)
        if declared.source.kind != "catalog":
            raise WrongSourceError(collection, declared.source.kind)

    def _guard(self, caller: Caller, collection: str) -> Guard | None:
        """Which entries the caller may see and change; ``None``: all.

        Raises:
            InvalidFilterError: the collection does not declare a field of the token's filter.
        """
        declared = self._writer.settings.collections.get(collection)
        if caller.filter is None or declared is None:
            return None
        fields = declared.filterable
        asked = parse_filter(caller.filter, fields)
        return lambda payload: matches(
            asked, None if payload is None else from_json(payload), fields
        )

    async def _told(self, outcome: Awaitable[Any], caller: Caller, *, unknown: str = _AWAY) -> Any:
        """What comes of it; its error as an answer.

        ``unknown``: what is known of the write where the catalog, or its driver, fails.
        """
        try:
            return await outcome
        except (RefusedError, InvalidQueryError):
            raise
        except IndexRelayError as error:
            raise _refusal(error, hides_others=caller.filter is not None) from error
        except Exception as error:  # the catalog's, or its driver's
            log.exception("write.failed", error=type(error).__name__)
            raise RefusedError(503, unknown) from error


def _refusal(error: IndexRelayError, *, hides_others: bool) -> RefusedError:
    """The answer to what is wrong with a request."""
    match error:
        case UndeclaredCollectionError() if hides_others:
            return RefusedError(404, f"there is no collection {error.collection!r:.200}")
        case UndeclaredCollectionError():
            return RefusedError(404, str(error))
        case UnknownEntriesError():
            return _no_entry(error.collection, error.ids[0])
        case GuardedEntriesError():
            return RefusedError(422 if error.become else 403, str(error))
        case BatchContentError():
            return RefusedError(
                422,
                "this Idempotency-Key was used before for another write of this collection, "
                f"generation {error.generation}; nothing was written: draw a key for each write, "
                "and send it again only with the same write",
            )
        case CatalogMissingError():
            return RefusedError(503, str(error))
        case InvalidEntriesError() | WrongSourceError():
            return RefusedError(422, str(error))
        case GroupFullError():
            return OverloadedError(f"{error.max_waiting} writes to commit")
        case UnknownCollectionError() | CollectionMismatchError():
            return RefusedError(503, f"nothing was written: {error}")
        case _:
            raise error


def _outcome_of(error: Exception) -> WriteOutcome:
    """How a write ended that raised ``error``."""
    if isinstance(error, OverloadedError):
        return "overloaded"
    refused = isinstance(error, InvalidQueryError) or (
        isinstance(error, RefusedError) and error.status < 500
    )
    return "refused" if refused else "failed"


def _claims_nothing_written(error: Exception) -> bool:
    """Whether it says of a write, which may be repeated, that nothing was written."""
    return isinstance(error, RefusedError) and error.status == 503 and _NOTHING in str(error)


def _no_entry(collection: str, entry_id: str) -> RefusedError:
    """The same for an entry that is not there and for one of another tenant."""
    return RefusedError(404, f"{collection!r:.200} holds no entry {entry_id!r:.200}")


def _batch_id(key: str | None, caller: Caller) -> str | None:
    """The id of the batch for an ``Idempotency-Key``, which is the caller's own."""
    if key is None:
        return None
    if not _KEY.fullmatch(key):
        raise RefusedError(
            422, "Idempotency-Key: a text of at most 200 printable characters of ASCII, in quotes"
        )
    said = f"{caller.name or ''}\n{key.strip(chr(34))}"
    return f"http-{hashlib.sha256(said.encode()).hexdigest()}"


IdempotencyKey = Annotated[
    str | None,
    Header(description="The same write again under the same key is harmless."),
]
_WRITTEN: Final[dict[int | str, dict[str, Any]]] = {
    202: {"model": WriteAnswer, "description": "Durable; what it waits for has not come"},
    **refusals(403, 404, 415, 422),
}


RAW_ENTRIES: Final = (
    "One line of this JSON, whose entries have no vectors, ended by a line feed; behind it the "
    "vectors of all entries, one after another: float32 values, little-endian."
)


def write_routes(
    writer: EntryWriter, reloader: Reloader, queries: Queries, counts: WriteCounts
) -> APIRouter:
    """All of them, under the prefix of the version."""
    router = APIRouter(prefix="/collections/{collection}/entries")
    requests = _Requests(writer, reloader, queries, counts)

    @router.put(
        "",
        response_model=WriteAnswer,
        responses=_WRITTEN,
        openapi_extra=body_of(UpsertRequest, raw=RAW_ENTRIES),
    )
    async def upsert(
        collection: str, request: Request, idempotency_key: IdempotencyKey = None
    ) -> Response:
        return await requests.write(
            request, collection, idempotency_key, upserting, kinds=(JSON, VECTORS)
        )

    @router.post(
        "/delete",
        response_model=WriteAnswer,
        responses=_WRITTEN,
        openapi_extra=body_of(DeleteRequest),
    )
    async def delete(
        collection: str, request: Request, idempotency_key: IdempotencyKey = None
    ) -> Response:
        return await requests.write(request, collection, idempotency_key, deleting)

    @router.patch(
        "/{id:path}",
        response_model=WriteAnswer,
        responses=_WRITTEN,
        openapi_extra=body_of(PatchRequest),
    )
    async def patch(
        collection: str,
        id: str,  # noqa: A002 - its name
        request: Request,
        idempotency_key: IdempotencyKey = None,
    ) -> Response:
        return await requests.write(request, collection, idempotency_key, patching(id), only=id)

    @router.get("/{id:path}", response_model=StoredAnswer, responses=refusals(404, 422))
    async def stored(collection: str, id: str, request: Request) -> Response:  # noqa: A002
        return await requests.stored(request, collection, id)

    return router


def _already(found: tuple[WriteOptions, Change]) -> Read:
    """Gives what was read of a body."""
    return lambda _body, _kind: found
