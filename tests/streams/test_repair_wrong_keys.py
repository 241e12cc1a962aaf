"""What somebody may do to a key that he may write: it is found, named, mended, and works again."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from indexrelay.schemas.settings import RebuilderSettings
from indexrelay.streams import Connection, Keys, Presence, publish
from indexrelay.streams import repair as module
from indexrelay.streams.errors import BackendRefusedError, is_transient
from indexrelay.streams.presence import MAX_STATE_BYTES
from indexrelay.streams.repair import ASIDE_SECONDS, WrongKey, find_wrong_keys, repair_key

LIMITS = RebuilderSettings(stream_max_entries=100, history_entries=10)
KEYS = Keys("test")
LAST_ID = b"18446744073709551615-18446744073709551615"
DAY = 86_400_000


def find(connection: Connection) -> list[WrongKey]:
    return list(find_wrong_keys(connection, KEYS, LIMITS, components=["map"]))


@dataclass(frozen=True)
class Harm:
    """One kind of it."""

    do: Callable[[Connection, str], object]
    keys: tuple[str, ...]
    found: str
    said: str


def _add(entry_id: bytes | None, ahead: int = 0) -> Callable[[Connection, str], object]:
    def add(connection: Connection, key: str) -> object:
        given = entry_id or b"%d-7" % (connection.server_milliseconds() + ahead)
        return connection.commands.xadd(key, {"event": "x"}, id=given)

    return add


def _fill(entries: int) -> Callable[[Connection, str], object]:
    def fill(connection: Connection, key: str) -> object:
        with connection.commands.pipeline(transaction=False) as pipeline:
            for _ in range(entries):
                pipeline.xadd(key, {"event": "x"})
            return pipeline.execute()

    return fill


STREAMS = (KEYS.events, KEYS.results, KEYS.reloads, KEYS.reports("web"))
STATES = (KEYS.reader("web:0a"), KEYS.rebuilder("builder:0a"))
HARMS: dict[str, Harm] = {
    "the greatest id": Harm(
        _add(LAST_ID), STREAMS, "the greatest possible id, after which nothing", "set aside"
    ),
    "nearly the greatest id": Harm(
        _add(b"18446744073709551615-1"), STREAMS, "years ahead of the server's clock", "set aside"
    ),
    "an id of tomorrow": Harm(
        _add(None, 3 * DAY), STREAMS, "ids that are 3 days ahead", "set aside"
    ),
    "far too many entries": Harm(_fill(201), STREAMS, "201 entries", "oldest were removed"),
    "another type": Harm(
        lambda connection, key: connection.commands.rpush(key, "x"),
        (*STREAMS, *STATES, KEYS.release, KEYS.lease("map")),
        "a list",
        "set aside",
    ),
    "no number": Harm(
        lambda connection, key: connection.commands.set(key, "ten"),
        (KEYS.release,),
        "'ten'",
        "set aside",
    ),
    "no end": Harm(
        lambda connection, key: connection.commands.set(key, "x"),
        STATES,
        "a value without a TTL",
        "a TTL of 15 s",
    ),
    "a far end": Harm(
        lambda connection, key: connection.commands.set(key, "x", px=400 * DAY),
        STATES,
        "a value with a TTL of 400 days",
        "a TTL of 15 s",
    ),
    "a huge state": Harm(
        lambda connection, key: connection.commands.set(key, b"x" * (MAX_STATE_BYTES + 1), px=DAY),
        STATES,
        "a state of 1,048,577 bytes",
        "deleted",
    ),
}


@pytest.mark.parametrize(
    ("harm", "key"),
    [(name, key) for name, harm in HARMS.items() for key in harm.keys],
    ids=lambda value: value,
)
def test_a_wrong_key_is_named_and_repaired(
    harm: str, key: str, real_connection: Connection
) -> None:
    done = HARMS[harm]
    done.do(real_connection, key)
    [wrong] = find(real_connection)
    assert wrong.key == key
    assert done.found in wrong.found
    assert wrong.label == ("web" if ":web" in key else None)
    assert done.said in repair_key(real_connection, KEYS, wrong, ttl_seconds=15)
    assert find(real_connection) == []


@pytest.mark.parametrize("key", STREAMS)
def test_a_stream_that_could_take_nothing_takes_events_again(
    key: str, real_connection: Connection
) -> None:
    real_connection.commands.xadd(key, {"event": "x"}, id=LAST_ID)
    with pytest.raises(BackendRefusedError, match="greatest possible id") as refused:
        publish(real_connection, key, b"{}")
    assert is_transient(refused.value)
    for wrong in find(real_connection):
        repair_key(real_connection, KEYS, wrong, ttl_seconds=15)
    assert publish(real_connection, key, b"{}")
    aside = KEYS.aside(key)
    assert real_connection.commands.xlen(aside) == 1
    assert 0 < real_connection.commands.ttl(aside) <= ASIDE_SECONDS


def test_ours_is_left_alone(real_connection: Connection) -> None:
    for key in (KEYS.events, KEYS.reloads):
        _fill(199)(real_connection, key)
    for key in (KEYS.results, KEYS.reports("web")):
        _fill(20)(real_connection, key)
    now = real_connection.server_milliseconds()
    real_connection.commands.xadd(KEYS.events, {"event": "x"}, id=f"{now + 200_000}-0")
    presence = Presence(real_connection, KEYS, "reader")
    presence.publish("web:0a", b"x" * MAX_STATE_BYTES, ttl_seconds=3600)
    real_connection.commands.set(KEYS.release, 999_999_999)
    real_connection.commands.set(KEYS.lease("map"), "x", px=1000)
    real_connection.commands.set("foreign", "x")
    assert find(real_connection) == []


def test_what_is_large_is_deleted_and_not_kept_for_a_week(real_connection: Connection) -> None:
    real_connection.commands.rpush(KEYS.release, b"x" * 3_000_000)
    [wrong] = find(real_connection)
    assert "too large to be set aside" in repair_key(real_connection, KEYS, wrong, ttl_seconds=15)
    assert real_connection.commands.dbsize() == 0


def test_far_too_many_members_under_one_label_are_deleted_and_no_others(
    real_connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    presence = Presence(real_connection, KEYS, "reader")
    for label, number in (("web", 5), ("other", 2)):
        for each in range(number):
            presence.publish(f"{label}:{each:02}", b"x" * 60, ttl_seconds=60)
    monkeypatch.setattr(module, "MAX_PROCESSES", 4)
    [many] = find(real_connection)
    assert (many.found, many.label) == ("5 states", "web")
    monkeypatch.setattr(module, "MAX_PROCESSES", 1000)
    monkeypatch.setattr(module, "MAX_STATES_BYTES", 299)
    [much] = find(real_connection)
    assert (much.found, much.key) == ("states of 300 bytes", many.key)
    assert repair_key(real_connection, KEYS, much, ttl_seconds=15).endswith("deleted")
    assert list(presence.all()) == ["other:00", "other:01"]


def test_reports_that_take_far_too_much_are_deleted(
    real_connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_REPORTS_BYTES", 100_000)
    publish(real_connection, KEYS.reports("other"), b"x" * 1000)
    publish(real_connection, KEYS.reports("web"), b"x" * 200_000)
    [wrong] = find(real_connection)
    assert (wrong.label, wrong.wanted) == ("web", "at most 100,000")
    repair_key(real_connection, KEYS, wrong, ttl_seconds=15)
    assert real_connection.commands.exists(KEYS.reports("web")) == 0
