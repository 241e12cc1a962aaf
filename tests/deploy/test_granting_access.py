"""Each user of the shipped ACL file may do its own work, and nothing else."""

from pathlib import Path

import pytest
from redis.exceptions import AuthenticationError, NoPermissionError, ResponseError

from indexrelay.rebuilder.gc import StreamTrimmer
from indexrelay.schemas.settings import RebuilderSettings, Settings
from indexrelay.streams import (
    ConsumerGroup,
    Identity,
    Keys,
    Lease,
    Presence,
    Tail,
    announce,
    current_release,
    publish,
)
from indexrelay.streams.errors import BackendRefusedError
from indexrelay.streams.leases import held_leases, limit_lease
from indexrelay.streams.repair import WrongKey, find_wrong_keys, repair_key
from indexrelay.streams.retention import (
    backlog,
    group_state,
    held_memory,
    server_memory,
    waiting_entries,
)
from tests.fixtures.acl import NAMESPACE, ConnectAs, client_of


@pytest.fixture
def keys() -> Keys:
    return Keys(NAMESPACE)


def test_a_producer_adds_events_and_reads_presence(connect_as: ConnectAs, keys: Keys) -> None:
    Presence(connect_as("reader_a"), keys, "reader").publish("reader_a", b"{}", ttl_seconds=60)
    Presence(connect_as("rebuilder"), keys, "rebuilder").publish("builder", b"{}", ttl_seconds=60)
    producer = connect_as("producer")
    assert publish(producer, keys.events, b"{}")
    assert Presence(producer, keys, "reader").all() == {"reader_a": b"{}"}
    assert Presence(producer, keys, "rebuilder").all() == {"builder": b"{}"}


def test_a_producer_sees_how_many_events_wait(connect_as: ConnectAs, keys: Keys) -> None:
    rebuilder, producer = connect_as("rebuilder"), connect_as("producer")
    group = ConsumerGroup(rebuilder, keys.events, group="rebuilder", consumer="one")
    group.ensure()
    while group.read(count=100, block_seconds=0):
        pass
    assert backlog(producer, keys.events, "rebuilder", most=0) == 0
    publish(producer, keys.events, b"{}")
    assert backlog(producer, keys.events, "rebuilder", most=0) == 1


def test_a_reader_follows_releases_and_reports(connect_as: ConnectAs, keys: Keys) -> None:
    rebuilder, reader = connect_as("rebuilder"), connect_as("reader_a")
    tail = Tail(reader, keys.reloads)
    tail.read(count=10, block_seconds=0)
    number = current_release(rebuilder, keys) + 1
    assert announce(
        rebuilder, keys, number=number, release_event=b"release", result_event=b"%d" % number
    )
    (delivery,) = tail.read(count=10, block_seconds=1).deliveries
    assert delivery.raw == b"release"
    assert current_release(reader, keys) == number
    assert publish(reader, keys.reports("reader_a"), b"{}", keep_seconds=60)


def test_a_rebuilder_sees_what_reconciling_needs(connect_as: ConnectAs, keys: Keys) -> None:
    rebuilder = connect_as("rebuilder")
    ConsumerGroup(rebuilder, keys.events, group="rebuilder", consumer="one").ensure()
    assert group_state(rebuilder, keys.events, "rebuilder") is not None
    lease = Lease(rebuilder, keys.lease("map"), owner="one", ttl_seconds=60)
    assert lease.acquire()
    limit_lease(rebuilder, keys.lease("map"), ttl_seconds=30)
    assert held_leases(rebuilder, [keys.lease("map")])[keys.lease("map")].owner == "one"
    assert lease.release()


def test_a_rebuilder_looks_at_all_keys_and_sets_aside_what_is_not_ours(
    connect_as: ConnectAs, keys: Keys
) -> None:
    rebuilder = connect_as("rebuilder")
    wrong = WrongKey(key=keys.lease("odd"), found="a string", wanted="something else")
    assert Lease(rebuilder, wrong.key, owner="one", ttl_seconds=60).acquire()
    assert "set aside" in repair_key(rebuilder, keys, wrong, ttl_seconds=60)
    assert find_wrong_keys(rebuilder, keys, RebuilderSettings(), components=["odd"]) == ()
    publish(rebuilder, keys.events, b"{}")
    assert waiting_entries(rebuilder, keys.events, None, most=10) is not None


