"""What presence and leases may take, and how long they may last."""

from typing import Any, cast

import pytest
from pydantic import ValidationError

from indexrelay.health.redis import LONGEST_LEASES
from indexrelay.schemas.clock import SystemClock
from indexrelay.schemas.messages import ComponentState, LoadOutcome, ReaderState
from indexrelay.schemas.names import split_member_id
from indexrelay.schemas.settings import Settings
from indexrelay.streams import Connection, Keys, Presence
from indexrelay.streams import keys as keys_module
from indexrelay.streams import presence as module
from indexrelay.streams.keys import scan
from indexrelay.streams.leases import held_leases
from indexrelay.streams.presence import members_of
from tests.rebuilder.conftest import Bench, behaving
from tests.security.limits.table import Row, exercises
from tests.storage.artifacts.samples import MovedClock


def readers_of(request: pytest.FixtureRequest) -> tuple[Bench, Presence]:
    make: Any = request.getfixturevalue("make_bench")
    bench: Bench = make(index=behaving("tracks"))
    return bench, Presence(bench.connection, bench.keys, "reader")


@exercises("bytes of one process's presence")
def _state(row: Row, request: pytest.FixtureRequest) -> None:
    bench, readers = readers_of(request)
    for member in ("a", "b"):
        readers.publish(member, b" " * row.number, ttl_seconds=60)
    bench.connection.commands.append(bench.keys.reader("b"), " ")
    look = readers.look()
    assert (list(look.states), list(look.unread)) == (["a"], ["b"])


@exercises("bytes of the presence of all processes under one id")
def _states(row: Row, request: pytest.FixtureRequest) -> None:
    _, readers = readers_of(request)
    fit, more = divmod(row.number, module.MAX_STATE_BYTES)
    assert more == 0
    readers.publish("other", b" " * module.MAX_STATE_BYTES, ttl_seconds=60)
    for number in range(fit + 1):
        readers.publish(f"web:{number:02}", b" " * module.MAX_STATE_BYTES, ttl_seconds=60)
    look = readers.look()
    assert (len(look.states), len(look.unread)) == (fit + 1, 1)
    assert "other" in look.states


def with_fields(member: str, fields: int) -> bytes:
    """A state that says nothing wrong, and has so many colons."""
    label, instance = split_member_id(member)
    now = SystemClock().now().replace(microsecond=0)
    state = ReaderState(
        reader=label, host="h", pid=1, instance=instance, started_at=now, updated_at=now,
        ready=True, release=1,
    )  # fmt: skip
    raw = state.model_dump_json()[:-1] + ',"later":"'
    return f'{raw}{":" * (fields - raw.count(":"))}"}}'.encode()


@exercises("fields of one process's presence (its colons)")
def _fields(row: Row, request: pytest.FixtureRequest) -> None:
    bench, readers = readers_of(request)
    for member, fields in (("a", row.number), ("b", row.number + 1)):
        readers.publish(member, with_fields(member, fields), ttl_seconds=60)
    found = members_of(bench.connection, bench.keys, ReaderState)
    assert (list(found.states), list(found.dropped)) == (["a"], ["b"])


@exercises("fields of the presence of all processes under one id")
def _all_fields(row: Row, request: pytest.FixtureRequest) -> None:
    bench, readers = readers_of(request)
    fit, more = divmod(row.number, module.MAX_STATE_FIELDS)
    assert more == 0
    members = ["other", *(f"web:{number:02}" for number in range(fit + 1))]
    for member in members:
        readers.publish(member, with_fields(member, module.MAX_STATE_FIELDS), ttl_seconds=60)
    found = members_of(bench.connection, bench.keys, ReaderState)
    assert (list(found.states), list(found.dropped)) == (members[:-1], members[-1:])


