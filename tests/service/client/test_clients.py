"""Both clients: they ask what the service answers, within a time and a size, and nobody else."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from indexrelay.reloaders import Reloader
from indexrelay.schemas.settings import HttpSettings
from indexrelay.service import AsyncClient, Client
from indexrelay.service.client import (
    BadAnswerError,
    InvalidRequestError,
    NotAllowedError,
    NotFoundError,
    ReaderBusyError,
    ReaderError,
    ReaderUnreachableError,
    RequestRefusedError,
    SearchResult,
)
from indexrelay.service.server import address_of, listening
from indexrelay.service.tokens import digest_of, new_token
from tests.reloaders.bench import Bench
from tests.service.conftest import served

Ask = Callable[[str, str, tuple[Any, ...], dict[str, Any]], Any]


def ask_waiting(address: str, what: str, given: tuple[Any, ...], named: dict[str, Any]) -> Any:
    of_client, named = split(named)
    with Client(address, **of_client) as client:
        return getattr(client, what)(*given, **named)


def ask_awaiting(address: str, what: str, given: tuple[Any, ...], named: dict[str, Any]) -> Any:
    async def ask() -> Any:
        of_client, rest = split(named)
        async with AsyncClient(address, **of_client) as client:
            return await getattr(client, what)(*given, **rest)

    return asyncio.run(ask())


def split(named: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the client is made with, and what it is asked with."""
    keys = {"token", "deadline_seconds", "max_answer_bytes"} & named.keys()
    return {key: named[key] for key in keys}, {
        key: value for key, value in named.items() if key not in keys
    }


