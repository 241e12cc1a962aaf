"""Who is there is found without a scan, and who stays away is gone after the TTL."""

from datetime import UTC, datetime

from redis import Redis

from indexrelay.schemas.names import split_member_id
from indexrelay.schemas.results import ReaderState
from indexrelay.streams.connection import Connection
from indexrelay.streams.keys import Keys
from indexrelay.streams.presence import Presence, present
from tests.streams.waiting import eventually

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
    found = present(each_connection, keys, "reader", ReaderState)
    assert {member: each and (each.reader, each.instance) for member, each in found.items()} == {
        "other:0c": ("other", "0c"),
        "web": ("web", ""),
        "web:0a": ("web", "0a"),
        "web:0b": ("web", "0b"),
        "web:alien": None,
    }
    readers.remove("web:0a")
    assert "web:0b" in present(each_connection, keys, "reader", ReaderState)


def test_whose_state_it_is_follows_from_the_key_and_not_from_what_it_says(
    each_connection: Connection, keys: Keys
) -> None:
    said = state("victim:0a").model_dump_json().encode()
    Presence(each_connection, keys, "reader").publish("web:0b", said, ttl_seconds=60)
    [found] = present(each_connection, keys, "reader", ReaderState).values()
    assert found is not None
    assert (found.reader, found.instance, found.member) == ("web", "0b", "web:0b")


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
    assert each_connection.commands.exists(keys.readers, keys.reader("a")) == 0


def test_a_member_that_stays_away_is_gone_after_its_ttl(
    real_connection: Connection, keys: Keys
) -> None:
    readers = Presence(real_connection, keys, "reader")
    readers.publish("stays", b"x", ttl_seconds=60)
    readers.publish("dies", b"x", ttl_seconds=0.02)
    eventually(lambda: readers.all() == {"stays": b"x"})


def test_the_index_forgets_members_whose_time_is_over(
    real_connection: Connection, keys: Keys
) -> None:
    readers = Presence(real_connection, keys, "reader")
    readers.publish("dies", b"x", ttl_seconds=0.02)
    eventually(lambda: readers.all() == {})
    assert real_connection.commands.zrange(keys.readers, 0, -1) == [b"dies"]
    readers.publish("comes", b"x", ttl_seconds=60)
    assert real_connection.commands.zrange(keys.readers, 0, -1) == [b"comes"]


def test_an_index_entry_without_a_key_is_nobody(each_connection: Connection, keys: Keys) -> None:
    each_connection.commands.zadd(keys.readers, {"ghost": 9e15})
    assert Presence(each_connection, keys, "reader").all() == {}


def test_a_member_whose_id_is_no_text_hides_nobody(each_connection: Connection, keys: Keys) -> None:
    presence = Presence(each_connection, keys, "reader")
    presence.publish("a", b"{}", ttl_seconds=60)
    each_connection.commands.zadd(keys.readers, {b"\xff": 1e18})
    assert presence.all() == {"a": b"{}"}


def test_looking_writes_nothing(real_connection: Connection, keys: Keys) -> None:
    """A producer's access rights do not let it write presence."""
    readers = Presence(real_connection, keys, "reader")
    readers.publish("a", b"x", ttl_seconds=60)
    commands = real_connection.commands
    commands.acl_setuser(
        "looker", enabled=True, nopass=True, keys=["*"], commands=["+zrange", "+mget", "+auth"]
    )
    with Redis(connection_pool=commands.connection_pool, single_connection_client=True) as single:
        single.execute_command("AUTH", "looker", "any")
        assert Presence(Connection(commands=single, blocking=single), keys, "reader").all() == {
            "a": b"x"
        }
        assert single.connection is not None
        single.connection.disconnect()
    commands.acl_deluser("looker")
