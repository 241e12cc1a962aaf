"""The two clients: `Client`, which waits, and `AsyncClient` for programs on an event loop.

Each keeps a session: it sends what it has written and read with every request, so that no answer
goes back behind that, whichever reader gives it.
"""

import asyncio
import time
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Final, Generic, Self, TypeVar, Unpack

import httpx
from numpy.typing import ArrayLike

from indexrelay.schemas.messages import ReaderState
from indexrelay.schemas.session import SessionToken
from indexrelay.service.client.answers import (
    CountResult,
    EntriesResult,
    EntryPage,
    NeighboursResult,
    ReaderBusyError,
    ReaderError,
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
    ClientSession,
    Freshness,
    FreshQuery,
    Keep,
    Query,
    Readers,
    ResultT,
    Target,
    Write,
    may_ask_another,
    read_batch,
    read_by,
)
from indexrelay.service.client.deadline import DeadlineTransport, within

DEADLINE_SECONDS: Final = 10.0
MAX_ANSWER_BYTES: Final = 32 * 1024 * 1024
"""Twice of what a reader gives by default."""
ATTEMPT_PAUSES_SECONDS: Final = (0.1, 0.5)
"""Before a write is sent a second and a third time."""


TransportT = TypeVar("TransportT", httpx.BaseTransport, httpx.AsyncBaseTransport)


class _Asking(Generic[TransportT]):
    """What both clients have: the readers that they ask, and the session that they keep."""

    def __init__(
        self,
        address: str | Sequence[str],
        *,
        token: str | None = None,
        session: SessionToken | str | None = None,
        keep_session: bool = True,
        deadline_seconds: float = DEADLINE_SECONDS,
        max_answer_bytes: int = MAX_ANSWER_BYTES,
    ) -> None:
        """Connect when it is first asked.

        Args:
            address: ``http://HOST:PORT``, ``https://…`` or ``unix:/PATH``; several: instances of
                one reader. Where the one that answered last cannot be reached, has no room or is
                behind, the next one is asked, if it does no harm to ask twice. Where it does not
                answer within the deadline, the next request begins with another.
            token: what the reader knows the sha256 of; ``None``: it asks for none.
            session: what another client has written and read.
            keep_session: whether answers have to contain what this client has written and read.
            deadline_seconds: for one request and its whole answer.
            max_answer_bytes: of one answer.

        Raises:
            ReaderUnreachableError: there is no address, or one is none.
            SessionTokenError: ``session`` is no token.
        """

        def target(each: str) -> Target:
            return Target(
                address=each,
                token=token,
                deadline_seconds=deadline_seconds,
                max_answer_bytes=max_answer_bytes,
            )

        self._readers: Readers[tuple[Target, TransportT]] = Readers(
            address, lambda each: self._reader(target(each))
        )
        self._deadline_seconds = deadline_seconds
        self._session = ClientSession(session, is_sent=keep_session)

    def _reader(self, target: Target) -> tuple[Target, TransportT]:
        """A reader, and what carries requests there."""
        return target, self._transport_to(target)

    def _writing(self, wait: str, wait_seconds: float | None, key: str | None) -> Write:
        return Write.within(self._deadline_seconds, wait, wait_seconds, key)

    @abstractmethod
    def _transport_to(self, target: Target) -> TransportT: ...

    @property
    def session(self) -> SessionToken:
        """What was written and read so far: for another client, its text is ``str(…)``."""
        return self._session.token

    def merge_session(self, token: SessionToken | str) -> None:
        """Answers have to contain what another client has written and read, too.

        Raises:
            SessionTokenError: it is no token.
        """
        self._session.merge(token)

    def forget_session(self) -> None:
        """Begin anew: answers have to contain nothing."""
        self._session.forget()


