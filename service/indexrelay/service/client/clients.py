"""The two clients: `Client`, which waits, and `AsyncClient` for programs on an event loop."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Final, Self, Unpack

import httpx
from numpy.typing import ArrayLike

from indexrelay.schemas.messages import ReaderState
from indexrelay.service.client.answers import (
    CountResult,
    EntriesResult,
    EntryPage,
    NeighboursResult,
    ReaderBusyError,
    ReaderUnreachableError,
    RequestRefusedError,
    SearchResult,
    ServedComponents,
    StoredEntry,
    WriteResult,
)
from indexrelay.service.client.calls import (
    COMPONENTS,
    KEEP,
    RETRY,
    STATE,
    Call,
    Calls,
    Keep,
    Query,
    ResultT,
    Target,
    read_batch,
    read_by,
)
from indexrelay.service.client.deadline import DeadlineTransport, within

DEADLINE_SECONDS: Final = 10.0
MAX_ANSWER_BYTES: Final = 32 * 1024 * 1024
"""Twice of what a reader gives by default."""
ATTEMPT_PAUSES_SECONDS: Final = (0.1, 0.5)
"""Before a write is sent a second and a third time."""


class Client:
    """Asks one reader; from any thread. Close it, or use it with ``with``."""

    def __init__(
        self,
        address: str,
        *,
        token: str | None = None,
        deadline_seconds: float = DEADLINE_SECONDS,
        max_answer_bytes: int = MAX_ANSWER_BYTES,
    ) -> None:
        """Connect when it is first asked.

        Args:
            address: ``http://HOST:PORT``, ``https://…`` or ``unix:/PATH``.
            token: what the reader knows the sha256 of; ``None``: it asks for none.
            deadline_seconds: for one request and its whole answer.
            max_answer_bytes: of one answer.
        """
        self._to = Target(
            address=address,
            token=token,
            deadline_seconds=deadline_seconds,
            max_answer_bytes=max_answer_bytes,
        )
        self._transport = DeadlineTransport(socket=self._to.socket, verify=self._to.verify)

    def search(self, component: str, **query: Unpack[Query]) -> SearchResult:
        """The entries that fit best.

        Raises:
            InvalidRequestError: the component cannot answer that.
            NotFoundError: there is no such component, or no entry of that id.
            ReaderError: what else may go wrong; see the errors above.
        """
        call = Calls.of_component(component, "search", query, read_by(SearchResult))
        return self._send(call)

    def batch(
        self, component: str, queries: Sequence[Query]
    ) -> list[SearchResult | RequestRefusedError]:
        """One result for each query, or the error in its place; raises as `search`."""
        body = {"queries": list(queries)}
        return self._send(Calls.of_component(component, "search/batch", body, read_batch))

    def search_vectors(
        self,
        component: str,
        vectors: ArrayLike,
        *,
        k: int = 10,
        filter: Mapping[str, Any] | None = None,  # noqa: A002 - its name
    ) -> list[SearchResult | RequestRefusedError]:
        """`batch` for each row of ``vectors``, shape ``(n, dimension)``, sent as float32."""
        return self._send(Calls.of_vectors(component, vectors, {"k": k, "filter": filter}))

    def get(self, component: str, ids: Sequence[str]) -> EntriesResult:
        """The entry of each id; raises as `search`."""
        body = {"ids": list(ids)}
        call = Calls.of_component(component, "entries", body, read_by(EntriesResult))
        return self._send(call)

    def count(
        self,
        component: str,
        filter: Mapping[str, Any] | None = None,  # noqa: A002 - its name
    ) -> CountResult:
        """How many entries match; raises as `search`."""
        body = {"filter": filter}
        return self._send(Calls.of_component(component, "count", body, read_by(CountResult)))

    def scroll(
        self,
        component: str,
        filter: Mapping[str, Any] | None = None,  # noqa: A002 - its name
        *,
        after: str | None = None,
        limit: int = 100,
    ) -> EntryPage:
        """A page of entries; raises as `search`."""
        body = {"filter": filter, "after": after, "limit": limit}
        return self._send(Calls.of_component(component, "scroll", body, read_by(EntryPage)))

    def neighbours(self, component: str, ids: Sequence[str], *, k: int = 10) -> NeighboursResult:
        """The entries nearest to each of several; raises as `search`."""
        body = {"ids": list(ids), "k": k}
        call = Calls.of_component(component, "neighbours", body, read_by(NeighboursResult))
        return self._send(call)

    def upsert(
        self,
        collection: str,
        ids: Sequence[str],
        vectors: ArrayLike,
        *,
        texts: Sequence[str | None] | None = None,
        payloads: Sequence[Any] | None = None,
        wait: str = "durable",
        wait_seconds: float | None = None,
        key: str | None = None,
    ) -> WriteResult:
        """Write entries; what is not given of one that is there stays as it is.

        Args:
            collection: its name.
            ids: ``n`` ids.
            vectors: shape ``(n, dimension)``, sent as float32.
            texts: ``n`` texts; ``None``, the whole or one of them: not given.
            payloads: ``n`` JSON values; ``None`` as for texts.
            wait: ``durable``, ``visible:N`` (N readers have it in their answers, this one for 1)
                or ``released`` (every reader serves a release with it).
            wait_seconds: for how long at most; then the result says that it did not come. ``None``:
                half of the deadline.
            key: an ``Idempotency-Key``, for a program that repeats the write after its own crash;
                ``None``: drawn, so that an attempt whose answer was lost is repeated here without
                harm.

        Raises:
            InvalidRequestError: an entry cannot be one of the collection; nothing was written.
            NotAllowedError: the token may not write, or not these entries; nothing was written.
            ReaderUnreachableError: no answer, after some attempts; it may have been written.
            ReaderError: what else may go wrong; see the errors above.
        """
        write = self._to.writing(wait, wait_seconds, key)
        call = Calls.upsert(collection, ids, vectors, texts, payloads, write)
        return self._write(call)

    def delete(
        self,
        collection: str,
        ids: Sequence[str],
        *,
        wait: str = "durable",
        wait_seconds: float | None = None,
        key: str | None = None,
    ) -> WriteResult:
        """Delete entries; one that is not there is no error. Takes and raises as `upsert`."""
        write = self._to.writing(wait, wait_seconds, key)
        return self._write(Calls.delete(collection, ids, write))

    def patch(
        self,
        collection: str,
        entry_id: str,
        *,
        payload: Any = KEEP,
        text: str | Keep | None = KEEP,
        wait: str = "durable",
        wait_seconds: float | None = None,
        key: str | None = None,
    ) -> WriteResult:
        """Give one entry another payload or text, whole; ``None`` takes it away.

        Takes and raises as `upsert`; `NotFoundError`: there is no such entry.
        """
        write = self._to.writing(wait, wait_seconds, key)
        return self._write(Calls.patch(collection, entry_id, payload, text, write))

    def stored(self, collection: str, entry_id: str) -> StoredEntry:
        """One entry as the catalog has it: every write that was answered is in it.

        Raises as `search`; `NotFoundError`: there is no such entry.
        """
        return self._send(Calls.stored(collection, entry_id))

    def components(self) -> ServedComponents:
        """What is served; raises as `search`."""
        return self._send(COMPONENTS)

    def state(self) -> ReaderState:
        """What the reader says of itself; raises as `search`."""
        return self._send(STATE)

    def retry(self) -> None:
        """Let it load again what failed; takes the scope ``admin``. Raises as `search`."""
        self._send(RETRY)

    def close(self) -> None:
        """Close its connections; safe twice."""
        self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _write(self, call: Call[ResultT]) -> ResultT:
        """Send a write, and again where its answer is not known: its key makes that harmless."""
        for pause in ATTEMPT_PAUSES_SECONDS:
            try:
                return self._send(call)
            except (ReaderBusyError, ReaderUnreachableError):
                time.sleep(pause)
        return self._send(call)

    def _send(self, call: Call[ResultT]) -> ResultT:
        try:
            with within(self._to.deadline_seconds):
                response = self._transport.handle_request(self._to.request(call))
                try:
                    body = self._body(response)
                finally:
                    response.close()
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            raise self._to.unreachable(error) from error
        return self._to.result(call, response, body)

    def _body(self, response: httpx.Response) -> bytes:
        body = bytearray()
        self._to.check(response, 0)
        for piece in response.iter_raw():
            body += piece
            self._to.check(response, len(body))
        return bytes(body)


class AsyncClient:
    """Asks one reader, on an event loop; `Client` says what each method does."""

    def __init__(
        self,
        address: str,
        *,
        token: str | None = None,
        deadline_seconds: float = DEADLINE_SECONDS,
        max_answer_bytes: int = MAX_ANSWER_BYTES,
    ) -> None:
        """As `Client`."""
        self._to = Target(
            address=address,
            token=token,
            deadline_seconds=deadline_seconds,
            max_answer_bytes=max_answer_bytes,
        )
        self._transport = httpx.AsyncHTTPTransport(
            verify=self._to.verify, uds=self._to.socket, trust_env=False
        )

    async def search(self, component: str, **query: Unpack[Query]) -> SearchResult:
        """The entries that fit best."""
        call = Calls.of_component(component, "search", query, read_by(SearchResult))
        return await self._send(call)

    async def batch(
        self, component: str, queries: Sequence[Query]
    ) -> list[SearchResult | RequestRefusedError]:
        """One result for each query, or the error in its place."""
        body = {"queries": list(queries)}
        return await self._send(Calls.of_component(component, "search/batch", body, read_batch))

    async def search_vectors(
        self,
        component: str,
        vectors: ArrayLike,
        *,
        k: int = 10,
        filter: Mapping[str, Any] | None = None,  # noqa: A002 - its name
    ) -> list[SearchResult | RequestRefusedError]:
        """`batch` for each row of ``vectors``, shape ``(n, dimension)``, sent as float32."""
        return await self._send(Calls.of_vectors(component, vectors, {"k": k, "filter": filter}))

    async def get(self, component: str, ids: Sequence[str]) -> EntriesResult:
        """The entry of each id."""
        body = {"ids": list(ids)}
        call = Calls.of_component(component, "entries", body, read_by(EntriesResult))
        return await self._send(call)

    async def count(
        self,
        component: str,
        filter: Mapping[str, Any] | None = None,  # noqa: A002 - its name
    ) -> CountResult:
        """How many entries match."""
        body = {"filter": filter}
        call = Calls.of_component(component, "count", body, read_by(CountResult))
        return await self._send(call)

    async def scroll(
        self,
        component: str,
        filter: Mapping[str, Any] | None = None,  # noqa: A002 - its name
        *,
        after: str | None = None,
        limit: int = 100,
    ) -> EntryPage:
        """A page of entries."""
        body = {"filter": filter, "after": after, "limit": limit}
        return await self._send(Calls.of_component(component, "scroll", body, read_by(EntryPage)))

    async def neighbours(
        self, component: str, ids: Sequence[str], *, k: int = 10
    ) -> NeighboursResult:
        """The entries nearest to each of several."""
        body = {"ids": list(ids), "k": k}
        call = Calls.of_component(component, "neighbours", body, read_by(NeighboursResult))
        return await self._send(call)

    async def upsert(
        self,
        collection: str,
        ids: Sequence[str],
        vectors: ArrayLike,
        *,
        texts: Sequence[str | None] | None = None,
        payloads: Sequence[Any] | None = None,
        wait: str = "durable",
        wait_seconds: float | None = None,
        key: str | None = None,
    ) -> WriteResult:
        """Write entries."""
        write = self._to.writing(wait, wait_seconds, key)
        call = Calls.upsert(collection, ids, vectors, texts, payloads, write)
        return await self._write(call)

    async def delete(
        self,
        collection: str,
        ids: Sequence[str],
        *,
        wait: str = "durable",
        wait_seconds: float | None = None,
        key: str | None = None,
    ) -> WriteResult:
        """Delete entries."""
        write = self._to.writing(wait, wait_seconds, key)
        return await self._write(Calls.delete(collection, ids, write))

    async def patch(
        self,
        collection: str,
        entry_id: str,
        *,
        payload: Any = KEEP,
        text: str | Keep | None = KEEP,
        wait: str = "durable",
        wait_seconds: float | None = None,
        key: str | None = None,
    ) -> WriteResult:
        """Give one entry another payload or text."""
        write = self._to.writing(wait, wait_seconds, key)
        return await self._write(Calls.patch(collection, entry_id, payload, text, write))

    async def stored(self, collection: str, entry_id: str) -> StoredEntry:
        """One entry as the catalog has it."""
        return await self._send(Calls.stored(collection, entry_id))

    async def components(self) -> ServedComponents:
        """What is served."""
        return await self._send(COMPONENTS)

    async def state(self) -> ReaderState:
        """What the reader says of itself."""
        return await self._send(STATE)

    async def retry(self) -> None:
        """Let it load again what failed; takes the scope ``admin``."""
        await self._send(RETRY)

    async def aclose(self) -> None:
        """Close its connections; safe twice."""
        await self._transport.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def _write(self, call: Call[ResultT]) -> ResultT:
        for pause in ATTEMPT_PAUSES_SECONDS:
            try:
                return await self._send(call)
            except (ReaderBusyError, ReaderUnreachableError):
                await asyncio.sleep(pause)
        return await self._send(call)

    async def _send(self, call: Call[ResultT]) -> ResultT:
        try:
            async with asyncio.timeout(self._to.deadline_seconds):
                response = await self._transport.handle_async_request(self._to.request(call))
                try:
                    body = await self._body(response)
                finally:
                    await response.aclose()
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            raise self._to.unreachable(error) from error
        return self._to.result(call, response, body)

    async def _body(self, response: httpx.Response) -> bytes:
        body = bytearray()
        self._to.check(response, 0)
        async for piece in response.aiter_raw():
            body += piece
            self._to.check(response, len(body))
        return bytes(body)
