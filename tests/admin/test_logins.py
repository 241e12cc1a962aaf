"""Logins: passwords, how long a wrong name takes, and how often somebody may try."""

import asyncio
import threading
from typing import Any

import pytest

from indexrelay.admin import logins
from indexrelay.admin.logins import (
    FAILURES_OF_ADDRESS,
    FAILURES_OF_USER,
    HASHES,
    MAX_COUNTED,
    LoginLimit,
    Passwords,
    TooManyLoginsError,
    network_of,
    password_hash,
)
from indexrelay.schemas.admin import AdminSettings
from indexrelay.service.problems import RefusedError
from indexrelay.testing.clock import FakeClock
from tests.admin.people import cheap_hash


def passwords(**of: str) -> Passwords:
    return Passwords(
        AdminSettings.model_validate(
            {"users": {name: {"password": known} for name, known in of.items()}}
        ).users
    )


def right(known: Passwords, user: str, password: str) -> bool:
    return asyncio.run(known.are_right(user, password))


def test_a_password_is_right_for_its_user_alone() -> None:
    known = passwords(ada=cheap_hash("correct horse"), ben=cheap_hash("battery staple"))
    assert right(known, "ada", "correct horse")
    assert not right(known, "ada", "battery staple")
    assert not right(known, "eve", "correct horse")
    assert not right(known, "ada", "\ud800")
    assert not right(passwords(), "ada", "correct horse")


def test_a_password_counts_however_its_letters_were_composed() -> None:
    assert right(passwords(ada=cheap_hash("caf\u00e9 noir")), "ada", "cafe\u0301 noir")


def test_the_hash_of_a_password_is_one_that_the_settings_take() -> None:
    known = password_hash("correct horse")
    assert known.startswith("$argon2id$v=19$m=65536,t=3,p=4$")
    assert right(passwords(ada=known), "ada", "correct horse")


def test_a_name_that_nobody_has_costs_what_the_slowest_hash_costs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    checked: list[str] = []

    def verify(known: str, password: str) -> bool:
        checked.append(known)
        return True

    monkeypatch.setattr(logins, "_verify", verify)
    known = passwords(ada=cheap_hash("a"), ben=cheap_hash("b", time_cost=2))
    assert not right(known, "eve", "whatever")
    [decoy] = checked
    assert decoy.startswith("$argon2id$v=19$m=8,t=2,p=1$")


def test_few_hashes_are_made_at_a_time_and_who_waits_too_long_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    running, go_on, most = threading.Semaphore(0), threading.Event(), 0
    now: list[int] = []

    def verify(known: str, password: str) -> bool:
        nonlocal most
        now.append(1)
        most = max(most, len(now))
        running.release()
        assert go_on.wait(30)
        now.pop()
        return True

    monkeypatch.setattr(logins, "_verify", verify)
    monkeypatch.setattr(logins, "WAIT_SECONDS", 0.05)
    known = passwords(ada=cheap_hash("a"))

    async def flood() -> list[Any]:
        tries = [asyncio.create_task(known.are_right("ada", "a")) for _ in range(30)]
        await asyncio.wait(tries[HASHES:])
        go_on.set()
        return await asyncio.gather(*tries, return_exceptions=True)

    found = asyncio.run(flood())
    assert found[:HASHES] == [True] * HASHES
    assert all(isinstance(each, RefusedError) and each.status == 503 for each in found[HASHES:])
    assert most == HASHES


def test_an_address_that_fails_too_often_waits_and_others_do_not() -> None:
    clock = FakeClock()
    limit = LoginLimit(clock)
    for number in range(FAILURES_OF_ADDRESS):
        limit.begin(f"user{number}", "10.0.0.1")
        clock.advance(1)
    with pytest.raises(TooManyLoginsError) as refused:
        limit.begin("ada", "10.0.0.1")
    assert refused.value.headers == {"Retry-After": "50"}
    limit.begin("ada", "10.0.0.2")
    clock.advance(50)
    limit.begin("ada", "10.0.0.1")
    with pytest.raises(TooManyLoginsError):
        limit.begin("ada", "10.0.0.1")


def test_a_name_that_is_tried_from_everywhere_is_refused_but_where_its_user_came_from() -> None:
    clock = FakeClock()
    limit = LoginLimit(clock)
    limit.begin("ada", "192.168.0.7")
    limit.succeeded("ada", "192.168.0.7")
    for number in range(FAILURES_OF_USER):
        limit.begin("ada", f"10.0.0.{number}")
    for name in ("ada", "nobody"):
        if name == "nobody":
            for number in range(FAILURES_OF_USER):
                limit.begin("nobody", f"10.0.1.{number}")
        with pytest.raises(TooManyLoginsError):  # alike, whether there is such a user or not
            limit.begin(name, "10.0.2.1")
    limit.begin("ada", "192.168.0.7")


def test_logins_that_succeed_are_not_counted() -> None:
    limit = LoginLimit(FakeClock())
    for _ in range(10 * FAILURES_OF_USER):
        limit.begin("ada", "10.0.0.1")
        limit.succeeded("ada", "10.0.0.1")


def test_wrong_tokens_from_everywhere_keep_no_token_out() -> None:
    limit = LoginLimit(FakeClock())
    for number in range(2 * FAILURES_OF_USER):
        limit.begin(None, f"10.0.0.{number}")
    limit.begin(None, "10.0.1.1")
    for _ in range(FAILURES_OF_ADDRESS - 1):
        limit.begin(None, "10.0.1.1")
    with pytest.raises(TooManyLoginsError):
        limit.begin(None, "10.0.1.1")


def test_a_login_that_nobody_checked_does_not_count() -> None:
    limit = LoginLimit(FakeClock())
    for _ in range(2 * FAILURES_OF_USER):
        limit.begin("ada", "10.0.0.1")
        limit.unchecked("ada", "10.0.0.1")
    assert len(limit) == 0


def test_what_is_counted_is_bounded() -> None:
    limit = LoginLimit(FakeClock())
    for number in range(MAX_COUNTED + 50):
        limit.begin(f"user{number}", f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}")
    assert len(limit) == 2 * MAX_COUNTED


@pytest.mark.parametrize(
    ("address", "place"),
    [
        ("10.1.2.3", "10.1.2.3"),
        ("2001:db8::1:2:3:4", "2001:db8::/64"),
        ("2001:db8::ffff%eth0", "2001:db8::/64"),
        ("::ffff:10.1.2.3", "10.1.2.3"),
        ("testclient", "testclient"),
    ],
)
def test_a_network_of_ipv6_counts_as_one_place(address: str, place: str) -> None:
    assert network_of(address) == place