class Client(_Asking[httpx.BaseTransport]):
    """Asks a reader, or several instances of one; from any thread.

    Close it, or use it with ``with``.
    """

    def search(self, component: str, **query: Unpack[FreshQuery]) -> SearchResult:
        """The entries that fit best.

        Raises:
            InvalidRequestError: the component cannot answer that.
            NotFoundError: there is no such component, or no entry of that id.
            ReaderError: what else may go wrong; see the errors above.
        """
        call = Calls.of_component(component, "search", query, read_by(SearchResult))
        return self._send(call)

    def batch(
        self, component: str, queries: Sequence[Query], **fresh: Unpack[Freshness]
    ) -> list[SearchResult | RequestRefusedError]:
        """One result for each query, or the error in its place; raises as `search`."""
        body = {"queries": list(queries), **fresh}
        return self._send(Calls.of_component(component, "search/batch", body, read_batch))

    def search_vectors(
        self,
        component: str,
        vectors: ArrayLike,
        *,
        k: int = 10,
        filter: Mapping[str, Any] | None = None,  # noqa: A002 - its name
        **fresh: Unpack[Freshness],
    ) -> list[SearchResult | RequestRefusedError]:
        """`batch` for each row of ``vectors``, shape ``(n, dimension)``, sent as float32."""
        options = {"k": k, "filter": filter, **fresh}
        return self._send(Calls.of_vectors(component, vectors, options))

    def get(self, component: str, ids: Sequence[str], **fresh: Unpack[Freshness]) -> EntriesResult:
        """The entry of each id; raises as `search`."""
        body = {"ids": list(ids), **fresh}
        call = Calls.of_component(component, "entries", body, read_by(EntriesResult))
        return self._send(call)

    def count(
        self,
        component: str,
        filter: Mapping[str, Any] | None = None,  # noqa: A002 - its name
        **fresh: Unpack[Freshness],
    ) -> CountResult:
        """How many entries match; raises as `search`."""
        body = {"filter": filter, **fresh}
        return self._send(Calls.of_component(component, "count", body, read_by(CountResult)))

    def scroll(
        self,
        component: str,
        filter: Mapping[str, Any] | None = None,  # noqa: A002 - its name
        *,
        after: str | None = None,
        limit: int = 100,
        **fresh: Unpack[Freshness],
    ) -> EntryPage:
        """A page of entries; raises as `search`."""
        body = {"filter": filter, "after": after, "limit": limit, **fresh}
        return self._send(Calls.of_component(component, "scroll", body, read_by(EntryPage)))

    def neighbours(
        self, component: str, ids: Sequence[str], *, k: int = 10, **fresh: Unpack[Freshness]
    ) -> NeighboursResult:
        """The entries nearest to each of several; raises as `search`."""
        body = {"ids": list(ids), "k": k, **fresh}
        call = Calls.of_component(component, "neighbours", body, read_by(NeighboursResult))
        return self._send(call)

    def upsert(
        self,
        collection: str,
        ids: Sequence[str],
        vectors: ArrayLike | None = None,
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
            vectors: shape ``(n, dimension)``, sent as float32. ``None``: the collection's embedder
                makes them of the texts.
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
        write = self._writing(wait, wait_seconds, key)
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
        write = self._writing(wait, wait_seconds, key)
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
        write = self._writing(wait, wait_seconds, key)
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
        for _, transport in self._readers.all:
            transport.close()

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

    def _transport_to(self, target: Target) -> httpx.BaseTransport:
        return DeadlineTransport(socket=target.socket, verify=target.verify)

    def _send(self, call: Call[ResultT]) -> ResultT:
        with within(self._deadline_seconds) as seconds_left:
            for (target, transport), others in self._readers.in_order():
                sent = self._session.sent(call)
                request = target.request(call, sent, seconds=seconds_left(), others=others)
                try:
                    response, body = self._exchange(target, transport, request)
                    result = target.result(call, response, body)
                except ReaderError as error:
                    if others and seconds_left() > 0 and may_ask_another(call, error):
                        continue
                    self._readers.failed(error)
                    raise
                self._session.answered(sent, response)
                return result
        raise AssertionError("there is no reader")

    def _exchange(
        self, target: Target, transport: httpx.BaseTransport, request: httpx.Request
    ) -> tuple[httpx.Response, bytes]:
        try:
            response = transport.handle_request(request)
            try:
                return response, self._body(target, response)
            finally:
                response.close()
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            raise target.unreachable(error) from error

    def _body(self, target: Target, response: httpx.Response) -> bytes:
        body = bytearray()
        target.check(response, 0)
        for piece in response.iter_raw():
            body += piece
            target.check(response, len(body))
        return bytes(body)


class AsyncClient(_Asking[httpx.AsyncBaseTransport]):
    """Asks a reader, or several instances of one, on an event loop; `Client` says what each method
    does."""

    async def search(self, component: str, **query: Unpack[FreshQuery]) -> SearchResult:
        """The entries that fit best."""
        call = Calls.of_component(component, "search", query, read_by(SearchResult))
        return await self._send(call)

    async def batch(
        self, component: str, queries: Sequence[Query], **fresh: Unpack[Freshness]
    ) -> list[SearchResult | RequestRefusedError]:
        """One result for each query, or the error in its place."""
        body = {"queries": list(queries), **fresh}
        return await self._send(Calls.of_component(component, "search/batch", body, read_batch))

    async def search_vectors(
        self,
        component: str,
        vectors: ArrayLike,
        *,
        k: int = 10,
        filter: Mapping[str, Any] | None = None,  # noqa: A002 - its name
        **fresh: Unpack[Freshness],
    ) -> list[SearchResult | RequestRefusedError]:
        """`batch` for each row of ``vectors``, shape ``(n, dimension)``, sent as float32."""
        return await self._send(
            Calls.of_vectors(component, vectors, {"k": k, "filter": filter, **fresh})
        )

    async def get(
        self, component: str, ids: Sequence[str], **fresh: Unpack[Freshness]
    ) -> EntriesResult:
        """The entry of each id."""
        body = {"ids": list(ids), **fresh}
        call = Calls.of_component(component, "entries", body, read_by(EntriesResult))
        return await self._send(call)

    async def count(
        self,
        component: str,
        filter: Mapping[str, Any] | None = None,  # noqa: A002 - its name
        **fresh: Unpack[Freshness],
    ) -> CountResult:
        """How many entries match."""
        body = {"filter": filter, **fresh}
        call = Calls.of_component(component, "count", body, read_by(CountResult))
        return await self._send(call)

    async def scroll(
        self,
        component: str,
        filter: Mapping[str, Any] | None = None,  # noqa: A002 - its name
        *,
        after: str | None = None,
        limit: int = 100,
        **fresh: Unpack[Freshness],
    ) -> EntryPage:
        """A page of entries."""
        body = {"filter": filter, "after": after, "limit": limit, **fresh}
        return await self._send(Calls.of_component(component, "scroll", body, read_by(EntryPage)))

    async def neighbours(
        self, component: str, ids: Sequence[str], *, k: int = 10, **fresh: Unpack[Freshness]
    ) -> NeighboursResult:
        """The entries nearest to each of several."""
        body = {"ids": list(ids), "k": k, **fresh}
        call = Calls.of_component(component, "neighbours", body, read_by(NeighboursResult))
        return await self._send(call)

    async def upsert(
        self,
        collection: str,
        ids: Sequence[str],
        vectors: ArrayLike | None = None,
        *,
        texts: Sequence[str | None] | None = None,
        payloads: Sequence[Any] | None = None,
        wait: str = "durable",
        wait_seconds: float | None = None,
        key: str | None = None,
    ) -> WriteResult:
        """Write entries."""
        write = self._writing(wait, wait_seconds, key)
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
        write = self._writing(wait, wait_seconds, key)
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
        write = self._writing(wait, wait_seconds, key)
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
        for _, transport in self._readers.all:
            await transport.aclose()

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

    def _transport_to(self, target: Target) -> httpx.AsyncBaseTransport:
        return httpx.AsyncHTTPTransport(verify=target.verify, uds=target.socket, trust_env=False)

    async def _send(self, call: Call[ResultT]) -> ResultT:
        loop = asyncio.get_running_loop()
        end = loop.time() + self._deadline_seconds
        for (target, transport), others in self._readers.in_order():
            sent = self._session.sent(call)
            request = target.request(call, sent, seconds=end - loop.time(), others=others)
            try:
                response, body = await self._exchange(target, transport, request, end)
                result = target.result(call, response, body)
            except ReaderError as error:
                if others and end > loop.time() and may_ask_another(call, error):
                    continue
                self._readers.failed(error)
                raise
            self._session.answered(sent, response)
            return result
        raise AssertionError("there is no reader")

    async def _exchange(
        self,
        target: Target,
        transport: httpx.AsyncBaseTransport,
        request: httpx.Request,
        end: float,
    ) -> tuple[httpx.Response, bytes]:
        try:
            async with asyncio.timeout_at(end):
                response = await transport.handle_async_request(request)
                try:
                    return response, await self._body(target, response)
                finally:
                    await response.aclose()
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            raise target.unreachable(error) from error

    async def _body(self, target: Target, response: httpx.Response) -> bytes:
        body = bytearray()
        target.check(response, 0)
        async for piece in response.aiter_raw():
            body += piece
            target.check(response, len(body))
        return bytes(body)