@pytest.fixture(params=[ask_waiting, ask_awaiting], ids=["waiting", "awaiting"])
def ask(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Ask a reader by one of the clients: ``ask(address, "search", "songs", text="a")``."""

    def asked(address: str, what: str, *given: Any, **named: Any) -> Any:
        return request.param(address, what, given, named)

    return asked


@pytest.fixture
def address(client: httpx.Client) -> str:
    return str(client.base_url)


def test_a_client_gets_what_the_service_answers(
    ask: Callable[..., Any], address: str, client: httpx.Client
) -> None:
    query: dict[str, Any] = {"k": 2, "filter": {"genre": "jazz"}, "explain": True}
    found = ask(address, "search", "songs", vector=np.array([0, 0], np.float32), **query)
    answer = client.post("/v1/components/songs/search", json={"vector": [0, 0], **query}).json()
    assert [hit.id for hit in found.hits] == ["calm", "cold"]
    assert found.model_dump(mode="json", exclude_unset=True) == answer
    assert found.explanation["plan"] == "exact"
    like = ask(address, "search", "songs", like=["fast", np.array([4.0, 1.0])], k=1)
    assert [hit.id for hit in like.hits] == ["fast"]
    assert ask(address, "count", "songs").count == 5
    assert ask(address, "count", "songs", {"genre": "rock"}).count == 2
    entries = ask(address, "get", "songs", ["loud", "nobody"]).entries
    assert (entries[0].id, entries[0].text, entries[1]) == ("loud", "about loud", None)
    page = ask(address, "scroll", "songs", {"genre": "jazz"}, after="calm", limit=1)
    assert ([entry.id for entry in page.entries], page.after) == (["cold"], "cold")
    near = ask(address, "neighbours", "songs", ["calm"], k=1).neighbours
    assert [hit.id for hit in near["calm"]] == ["cold"]
    components = ask(address, "components")
    assert components.components["songs"].version == found.version
    assert ask(address, "state").release == found.release == components.release
    assert ask(address, "retry") is None


def test_a_batch_has_a_result_or_an_error_for_each_query(
    ask: Callable[..., Any], address: str
) -> None:
    queries = [{"vector": np.zeros(2), "k": 1}, {"id": "nobody"}, {"vector": [0, 0, 0]}]
    found, unknown, wrong = ask(address, "batch", "songs", queries)
    assert isinstance(found, SearchResult)
    assert isinstance(unknown, NotFoundError)
    assert "no entry 'nobody'" in str(unknown)
    assert isinstance(wrong, InvalidRequestError)
    vectors = np.array([[0, 0], [4, 1]], dtype=np.float64)
    options = {"k": 1, "filter": {"genre": "rock"}}
    first, second = ask(address, "search_vectors", "songs", vectors, **options)
    assert ([hit.id for hit in first.hits], [hit.id for hit in second.hits]) == (["fast"], ["loud"])


@pytest.mark.parametrize(
    ("component", "query", "kind", "says"),
    [
        ("points", {"vector": [0, 0], "explain": True}, InvalidRequestError, "takes no explain"),
        ("songs", {"id": "nobody"}, NotFoundError, "no entry 'nobody'"),
        ("nothing", {"id": "a"}, NotFoundError, "no component 'nothing' is served"),
        ("a/../b?c", {"id": "a"}, NotFoundError, "Not Found"),
        ("songs", {"vector": [float("nan"), 0]}, InvalidRequestError, "cannot be asked"),
        ("songs", {"text": "a", "nonsense": 1}, InvalidRequestError, "unknown: 'nonsense'"),
        ("lines", {"text": "raise"}, RequestRefusedError, "a fault of the reader"),
    ],
)
def test_what_is_refused_is_an_error_with_the_readers_own_words(
    ask: Callable[..., Any],
    address: str,
    component: str,
    query: dict[str, Any],
    kind: type[Exception],
    says: str,
) -> None:
    with pytest.raises(kind, match=says):
        ask(address, "search", component, **query)


def test_a_reader_that_has_nothing_yet_is_busy(
    ask: Callable[..., Any], empty: httpx.Client
) -> None:
    with pytest.raises(ReaderBusyError, match="nothing yet"):
        ask(str(empty.base_url), "search", "songs", text="a")


def test_a_token_is_shown_and_is_in_no_text_of_the_client(
    ask: Callable[..., Any], bench: Bench, reader: Reloader
) -> None:
    token = new_token()
    known = {"tokens": {"me": {"sha256": digest_of(token)}}}
    with served(bench, reader, HttpSettings.model_validate(known)) as client:
        address = str(client.base_url)
        assert ask(address, "count", "songs", token=token).count == 5
        with pytest.raises(NotAllowedError, match="Authorization: Bearer TOKEN"):
            ask(address, "count", "songs")
        with pytest.raises(NotAllowedError, match='scope is "admin"'):
            ask(address, "retry", token=token)
    for wrong in ("my secret", "secret\r\nx: y", "sécret", ""):
        with pytest.raises(NotAllowedError) as refused:
            Client("http://127.0.0.1:1", token=wrong)
        assert not wrong or wrong not in str(refused.value)
    assert token not in repr(vars(Client("http://127.0.0.1:1", token=token)))


def test_a_client_asks_over_a_unix_socket(
    ask: Callable[..., Any], reader: Reloader, server_folder: Path
) -> None:
    with answering(
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}", uds=server_folder / "s"
    ) as at:
        assert ask(at, "retry") is None


@contextmanager
def answering(
    sent: bytes, *, rest: bytes = b"", uds: Path | None = None, closes: bool = True
) -> Iterator[str]:
    """The address of something that answers anything with ``sent``, then with ``rest`` for ever."""
    with listening("127.0.0.1", 0, uds) as listener:
        stop = threading.Event()

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65_536)
                try:
                    connection.sendall(sent)
                    while not closes and not stop.wait(0.01):
                        connection.sendall(rest)
                except OSError:
                    return  # the client has left

        thread = threading.Thread(target=answer)
        thread.start()
        try:
            yield address_of(listener)
        finally:
            stop.set()
            thread.join()


OK = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize(
    ("sent", "rest"),
    [
        (b"", b""),
        (b"HTTP/1.1 200 OK\r\nx: ", b"y"),
        (OK + b"content-length: 100000\r\n\r\n{", b" "),
        (OK + b"transfer-encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
    ],
    ids=["nothing", "a header byte by byte", "a body byte by byte", "chunks for ever"],
)
def test_a_request_ends_at_its_deadline_however_slowly_the_answer_comes(
    ask: Callable[..., Any], sent: bytes, rest: bytes
) -> None:
    with (
        answering(sent, rest=rest, closes=False) as address,
        pytest.raises(ReaderUnreachableError, match=r"no answer within 0\.3 s"),
    ):
        ask(address, "components", deadline_seconds=0.3)


def test_an_instance_that_does_not_answer_is_not_the_first_to_be_asked_again(address: str) -> None:
    async def ask(silent: str) -> int:
        async with AsyncClient([silent, address], deadline_seconds=0.3) as client:
            with pytest.raises(ReaderUnreachableError, match=r"no answer within 0\.3 s"):
                await client.count("songs")
            client._deadline_seconds = 30
            return (await client.count("songs")).count

    with answering(b"", closes=False) as silent:
        assert asyncio.run(ask(silent)) == 5
    with (
        answering(b"", closes=False) as silent,
        Client([silent, address], deadline_seconds=0.3) as client,
    ):
        with pytest.raises(ReaderUnreachableError, match=r"no answer within 0\.3 s"):
            client.count("songs")
        client._deadline_seconds = 30
        assert client.count("songs").count == 5


def test_an_answer_is_read_up_to_a_size(ask: Callable[..., Any], address: str) -> None:
    with pytest.raises(BadAnswerError, match="more than 50 bytes"):
        ask(address, "components", max_answer_bytes=50)
    with (
        answering(OK + b"content-length: 99999999\r\n\r\n", rest=b"x" * 10_000, closes=False) as at,
        pytest.raises(BadAnswerError, match="more than 1000 bytes"),
    ):
        ask(at, "components", max_answer_bytes=1000)


@pytest.mark.parametrize(
    ("sent", "kind", "says"),
    [
        (b"HTTP/1.1 302 Found\r\nlocation: {other}\r\n\r\n", RequestRefusedError, "status 302"),
        (OK + b"content-encoding: gzip\r\ncontent-length: 2\r\n\r\n{}", BadAnswerError, "encoding"),
        (OK + b"content-length: 2\r\n\r\n{}", BadAnswerError, "is no ServedComponents"),
        (OK + b"content-length: 1\r\n\r\n{", BadAnswerError, "is no ServedComponents"),
        (b"HTTP/1.1 404 No\r\ncontent-length: 4\r\n\r\nnope", NotFoundError, "status 404"),
        (
            b'HTTP/1.1 503 No\r\ncontent-length: 13\r\n\r\n{"detail": 1}',
            ReaderBusyError,
            "status 503",
        ),
        (b"220 smtp ready\r\n", ReaderUnreachableError, "does not answer"),
        (b"", ReaderUnreachableError, "does not answer"),
    ],
)
def test_something_else_that_answers_there_is_named_and_followed_nowhere(
    ask: Callable[..., Any], sent: bytes, kind: type[ReaderError], says: str, address: str
) -> None:
    sent = sent.replace(b"{other}", f"{address}/v1/components".encode())
    with answering(sent) as at, pytest.raises(kind, match=says):
        ask(at, "components")


def test_a_reader_that_is_not_there_is_named(ask: Callable[..., Any]) -> None:
    with pytest.raises(ReaderUnreachableError, match=r"http://127\.0\.0\.1:1 does not answer"):
        ask("http://127.0.0.1:1", "state")


@pytest.mark.parametrize("at", ["http://127.0.0.1:99999", "ftp://x", "none", "http://[::1", ""])
def test_what_is_no_address_is_named(ask: Callable[..., Any], at: str) -> None:
    with pytest.raises(ReaderUnreachableError, match="is no address of a reader"):
        ask(at, "state")


def test_one_client_may_be_asked_from_many_threads(address: str) -> None:
    counts: list[int] = []
    with Client(address) as client:
        threads = [
            threading.Thread(target=lambda: counts.append(client.count("songs").count))
            for _ in range(8)
        ]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
        client.close()
    assert counts == [5] * 8
