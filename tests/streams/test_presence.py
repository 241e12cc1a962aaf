"""Who is there is found by the keys alone, and who stays away is gone after the TTL."""

from datetime import UTC, datetime

import pytest
from redis import Redis

from indexrelay.schemas.messages import ReaderState
from indexrelay.schemas.names import split_member_id
from indexrelay.streams.connection import Connection
from indexrelay.streams.errors import BackendRefusedError, MessageTooLargeError
from indexrelay.streams.keys import Keys
from indexrelay.streams.presence import MAX_STATE_BYTES, Presence, members_of
from tests.fixtures.servers import ServerFactory
from tests.streams.polling import eventually

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def state(member: str) -> ReaderState:
    label, instance = split_member_id(member)
    return ReaderState(
        reader=label, host="h", pid=1, instance=instance, started_at=NOON, updated_at=NOON,
        ready=True, release=1,
    )  # fmt: skip


def test_the_states_of_all_members_are_found(each_connection: Connection, keys: Keys) -> None:
    readers = Presence(each_connection, keys, "reader")
    assert readers.all() == {}
    readers.publish("b", b"\xffstate", ttl_seconds=60)
    readers.publish("a", b"one", ttl_seconds=60)
    readers.publish("a", b"two", ttl_seconds=60)
    assert list(readers.all().items()) == [("a", b"two"), ("b", b"\xffstate")]


def test_processes_under_one_label_stand_side_by_side(
    each_connection: Connection, keys: Keys
) -> None:
    readers = Presence(each_connection, keys, "reader")
    # As schema 1.0 wrote it, two of today, and one that nobody here can read.
    for member in ("web", "web:0a", "web:0b", "other:0c"):
        readers.publish(member, state(member).model_dump_json().encode(), ttl_seconds=60)
    readers.publish("web:alien", b"{}", ttl_seconds=60)
    found = members_of(each_connection, keys, ReaderState).states
    assert {member: each and (each.reader, each.instance) for member, each in found.items()} == {
        "other:0c": ("other", "0c"),
        "web": ("web", ""),
        "web:0a": ("web", "0a"),
        "web:0b": ("web", "0b"),
        "web:alien": None,
    }
    readers.remove("web:0a")
    assert "web:0b" in members_of(each_connection, keys, ReaderState).states


def test_whose_state_it_is_follows_from_the_key_and_not_from_its_content(
    each_connection: Connection, keys: Keys
) -> None:
    readers = Presence(each_connection, keys, "reader")
    readers.publish("web:0a", state("web:0a").model_dump_json().encode(), ttl_seconds=60)
    said = {"web:0b": "victim:0a", "web:0c": "web:0a", "web:0d": "web", "other": "other:0e"}
    for member, name in said.items():
        readers.publish(member, state(name).model_dump_json().encode(), ttl_seconds=60)
    found = members_of(each_connection, keys, ReaderState)
    assert list(found.states) == ["web:0a"]
    assert found.dropped == {
        member: f"its state says that it is {name}" for member, name in said.items()
    }
    assert members_of(each_connection, keys, ReaderState).states == found.states


def test_a_state_that_is_too_large_is_not_read_and_hides_no_other(
    each_connection: Connection, keys: Keys
) -> None:
    readers = Presence(each_connection, keys, "reader")
    largest = state("a").model_dump_json().encode()
    largest += b" " * (MAX_STATE_BYTES - len(largest))
    readers.publish("a", largest, ttl_seconds=60)
    with pytest.raises(MessageTooLargeError, match="1,048,577 bytes"):
        readers.publish("b", largest + b" ", ttl_seconds=60)
    readers.publish("b", largest, ttl_seconds=60)
    each_connection.commands.append(keys.reader("b"), " ")
    found = members_of(each_connection, keys, ReaderState)
    assert list(found.states) == ["a"]
    assert found.dropped == {"b": "its state is larger than 1,048,576 bytes"}


