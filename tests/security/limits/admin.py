"""What strangers may do to the admin page and its logins, and what is kept of them."""

import asyncio
import hashlib
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from fastapi import FastAPI, Response
from fastapi.testclient import TestClient
from pydantic import ValidationError

from indexrelay.admin import logins
from indexrelay.admin.access import ANYONE, Access, LoginRequest, viewer
from indexrelay.admin.app import MAX_BODY_BYTES
from indexrelay.admin.logins import LoginLimit, Passwords, TooManyLoginsError
from indexrelay.admin.service import MAX_CONNECTIONS
from indexrelay.admin.sessions import EndedSessions, Sessions
from indexrelay.admin.stream import EventStream, stream_routes
from indexrelay.schemas.admin import AdminUser
from indexrelay.schemas.settings import Settings
from indexrelay.service.limits import BodyLimit
from indexrelay.service.problems import RefusedError
from indexrelay.storage.audit import AuditLog
from indexrelay.testing.clock import FakeClock
from tests.admin.people import cheap_hash, people
from tests.security.limits.table import Row, exercises
from tests.service.test_connections import POST, Application
from tests.service.transports import Service, receive, status


def _tried(row: Row, who: Callable[[int], tuple[str, str]], *, seconds: float) -> None:
    """So many logins of a row may fail, and one more is refused until the first is so old."""
    clock = FakeClock()
    limit = LoginLimit(clock)
    for number in range(row.number):
        limit.begin(*who(number))
    clock.advance(seconds - 0.1)
    with pytest.raises(TooManyLoginsError):
        limit.begin(*who(row.number))
    clock.advance(0.1)
    limit.begin(*who(row.number))


@exercises(
    "logins to the admin page that failed, from one address (of IPv6 a network of 64 bits) in a "
    "minute"
)
def _by_address(row: Row, _request: pytest.FixtureRequest) -> None:
    _tried(row, lambda number: (f"user{number}", f"2001:db8::{number:x}"), seconds=60)


@exercises("logins that failed for one name in a quarter of an hour")
def _by_name(row: Row, _request: pytest.FixtureRequest) -> None:
    _tried(row, lambda number: ("ada", f"10.0.0.{number}"), seconds=900)


@exercises("addresses, and names, whose failed logins are counted")
def _counted(row: Row, _request: pytest.FixtureRequest) -> None:
    limit = LoginLimit(FakeClock())
    for number in range(row.number):
        limit.begin(f"user{number}", f"10.0.{number >> 8}.{number & 255}")
    assert len(limit) == 2 * row.number
    limit.begin("another", "10.1.0.0")
    assert len(limit) == 2 * row.number


@exercises("password hashes that are made at a time")
def _hashes(row: Row, request: pytest.FixtureRequest) -> None:
    patch = request.getfixturevalue("monkeypatch")
    full, go_on = threading.Barrier(row.number + 1), threading.Event()

    def verify(_known: str, _password: str) -> bool:
        full.wait(30)
        return go_on.wait(30)

    patch.setattr(logins, "_verify", verify)
    patch.setattr(logins, "WAIT_SECONDS", 0.01)

    async def together() -> list[object]:
        known = Passwords({})
        first = [asyncio.create_task(known.are_right("ada", "x")) for _ in range(row.number)]
        await asyncio.to_thread(full.wait, 30)
        (one_more,) = await asyncio.gather(known.are_right("ada", "x"), return_exceptions=True)
        go_on.set()
        await asyncio.gather(*first)
        return [one_more]

    (refused,) = asyncio.run(together())
    assert getattr(refused, "status", None) == 503


@exercises("KiB of memory that a hash in the settings may ask for")
def _memory(row: Row, _request: pytest.FixtureRequest) -> None:
    hashed = cheap_hash("x")
    AdminUser.model_validate({"password": hashed.replace("m=8,", f"m={row.number},")})
    with pytest.raises(ValidationError, match="too much for each login"):
        AdminUser.model_validate({"password": hashed.replace("m=8,", f"m={row.number + 1},")})


@exercises("characters of a password")
def _password(row: Row, _request: pytest.FixtureRequest) -> None:
    _fits(row, lambda text: {"user": "ada", "password": text})


@exercises("characters of a name that somebody logs in by")
def _name(row: Row, _request: pytest.FixtureRequest) -> None:
    _fits(row, lambda text: {"user": text, "password": "x"})


@exercises("characters of a token that somebody logs in by")
def _token(row: Row, _request: pytest.FixtureRequest) -> None:
    _fits(row, lambda text: {"token": text})


def _fits(row: Row, given: Callable[[str], dict[str, str]]) -> None:
    LoginRequest.model_validate(given("x" * row.number))
    with pytest.raises(ValidationError):
        LoginRequest.model_validate(given("x" * (row.number + 1)))


def _sessions(folder: Path, key: str = "hash") -> Sessions:
    clock = FakeClock()
    return Sessions(
        b"k" * 32,
        seconds=3600,
        credential=lambda _kind, _name: key,
        ended=EndedSessions(folder / "ended.json", clock=clock),
        clock=clock,
    )


