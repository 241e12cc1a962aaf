"""A release is told once, its result once, and its number never falls."""

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from indexrelay.schemas.messages import FIELD
from indexrelay.streams.connection import Connection
from indexrelay.streams.errors import BackendRefusedError
from indexrelay.streams.keys import Keys
from indexrelay.streams.publisher import announce, current_release
from tests.fixtures.servers import fake_connection


def tell(connection: Connection, keys: Keys, number: int, *, result: bytes | None = None) -> bool:
    return announce(
        connection,
        keys,
        number=number,
        release_event=b"release %d" % number,
        result_event=result or b"result %d" % number,
    )


def said(connection: Connection, key: str) -> list[bytes]:
    entries: Any = connection.commands.xrange(key)
    return [fields[FIELD] for _, fields in entries]


def test_nothing_announced_is_release_zero(each_connection: Connection, keys: Keys) -> None:
    assert current_release(each_connection, keys) == 0


def test_an_announcement_writes_message_result_and_number(
    each_connection: Connection, keys: Keys
) -> None:
    assert tell(each_connection, keys, 7) is True
    assert said(each_connection, keys.reloads) == [b"release 7"]
    assert said(each_connection, keys.results) == [b"result 7"]
    assert current_release(each_connection, keys) == 7


def test_a_repeated_announcement_adds_nothing(each_connection: Connection, keys: Keys) -> None:
    assert tell(each_connection, keys, 7)
    assert tell(each_connection, keys, 7) is False
    assert said(each_connection, keys.reloads) == [b"release 7"]
    assert said(each_connection, keys.results) == [b"result 7"]


def test_an_overtaken_release_is_not_announced_but_its_result_is(
    each_connection: Connection, keys: Keys
) -> None:
    tell(each_connection, keys, 10)
    assert tell(each_connection, keys, 9) is False
    assert said(each_connection, keys.reloads) == [b"release 10"]
    assert said(each_connection, keys.results) == [b"result 10", b"result 9"]
    assert current_release(each_connection, keys) == 10


def test_numbers_are_compared_as_numbers(each_connection: Connection, keys: Keys) -> None:
    tell(each_connection, keys, 9)
    assert tell(each_connection, keys, 10)
    assert current_release(each_connection, keys) == 10


def test_the_same_result_for_another_release_is_announced_once(
    each_connection: Connection, keys: Keys
) -> None:
    tell(each_connection, keys, 1, result=b"same")
    assert tell(each_connection, keys, 2, result=b"same")
    assert said(each_connection, keys.results) == [b"same"]


@pytest.mark.parametrize("broken", ["reloads", "results", "release"])
def test_a_refused_announcement_wrote_nothing(
    each_connection: Connection, keys: Keys, broken: str
) -> None:
    each_connection.commands.hset(getattr(keys, broken), "not", "ours")
    with pytest.raises(BackendRefusedError) as refused:
        tell(each_connection, keys, 1)
    assert refused.value.code == "WRONGTYPE"
    assert each_connection.commands.keys() == [getattr(keys, broken).encode()]


def test_a_full_server_refuses_the_whole_announcement(
    real_connection: Connection, keys: Keys
) -> None:
    real_connection.commands.config_set("maxmemory", 1)
    try:
        with pytest.raises(BackendRefusedError) as refused:
            tell(real_connection, keys, 1)
    finally:
        real_connection.commands.config_set("maxmemory", 0)
    assert refused.value.code == "OOM"
    assert real_connection.commands.keys() == []
    assert tell(real_connection, keys, 1)


def test_a_number_that_is_none_is_replaced(each_connection: Connection, keys: Keys) -> None:
    each_connection.commands.set(keys.release, "rubbish")
    assert current_release(each_connection, keys) == 0
    assert tell(each_connection, keys, 3)
    assert current_release(each_connection, keys) == 3


def test_a_server_that_forgot_its_scripts_is_given_them_again(
    real_connection: Connection, keys: Keys
) -> None:
    tell(real_connection, keys, 1)
    real_connection.commands.script_flush()
    assert tell(real_connection, keys, 2)


def test_releases_begin_at_one(each_connection: Connection, keys: Keys) -> None:
    with pytest.raises(ValueError, match="numbered from 1"):
        tell(each_connection, keys, 0)


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(numbers=st.lists(st.integers(1, 12), max_size=20))
def test_in_any_order_releases_are_announced_once_and_strictly_increasing(
    numbers: list[int],
) -> None:
    connection, keys = fake_connection(), Keys("test")
    for number in numbers:
        tell(connection, keys, number)
    told = [int(raw.split()[1]) for raw in said(connection, keys.reloads)]
    assert told == sorted(set(told))
    assert current_release(connection, keys) == max(numbers, default=0) == max(told, default=0)
    assert sorted(said(connection, keys.results)) == sorted({b"result %d" % n for n in numbers})
