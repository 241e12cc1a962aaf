"""Both clients write: what they send, and how they repeat what may have been written."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from indexrelay.reloaders import Reloader
from indexrelay.schemas.settings import Settings
from indexrelay.service.app import create_app
from indexrelay.service.client import (
    InvalidRequestError,
    NotAllowedError,
    NotFoundError,
    ReaderBusyError,
    ReaderUnreachableError,
    clients,
)
from indexrelay.service.tokens import digest_of, new_token
from tests.service.app_server import running
from tests.service.client.test_clients import ask

__all__ = ["ask"]
TOKEN = new_token()
DIMENSION = 3
Ask = Callable[..., Any]


def settings_in(folder: Path, **http: Any) -> Settings:
    return Settings.model_validate(
        {
            "data_dir": folder,
            "http": {"writes": True, **http},
            "collections": {"songs": {"dimension": DIMENSION, "metric": "l2"}},
        }
    )


class Failing:
    """An application whose first answers to writes get lost, or say that it is busy."""

    def __init__(self, app: Any, *, lost: int = 0, busy: int = 0) -> None:
        self._app = app
        self.lost, self.busy, self.asked = lost, busy, 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        self.asked += 1
        if self.busy:
            self.busy -= 1
            await send({"type": "http.response.start", "status": 503, "headers": []})
            await send({"type": "http.response.body", "body": b"{}"})
        elif self.lost:
            self.lost -= 1

            async def dropped(_message: Any) -> None:
                """The write was made, and its answer does not go out."""

            await self._app(scope, receive, dropped)
            headers = [(b"content-length", b"100")]  # the connection ends before that
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": b"{"})
        else:
            await self._app(scope, receive, send)


@pytest.fixture(scope="module")
def failing(tmp_path_factory: pytest.TempPathFactory) -> Failing:
    settings = settings_in(tmp_path_factory.mktemp("clients"))
    return Failing(create_app(Reloader(settings), settings.http))


@pytest.fixture(scope="module")
def served(failing: Failing) -> Iterator[str]:
    with running(failing) as client:
        yield str(client.base_url)


@pytest.fixture
def address(served: str, failing: Failing, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(clients, "ATTEMPT_PAUSES_SECONDS", (0, 0))
    failing.lost = failing.busy = failing.asked = 0
    return served


def test_what_a_client_writes_is_what_it_reads(ask: Ask, address: str) -> None:
    vectors = np.arange(2 * DIMENSION, dtype=np.float64).reshape(2, DIMENSION)
    done = ask(
        address,
        "upsert",
        "songs",
        ["a/b c", ".."],
        vectors,
        texts=["first", None],
        payloads=[{"year": np.int64(1999)}, None],
    )
    assert (done.upserts, done.repeated, done.reached) == (2, False, True)
    stored = ask(address, "stored", "songs", "a/b c")
    assert (stored.text, stored.payload, stored.id) == ("first", {"year": 1999}, "a/b c")
    assert ask(address, "patch", "songs", "..", text="second", payload=[1]).upserts == 1
    assert ask(address, "patch", "songs", "..", payload=None).upserts == 1
    stored = ask(address, "stored", "songs", "..")
    assert (stored.text, stored.payload) == ("second", None)
    assert ask(address, "delete", "songs", ["..", "nobody"]).deletes == 1
    with pytest.raises(NotFoundError, match=r"holds no entry '\.\.'"):
        ask(address, "stored", "songs", "..")


def test_a_write_whose_answer_is_lost_is_repeated_and_written_once(
    ask: Ask, address: str, failing: Failing
) -> None:
    failing.lost = 2
    lost = ask(address, "upsert", "songs", ["lost"], np.ones((1, DIMENSION)))
    assert (lost.repeated, failing.asked) == (True, 3)
    failing.busy = 2
    busy = ask(address, "delete", "songs", ["lost"])
    assert (busy.repeated, busy.deletes, failing.asked) == (False, 1, 6)
    assert busy.generation == lost.generation + 1


def test_after_some_attempts_a_client_gives_up(ask: Ask, address: str, failing: Failing) -> None:
    failing.lost = 3
    with pytest.raises(ReaderUnreachableError):
        ask(address, "delete", "songs", ["a"])
    failing.busy = 3
    with pytest.raises(ReaderBusyError):
        ask(address, "delete", "songs", ["a"])
    assert failing.asked == 6


def test_a_key_of_ones_own_survives_the_program_that_sent_it(ask: Ask, address: str) -> None:
    given = ("songs", ["keyed"], np.ones((1, DIMENSION)))
    first = ask(address, "upsert", *given)
    assert not first.repeated
    key = f"job-{first.generation}"
    done = [ask(address, "upsert", *given, key=key) for _ in range(2)]
    assert [each.repeated for each in done] == [False, True]


def test_what_cannot_be_sent_or_written_is_refused_once(
    ask: Ask, address: str, failing: Failing
) -> None:
    one = np.ones((1, DIMENSION))
    for what, given, named, says in (
        ("upsert", (["a", "b"], one), {}, r"vectors have the shape \(2, d\), not \(1, 3\)"),
        ("upsert", (["a"], one), {"texts": ["a", "b"]}, "1 ids, but 2 texts"),
        ("upsert", (["a"], one), {"payloads": [{1, 2}]}, "this cannot be asked"),
        ("delete", (["a"],), {"wait_seconds": 10}, "wait_seconds=10: less than deadline_seconds"),
    ):
        with pytest.raises(InvalidRequestError, match=says):
            ask(address, what, "songs", *given, **named)
    before = failing.asked
    assert before == 0
    with pytest.raises(InvalidRequestError, match="vector of 2 numbers, where 3 are wanted: row 0"):
        ask(address, "upsert", "songs", ["a"], np.ones((1, 2)))
    with pytest.raises(NotFoundError, match="no collection 'nothing'"):
        ask(address, "delete", "nothing", ["a"])
    assert failing.asked - before == 2


def test_a_wait_that_did_not_come_is_in_the_result(ask: Ask, address: str) -> None:
    late = ask(address, "delete", "songs", ["a"], wait="visible:1", wait_seconds=0)
    assert (late.wait, late.reached) == ("visible:1", False)
    assert late.reason == "this reader serves nothing of it"


def test_a_token_that_may_not_write_is_an_error(ask: Ask, tmp_path: Path) -> None:
    settings = settings_in(tmp_path, tokens={"reads": {"sha256": digest_of(TOKEN)}})
    with (
        running(create_app(Reloader(settings), settings.http)) as client,
        pytest.raises(NotAllowedError, match='whose scope is "write"'),
    ):
        ask(str(client.base_url), "delete", "songs", ["a"], token=TOKEN)