@exercises("processes under one id that are looked at")
def _members(row: Row, request: pytest.FixtureRequest) -> None:
    _, readers = readers_of(request)
    readers.publish("other", b"x", ttl_seconds=60)
    for number in range(row.number):
        readers.publish(f"web:{number:04}", b"x", ttl_seconds=60)
    roster = readers.members()
    assert (len(roster.ids), roster.crowded) == (row.number + 1, frozenset())
    readers.publish("web:more", b"x", ttl_seconds=60)
    roster = readers.members()
    assert (len(roster.ids), roster.crowded) == (row.number + 1, frozenset({"web"}))
    assert "other" in roster.ids


class EndlessKeys:
    """A server in which keys are added as fast as they are found; a step takes it a while."""

    def __init__(self, clock: MovedClock, *, step_seconds: float) -> None:
        self.commands = self
        self._clock = clock
        self._step_seconds = step_seconds
        self.steps = 0

    def scan(self, _cursor: int, *, match: str, count: int) -> tuple[int, list[bytes]]:
        self.steps += 1
        self._clock.advance(self._step_seconds)
        prefix = match.rstrip("*").rstrip(":")
        return 1, [f"{prefix}:{self.steps:08x}{number:08x}".encode() for number in range(count)]


@exercises("seconds of one look for keys in Redis, to find processes, reports, or what is not ours")
def _look_for_keys(row: Row, request: pytest.FixtureRequest) -> None:
    clock = MovedClock()
    request.getfixturevalue("monkeypatch").setattr(keys_module, "time", clock)
    server = EndlessKeys(clock, step_seconds=row.number / 8)
    connection = cast("Connection", server)
    roster = Presence(connection, Keys("endless"), "reader").members()
    assert (clock.monotonic(), server.steps, roster.cut) == (row.number, 8, True)
    looked = scan(connection, Keys("endless").reports("*"))
    assert next(iter(looked))
    assert not looked.cut
    assert [*looked]
    assert looked.cut


@exercises("seconds that a lease may last, as times `rebuilder.lease_ttl_seconds`")
def _lease(row: Row, request: pytest.FixtureRequest) -> None:
    assert row.number == LONGEST_LEASES
    bench, _ = readers_of(request)
    key, ttl = bench.keys.lease("index"), bench.settings.rebuilder.lease_ttl_seconds
    for times, is_limited in ((row.number, False), (row.number + 1, True)):
        bench.connection.commands.set(key, "somebody", px=round(times * ttl * 1000))
        bench.rebuilder._repair()
        left = held_leases(bench.connection, [key])[key].seconds_left or 0
        assert (left <= ttl) is is_limited


@exercises("seconds for which one process says that it is there")
def _lasting(row: Row, request: pytest.FixtureRequest) -> None:
    for role in ("reader", "rebuilder"):
        Settings.model_validate({role: {"presence_ttl_seconds": row.number}})
        with pytest.raises(ValidationError):
            Settings.model_validate({role: {"presence_ttl_seconds": row.number + 1}})
    bench, readers = readers_of(request)
    readers.publish("web:0a", b"{}", ttl_seconds=row.number)
    readers.publish("web:0b", b"{}", ttl_seconds=row.number + 60)
    bench.rebuilder._check_readers()
    assert bench.connection.commands.ttl(bench.keys.reader("web:0a")) > row.number - 60
    assert bench.connection.commands.ttl(bench.keys.reader("web:0b")) <= 15


@exercises("versions of one component that the processes under one id serve at a time")
def _versions(row: Row, request: pytest.FixtureRequest) -> None:
    bench, _ = readers_of(request)
    now = SystemClock().now()
    for number in range(row.number + 1):
        component = ComponentState(outcome=LoadOutcome.APPLIED, version=f"{number:064x}")
        state = ReaderState(
            reader="web",
            host="h",
            pid=1,
            instance=f"{number:02x}",
            started_at=now,
            updated_at=now,
            ready=True,
            release=1,
            components={"index": component},
        )
        raw = state.model_dump_json().encode()
        Presence(bench.connection, bench.keys, "reader").publish(state.member, raw, ttl_seconds=60)
        served, _ = bench.rebuilder._garbage._served()
        assert len(served) == (number + 1 if number < row.number else 0)
