"""What the catalog keeps of what others say: events, requests, dead letters and errors."""

from typing import Any

import pytest

from indexrelay.rebuilder.dead_letters import RetryOutcome, retry_dead_letter
from indexrelay.rebuilder.presence import CorruptionReports
from indexrelay.schemas.clock import SystemClock
from indexrelay.schemas.messages import BatchCompleted, Event
from indexrelay.schemas.names import sha256_hex
from indexrelay.storage.catalog import dead_letters, inbox
from indexrelay.storage.errors import TooManyRequestsError
from indexrelay.testing.clock import FakeClock
from tests.rebuilder.conftest import Bench, behaving
from tests.rebuilder.corruption_reports import state_of
from tests.security.limits.table import Row, exercises


def bench_of(request: pytest.FixtureRequest, **rebuilder: int) -> Bench:
    make: Any = request.getfixturevalue("make_bench")
    bench: Bench = make(index=behaving("tracks"))
    if rebuilder:
        bench.rebuilder = bench.another(rebuilder=rebuilder)
    return bench


def add(bench: Bench, raw: bytes) -> None:
    bench.connection.commands.xadd(bench.keys.events, {"event": raw})


def event(number: int) -> Event:
    data = BatchCompleted(collection="tracks", epoch="e", batch_id=f"b{number}", generation=1)
    return Event.of(data, source="test", time=SystemClock().now(), id=f"e{number}")


@exercises("requests that nobody has answered")
def _requests(row: Row, request: pytest.FixtureRequest) -> None:
    assert row.number == inbox.MAX_OPEN_REQUESTS
    request.getfixturevalue("monkeypatch").setattr(inbox, "MAX_OPEN_REQUESTS", 3)
    rows = bench_of(request).catalog.inbox
    for number in range(3):
        assert rows.request(f"r{number}", components=(), reason="")
    with pytest.raises(TooManyRequestsError, match="see that one runs"):
        rows.request("r3", components=(), reason="")
    assert len(rows.open()) == 3


@exercises("events that the catalog remembers")
def _inbox(_row: Row, request: pytest.FixtureRequest) -> None:
    bench = bench_of(request, max_inbox_rows=3)
    bench.commit("a")
    for number in range(5):
        add(bench, event(number).to_bytes())
    bench.rebuilder._intake.take(block_seconds=0)
    assert [row.event_id for row in bench.catalog.inbox.open()] == ["e0", "e1", "e2"]
    assert bench.rebuild().indexes_rebuilt == ("index",)
    assert bench.catalog.inbox.open() == []
    add(bench, event(5).to_bytes())
    bench.rebuilder._intake.take(block_seconds=0)
    assert [row.event_id for row in bench.catalog.inbox.open()] == ["e5"]


@exercises("bytes of an event that the catalog remembers as it came")
def _body(row: Row, request: pytest.FixtureRequest) -> None:
    bench = bench_of(request)
    for number, size in enumerate((row.number, row.number + 1)):
        raw = event(number).to_bytes()
        filling = b"x" * (size - len(raw) - len(b'"more":"",'))
        add(bench, raw.replace(b"{", b'{"more":"%b",' % filling, 1))
    bench.rebuilder._intake.take(block_seconds=0)
    with bench.catalog._database.read() as connection:
        query = "SELECT length(body) FROM indexrelay_inbox ORDER BY position"
        kept, shortened = connection.exec_driver_sql(query).scalars()
    assert kept == row.number
    assert shortened == len(event(1).to_bytes())


@exercises("dead letters")
def _letters(_row: Row, request: pytest.FixtureRequest) -> None:
    bench = bench_of(request, max_dead_letters=3)
    bench.commit("a")
    for number in range(5):
        add(bench, b"poison %d" % number)
    assert bench.rebuild().indexes_rebuilt == ("index",)
    letters = bench.catalog.dead_letters
    assert [each.raw for each in letters.all()] == [b"poison %d" % number for number in range(3)]
    dropped = letters.dropped()
    assert dropped is not None
    assert dropped.count == 2


@exercises("bytes of a dead letter that are kept")
def _letter(row: Row, request: pytest.FixtureRequest) -> None:
    assert row.number == dead_letters.MAX_KEPT_BYTES
    bench = bench_of(request)
    large = event(0).to_bytes() + b" " * row.number
    add(bench, b"?" * row.number)
    add(bench, b"!" + large)
    bench.rebuilder.step()
    whole, cut = bench.catalog.dead_letters.all()
    assert (whole.whole, whole.size) == (True, row.number)
    assert (cut.whole, cut.size, len(cut.raw)) == (False, len(large) + 1, row.number)
    assert cut.digest == sha256_hex(b"!" + large)
    again = retry_dead_letter(cut.id, catalog=bench.catalog, clock=SystemClock())
    assert again.outcome is RetryOutcome.UNREADABLE
    assert "are kept; drop it" in str(again.reason)


@exercises("characters of the error of a failed build, and of the reason of a hold or a pause")
def _texts(row: Row, request: pytest.FixtureRequest) -> None:
    bench = bench_of(request)
    bench.commit("a")
    bench.rebuild()
    text = "x" * (row.number + 1)
    attempts = bench.catalog.attempts
    attempts.pause("index", text)
    kept = [
        attempts.failed("index", error=text, inputs="", targets={}).error,
        attempts.paused()["index"].reason,
        bench.store.hold("index", reason=text).holds["index"].reason,
        bench.store.lift("index", reason=text).reason,
        bench.store.rollback(1, reason=text).holds["index"].reason,
    ]
    assert [len(each) for each in kept] == [row.number] * len(kept)
    held = bench.store.hold("index", reason="x" * row.number)
    assert held.holds["index"].reason == "x" * row.number


@exercises(
    "seconds until a version is hashed again that a reader says is corrupt, "
    "if it says so in other words"
)
def _doubts(row: Row, request: pytest.FixtureRequest) -> None:
    bench = bench_of(request)
    bench.commit("a")
    bench.rebuild()
    clock = FakeClock(bench.release().created_at)
    doubts = CorruptionReports(bench.store, clock)
    assert doubts.take({"web": state_of(bench, "web", "first")})
    clock.advance(row.number - 1)
    assert not doubts.take({"web": state_of(bench, "web", "second")})
    clock.advance(1)
    assert doubts.take({"web": state_of(bench, "web", "third")})


@exercises("answers to requests that are kept")
def _answers(row: Row, request: pytest.FixtureRequest) -> None:
    assert row.number == inbox.MAX_ANSWERS
    request.getfixturevalue("monkeypatch").setattr(inbox, "MAX_ANSWERS", 3)
    bench = bench_of(request)
    bench.commit("a")
    for number in range(4):
        bench.catalog.inbox.request(f"r{number}", components=("index",), reason="")
        bench.rebuild()
    kept = [bench.catalog.inbox.answer(f"r{number}") for number in range(4)]
    assert [each is not None and each.result is not None for each in kept] == [False] + [True] * 3
    assert all(each is not None and each.finished for each in kept)
