"""A rebuilder keeps its leases in time, and takes again what the server lost."""

import threading
from collections.abc import Callable

import pytest

from indexrelay.rebuilder.scheduler import LeaseHeartbeat, Leases
from indexrelay.schemas.clock import Clock, SystemClock
from indexrelay.schemas.settings import RebuilderSettings, Settings
from indexrelay.streams import Connection, Identity, Keys, Lease
from indexrelay.streams.leases import held_leases
from tests.fixtures.logs import capture_logs
from tests.fixtures.servers import ServerFactory
from tests.streams.polling import eventually


def leases(
    connection: Connection,
    keys: Keys,
    owner: str = "me",
    ttl: float = 60.0,
    clock: Clock | None = None,
) -> Leases:
    limits = RebuilderSettings(lease_ttl_seconds=ttl, build_timeout_seconds=100.0)
    settings = Settings(namespace=keys.namespace, rebuilder=limits)
    return Leases(settings, connection, identity=Identity(owner), clock=clock or SystemClock())


def owner_of(connection: Connection, keys: Keys) -> str:
    return held_leases(connection, [keys.lease("index")])[keys.lease("index")].owner


def test_a_lease_that_the_server_lost_is_taken_again(
    each_connection: Connection, keys: Keys
) -> None:
    mine = leases(each_connection, keys)
    assert mine.take("index")
    each_connection.commands.flushall()
    with capture_logs() as logs:
        mine.renew()
    assert owner_of(each_connection, keys).startswith("me:")
    assert [line["event"] for line in logs] == ["lease.taken_again"]
    mine.give_back(["index"])
    assert not each_connection.commands.exists(keys.lease("index"))


@pytest.mark.server
def test_a_server_without_memory_stops_no_build(server_factory: ServerFactory, keys: Keys) -> None:
    """What is refused is free; what another has is another's all the same."""
    with Connection.open(server_factory().url) as connection:
        mine, others = leases(connection, keys), leases(connection, keys, "other")
        assert others.take("theirs")
        connection.commands.config_set("maxmemory", 1)
        assert mine.take("index")
        assert not mine.take("theirs")
        mine.renew()
        mine.give_back(["index"])
        assert connection.commands.exists(keys.lease("index")) == 0


@pytest.mark.server
def test_a_lease_that_a_restarted_server_forgot_is_taken_again(
    server_factory: ServerFactory, keys: Keys
) -> None:
    server = server_factory()
    with Connection.open(server.url) as connection:
        mine = leases(connection, keys)
        assert mine.take("index")
        server.kill()
        server.forget()
        mine.renew()  # nobody there: not lost, for all that is known
        server.start()
        mine.renew()
        assert owner_of(connection, keys).startswith("me:")
        assert not leases(connection, keys, "other").take("index")


def test_a_lease_that_passed_to_another_is_logged_once_and_left_to_them(
    each_connection: Connection, keys: Keys
) -> None:
    mine = leases(each_connection, keys)
    assert mine.take("index")
    each_connection.commands.set(keys.lease("index"), "other")
    with capture_logs() as logs:
        mine.renew()
        mine.renew()
    assert [line["event"] for line in logs] == ["lease.lost"]
    mine.give_back(["index"])
    assert each_connection.commands.get(keys.lease("index")) == b"other"


def test_a_lease_given_back_in_the_middle_of_its_renewal_stays_given_back(
    each_connection: Connection, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = leases(each_connection, keys)
    assert mine.take("index")
    acquire: Callable[[Lease], bool] = Lease.acquire

    def acquire_late(lease: Lease) -> bool:
        mine.give_back(["index"])
        return acquire(lease)

    monkeypatch.setattr(Lease, "acquire", acquire_late)
    each_connection.commands.delete(keys.lease("index"))
    with capture_logs() as logs:
        mine.renew()
    assert not each_connection.commands.exists(keys.lease("index"))
    assert logs == []


def test_a_late_renewal_leaves_the_lease_of_the_next_pass_alone(
    each_connection: Connection, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = leases(each_connection, keys)
    assert mine.take("index")
    acquire: Callable[[Lease], bool] = Lease.acquire

    def acquire_late(lease: Lease) -> bool:
        monkeypatch.setattr(Lease, "acquire", acquire)
        mine.give_back(["index"])
        assert mine.take("index")
        return acquire(lease)

    monkeypatch.setattr(Lease, "acquire", acquire_late)
    each_connection.commands.delete(keys.lease("index"))
    mine.renew()
    assert owner_of(each_connection, keys).startswith("me:")
    mine.give_back(["index"])
    assert not each_connection.commands.exists(keys.lease("index"))


@pytest.mark.server
def test_leases_outlast_their_ttl_while_the_rest_of_the_rebuilder_stands_still(
    real_connection: Connection, keys: Keys
) -> None:
    mine, other = leases(real_connection, keys, ttl=0.5), leases(real_connection, keys, "other")
    assert mine.take("index")
    begun = real_connection.commands.time()[0]
    with LeaseHeartbeat(mine.renew, ttl_seconds=0.5):
        eventually(lambda: real_connection.commands.time()[0] >= begun + 2)
        assert not other.take("index")
    eventually(lambda: other.take("index"))


def test_a_renewal_that_fails_is_not_the_last_one() -> None:
    calls, twice = [0], threading.Event()

    def renew() -> None:
        calls[0] += 1
        if calls[0] == 1:
            raise RuntimeError("of a kind that nobody foresaw")
        twice.set()

    keeper = LeaseHeartbeat(renew, ttl_seconds=0.01)
    with capture_logs() as logs:
        keeper.start()
        assert twice.wait(10)
        keeper.stop()
    assert logs[0]["event"] == "leases.not_renewed"


def test_a_keeper_that_was_stopped_before_its_start_stays_stopped() -> None:
    before = threading.active_count()
    keeper = LeaseHeartbeat(lambda: None, ttl_seconds=600)
    keeper.stop()
    keeper.start()
    assert threading.active_count() == before
    keeper.stop()
