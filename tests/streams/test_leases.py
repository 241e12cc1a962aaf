"""A lease has one owner, and only that one prolongs or ends it."""

import threading

import pytest

from indexrelay.streams.connection import Connection
from indexrelay.streams.errors import BackendRefusedError
from indexrelay.streams.keys import Keys
from indexrelay.streams.leases import Lease, LeaseOwner
from indexrelay.streams.presence import Identity
from tests.streams.polling import eventually


def lease(connection: Connection, keys: Keys, owner: str, *, ttl_seconds: float = 60) -> Lease:
    return Lease(connection, keys.lease("tracks"), owner=owner, ttl_seconds=ttl_seconds)


def test_a_lease_has_one_owner(each_connection: Connection, keys: Keys) -> None:
    assert lease(each_connection, keys, "a").acquire()
    assert not lease(each_connection, keys, "b").acquire()


def test_an_owner_that_acquires_again_prolongs(each_connection: Connection, keys: Keys) -> None:
    assert lease(each_connection, keys, "a", ttl_seconds=10).acquire()
    assert lease(each_connection, keys, "a", ttl_seconds=60).acquire()
    assert each_connection.commands.pttl(keys.lease("tracks")) > 50_000


def test_renewing_prolongs(each_connection: Connection, keys: Keys) -> None:
    assert lease(each_connection, keys, "a", ttl_seconds=10).acquire()
    assert lease(each_connection, keys, "a", ttl_seconds=60).renew()
    assert each_connection.commands.pttl(keys.lease("tracks")) > 50_000


def test_only_the_owner_renews_and_releases(each_connection: Connection, keys: Keys) -> None:
    mine, other = lease(each_connection, keys, "a"), lease(each_connection, keys, "b")
    mine.acquire()
    assert not other.renew()
    assert not other.release()
    assert each_connection.commands.get(keys.lease("tracks")) == b"a"
    assert mine.release()
    assert other.acquire()


def test_a_free_lease_is_neither_renewed_nor_released(
    each_connection: Connection, keys: Keys
) -> None:
    assert not lease(each_connection, keys, "a").renew()
    assert not lease(each_connection, keys, "a").release()
    assert each_connection.commands.exists(keys.lease("tracks")) == 0


def test_a_dead_owners_lease_passes_to_another_for_good(
    real_connection: Connection, keys: Keys
) -> None:
    dead, heir = (
        lease(real_connection, keys, "a", ttl_seconds=0.02),
        lease(real_connection, keys, "b"),
    )
    assert dead.acquire()
    eventually(heir.acquire)
    assert not dead.renew()
    assert not dead.release()
    assert heir.renew()


def test_of_many_that_want_it_at_once_one_gets_it(real_connection: Connection, keys: Keys) -> None:
    won: list[bool] = []
    start = threading.Barrier(8)

    def want(owner: str) -> None:
        start.wait()
        won.append(lease(real_connection, keys, owner).acquire())

    threads = [threading.Thread(target=want, args=(f"owner-{number}",)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(won) == [False] * 7 + [True]


def test_a_full_server_is_an_error_and_not_a_lease(real_connection: Connection, keys: Keys) -> None:
    real_connection.commands.config_set("maxmemory", 1)
    try:
        with pytest.raises(BackendRefusedError) as refused:
            lease(real_connection, keys, "a").acquire()
    finally:
        real_connection.commands.config_set("maxmemory", 0)
    assert refused.value.code == "OOM"


@pytest.mark.parametrize(("owner", "ttl_seconds"), [("", 1.0), ("a", 0.0), ("a", -1.0)])
def test_a_lease_without_owner_or_end_is_refused(
    each_connection: Connection, keys: Keys, owner: str, ttl_seconds: float
) -> None:
    with pytest.raises(ValueError, match=r"owner|ttl_seconds"):
        lease(each_connection, keys, owner, ttl_seconds=ttl_seconds)


def test_an_owner_reads_back_what_it_was_written_as() -> None:
    owner = LeaseOwner.of(Identity("r1"))
    assert LeaseOwner.parse(str(owner)) == owner


def test_another_text_is_an_owner_by_its_label_alone() -> None:
    assert LeaseOwner.parse("elsewhere") == LeaseOwner(label="elsewhere", pid="", instance="")