def test_of_states_that_are_too_large_together_the_small_ones_are_read(
    each_connection: Connection, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("indexrelay.streams.presence.MAX_LABEL_BYTES", 100)
    readers = Presence(each_connection, keys, "reader")
    for member, size in {"a:01": 60, "a:02": 30, "a:03": 30, "a:04": 10, "b:05": 90}.items():
        readers.publish(member, b"x" * size, ttl_seconds=60)
    look = readers.look()
    assert list(look.states) == ["a:02", "a:03", "a:04", "b:05"]
    assert look.unread == {"a:01": "the states under its label take more than 100 bytes"}


def test_many_members_under_one_label_hide_none_under_another(
    each_connection: Connection, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    readers = Presence(each_connection, keys, "reader")
    for member in ("a:01", "a:02", "a:03", "b:01", "b"):
        readers.publish(member, b"x", ttl_seconds=60)
    assert not readers.look().crowded
    monkeypatch.setattr("indexrelay.streams.presence.MAX_PROCESSES", 2)
    look = readers.look()
    assert [member.partition(":")[0] for member in look.states] == ["a", "a", "b", "b"]
    assert look.crowded == {"a"}


def test_a_key_of_another_type_hides_no_member(each_connection: Connection, keys: Keys) -> None:
    readers = Presence(each_connection, keys, "reader")
    readers.publish("a", b"x", ttl_seconds=60)
    readers.publish("b", b"x", ttl_seconds=60)
    each_connection.commands.delete(keys.reader("b"))
    each_connection.commands.rpush(keys.reader("b"), "x")
    assert readers.all() == {"a": b"x"}


def test_readers_and_rebuilders_do_not_mix(each_connection: Connection, keys: Keys) -> None:
    Presence(each_connection, keys, "reader").publish("a", b"reads", ttl_seconds=60)
    Presence(each_connection, keys, "rebuilder").publish("a", b"builds", ttl_seconds=60)
    assert Presence(each_connection, keys, "reader").all() == {"a": b"reads"}
    assert Presence(each_connection, keys, "rebuilder").all() == {"a": b"builds"}


def test_namespaces_do_not_mix(each_connection: Connection, keys: Keys) -> None:
    Presence(each_connection, keys, "reader").publish("a", b"x", ttl_seconds=60)
    assert Presence(each_connection, Keys("other"), "reader").all() == {}


def test_a_member_that_leaves_is_gone_at_once(each_connection: Connection, keys: Keys) -> None:
    readers = Presence(each_connection, keys, "reader")
    readers.publish("a", b"x", ttl_seconds=60)
    readers.remove("a")
    readers.remove("a")
    assert readers.all() == {}
    assert each_connection.commands.exists(keys.reader("a")) == 0


def test_a_member_that_stays_away_is_gone_after_its_ttl(
    real_connection: Connection, keys: Keys
) -> None:
    readers = Presence(real_connection, keys, "reader")
    readers.publish("stays", b"x", ttl_seconds=60)
    readers.publish("dies", b"x", ttl_seconds=0.02)
    eventually(lambda: readers.all() == {"stays": b"x"})


def test_a_key_whose_name_is_no_text_or_far_too_long_hides_no_member(
    each_connection: Connection, keys: Keys
) -> None:
    presence = Presence(each_connection, keys, "reader")
    presence.publish("a", b"{}", ttl_seconds=60)
    for name in (b"\xff", b"x" * 5000):
        each_connection.commands.set(keys.reader("").encode() + name, b"{}")
    assert presence.all() == {"a": b"{}"}


def test_a_full_memory_makes_no_member_disappear(server_factory: ServerFactory) -> None:
    keys = Keys("full")
    with Connection.open(server_factory().url) as connection:
        presence = Presence(connection, keys, "reader")
        presence.publish("a", b"before", ttl_seconds=1)
        connection.commands.config_set("maxmemory", 1)
        for member in ("a", "new"):
            with pytest.raises(BackendRefusedError, match="OOM"):
                presence.publish(member, b"after", ttl_seconds=60)
        assert presence.all() == {"a": b"before"}
        assert connection.commands.pttl(keys.reader("a")) > 1000
        connection.commands.config_set("maxmemory", 0)
        presence.publish("a", b"after", ttl_seconds=60)
        assert presence.all() == {"a": b"after"}


def test_looking_writes_nothing(real_connection: Connection, keys: Keys) -> None:
    """A producer's access rights do not let it write presence."""
    readers = Presence(real_connection, keys, "reader")
    readers.publish("a", b"x", ttl_seconds=60)
    commands = real_connection.commands
    commands.acl_setuser(
        "looker", enabled=True, nopass=True, keys=["*"], commands=["+scan", "+getrange", "+auth"]
    )
    with Redis(connection_pool=commands.connection_pool, single_connection_client=True) as single:
        single.execute_command("AUTH", "looker", "any")
        assert Presence(Connection(commands=single, blocking=single), keys, "reader").all() == {
            "a": b"x"
        }
        assert single.connection is not None
        single.connection.disconnect()
    commands.acl_deluser("looker")