@pytest.mark.parametrize("user", ["monitor", "operator", "rebuilder", "admin"])
def test_whoever_looks_sees_everything(user: str, connect_as: ConnectAs, keys: Keys) -> None:
    reader, looker = connect_as("reader_a"), connect_as(user)
    publish(reader, keys.reports("reader_a"), b"{}", keep_seconds=60)
    Presence(reader, keys, "reader").publish("reader_a", b"{}", ttl_seconds=60)
    publish(connect_as("producer"), keys.events, b"{}")
    assert list(Presence(looker, keys, "reader").all()) == ["reader_a"]
    assert find_wrong_keys(looker, keys, RebuilderSettings(), components=["map"]) == ()
    assert held_memory(looker, keys)["reader_a"] > 0
    assert server_memory(looker) is not None
    assert looker.eviction_policy() == "noeviction"
    assert current_release(looker, keys) >= 0
    assert waiting_entries(looker, keys.events, None, most=10) is not None
    assert group_state(looker, keys.events, "nobody") is None
    assert held_leases(looker, [keys.lease("map")]) == {}
    Presence(reader, keys, "reader").remove("reader_a")


def test_the_admin_page_wakes_rebuilders_and_announces_what_people_roll_back(
    connect_as: ConnectAs, keys: Keys
) -> None:
    admin = connect_as("admin")
    assert publish(admin, keys.events, b"wake")
    number = current_release(admin, keys) + 1
    event = b"%d" % number
    assert announce(admin, keys, number=number, release_event=event, result_event=event)
    assert current_release(admin, keys) == number
    for key in (keys.release, keys.reloads, keys.lease("map")):
        with pytest.raises(NoPermissionError):
            admin.commands.delete(key)


def test_a_rebuilder_trims_the_streams(connect_as: ConnectAs, keys: Keys) -> None:
    rebuilder = connect_as("rebuilder")
    ConsumerGroup(rebuilder, keys.events, group="rebuilder", consumer="one").ensure()
    publish(connect_as("reader_a"), keys.reports("reader_a"), b"{}")
    settings = Settings.model_validate({"namespace": keys.namespace})
    assert not StreamTrimmer(settings, rebuilder, keys).trim()


def test_a_reader_comes_and_goes(connect_as: ConnectAs, keys: Keys) -> None:
    presence = Presence(connect_as("reader_b"), keys, "reader")
    seen = Presence(connect_as("producer"), keys, "reader")
    first, second = Identity("reader_b").member, Identity("reader_b").member
    for member in (first, second, "reader_b"):  # the last as schema 1.0 wrote it
        presence.publish(member, b"{}", ttl_seconds=60)
        assert member in seen.all()
        presence.remove(member)
        assert member not in seen.all()


def test_a_reader_speaks_for_no_other(connect_as: ConnectAs, keys: Keys) -> None:
    presence = Presence(connect_as("reader_a"), keys, "reader")
    for member in ("reader_b", Identity("reader_b").member):
        with pytest.raises((NoPermissionError, BackendRefusedError)):
            presence.publish(member, b"{}", ttl_seconds=60)
        with pytest.raises((NoPermissionError, BackendRefusedError)):
            presence.remove(member)


def test_a_rebuilder_takes_events_and_holds_leases(connect_as: ConnectAs, keys: Keys) -> None:
    rebuilder = connect_as("rebuilder")
    group = ConsumerGroup(rebuilder, keys.events, group="rebuilder", consumer="builder")
    group.read(count=100, block_seconds=0)
    publish(connect_as("producer"), keys.events, b"event")
    deliveries = group.read(count=100, block_seconds=1)
    assert b"event" in [delivery.raw for delivery in deliveries]
    group.acknowledge([delivery.entry_id for delivery in deliveries])
    lease = Lease(rebuilder, keys.lease("voyager"), owner="builder", ttl_seconds=60)
    assert lease.acquire()
    assert lease.renew()
    assert lease.release()
    publish(rebuilder, keys.events, b"wake")
    publish(rebuilder, keys.results, b"{}")
    presence = Presence(rebuilder, keys, "rebuilder")
    presence.publish("builder", b"{}", ttl_seconds=60)
    presence.remove("builder")
    assert Presence(rebuilder, keys, "reader").all() is not None
    assert rebuilder.commands.info("memory")["maxmemory_policy"] == "noeviction"


def test_the_health_check_may_only_ping(connect_as: ConnectAs, keys: Keys) -> None:
    health = connect_as("health").commands
    assert health.ping()
    with pytest.raises(NoPermissionError):
        health.get(keys.release)


def test_a_script_may_do_no_more_than_its_user(connect_as: ConnectAs, keys: Keys) -> None:
    """So that no function of an operator could do for a reader what it may not do itself."""
    rebuilder = connect_as("rebuilder").commands
    digest = rebuilder.script_load("return redis.call('DEL', KEYS[1])")
    with pytest.raises((NoPermissionError, ResponseError), match=r"permission|can't access"):
        rebuilder.evalsha(digest, 1, keys.release)


@pytest.mark.parametrize(
    ("name", "password"), [(None, None), ("default", ""), ("producer", "wrong"), ("x", "x")]
)
def test_nobody_comes_in_without_a_password(
    name: str | None, password: str | None, guarded_socket: Path
) -> None:
    with (
        client_of(guarded_socket, username=name, password=password) as redis,
        pytest.raises(AuthenticationError),
    ):
        redis.ping()