@exercises("characters of a session's cookie")
def _cookie(row: Row, request: pytest.FixtureRequest) -> None:
    sessions = _sessions(request.getfixturevalue("tmp_path"))
    text = hashlib.shake_256(b"a name").hexdigest(row.number)
    made = [sessions.begin("user", text[:end]) for end in range(1000, 2 * row.number)]
    fits = max((each for each in made if len(each) <= row.number), key=len)
    over = min((each for each in made if len(each) > row.number), key=len)
    assert len(over) - len(fits) < 10
    assert sessions.read(fits) is not None
    assert sessions.read(over) is None


@exercises("sessions that are kept as logged out")
def _ended(row: Row, request: pytest.FixtureRequest) -> None:
    patch, folder = request.getfixturevalue("monkeypatch"), request.getfixturevalue("tmp_path")
    patch.setattr(EndedSessions, "_write", lambda _self: None)
    sessions = _sessions(folder)
    sample = sessions.read(sessions.begin("user", "ada"))
    assert sample is not None
    ended = EndedSessions(folder / "other.json", clock=FakeClock())
    for number in range(row.number):
        ended._ended[f"id{number}"] = sample.ends_at.timestamp() - 1  # as `add` does, one by one
    assert sample not in ended
    ended.add(sample)
    assert len(ended._ended) == 0
    assert ended._floor == sample.began_at.timestamp()


def _refused(row: Row, request: pytest.FixtureRequest, *, places: int) -> int:
    """How many refusals the audit log has of ten more than a row's."""
    folder, clock = request.getfixturevalue("tmp_path"), FakeClock()
    settings = Settings.model_validate({"data_dir": folder, "admin": people()})
    written: list[str] = []

    class Counting(AuditLog):
        def record(self, action: str, **_fields: object) -> None:
            written.append(action)

    access = Access(settings, clock=clock, audit=Counting(folder / "audit"))

    async def refuse() -> None:
        for number in range(row.number + 10):
            await access.record_refusal("admin/ada", f"10.0.0.{number % places}", subject="login")

    asyncio.run(refuse())
    return len(written)


@exercises("refusals of one address that the audit log has in an hour")
def _refusals(row: Row, request: pytest.FixtureRequest) -> None:
    assert _refused(row, request, places=1) == row.number


@exercises("refusals of all addresses that the audit log has in an hour")
def _all_refusals(row: Row, request: pytest.FixtureRequest) -> None:
    assert _refused(row, request, places=250) == row.number


@exercises("bytes of a request's body to the admin page")
def _body(row: Row, _request: pytest.FixtureRequest) -> None:
    async def body() -> None:
        service = Service(BodyLimit(Application(), max_bytes=MAX_BODY_BYTES))
        for more, code in ((0, 200), (1, 413)):
            connection = service.connect()
            receive(connection, POST % (row.number + more))
            if not more:
                receive(connection, b"x" * row.number)
            await service.settle()
            assert status(connection) == code

    asyncio.run(body())


@exercises("connections to the admin page")
def _connections(row: Row, _request: pytest.FixtureRequest) -> None:
    async def body() -> None:
        service = Service(Application(), most=MAX_CONNECTIONS)
        first, *others = [service.connect() for _ in range(row.number)]
        assert not first.closed
        service.connect()
        assert first.aborted
        assert not any(each.closed for each in others)

    asyncio.run(body())


@exercises("streams of changes that pages hold open")
def _streams(row: Row, request: pytest.FixtureRequest) -> None:
    class Crowded(EventStream):
        clients = row.number

        def __len__(self) -> int:
            return self.clients

    clock, folder = FakeClock(), request.getfixturevalue("tmp_path")
    settings = Settings.model_validate({"data_dir": folder})
    events, access = Crowded(clock), Access(settings, clock=clock)
    events.close()  # or a stream that is let in would not end
    app = FastAPI()
    app.include_router(stream_routes(events, lambda: None, access))
    app.add_exception_handler(RefusedError, lambda _asked, error: _refusal(error))
    app.dependency_overrides[viewer] = lambda: ANYONE
    with TestClient(app) as client:
        assert client.get("/stream").status_code == 503
        events.clients -= 1
        assert client.get("/stream").status_code == 200


def _refusal(error: Exception) -> Response:
    assert isinstance(error, RefusedError)
    return Response(status_code=error.status)


@exercises("changes that are kept for pages that come back")
def _changes(row: Row, _request: pytest.FixtureRequest) -> None:
    events = EventStream(FakeClock())
    before = events.number
    events.publish("state", {})
    first = events.number
    for _ in range(row.number - 1):
        events.publish("state", {})
    assert len(events.after(before) or ()) == row.number
    events.publish("state", {})
    assert events.after(before) is None
    assert len(events.after(first) or ()) == row.number


@exercises("bytes of these changes")
def _bytes(row: Row, _request: pytest.FixtureRequest) -> None:
    events = EventStream(FakeClock())
    before = events.number
    events.publish_made("state", lambda _number: "x" * (row.number - 1))
    events.publish_made("state", lambda _number: "x")
    assert len(events.after(before) or ()) == 2
    events.publish_made("state", lambda _number: "x")
    assert events.after(before) is None
