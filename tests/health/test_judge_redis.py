"""What is judged of Redis: its memory, its keys, what waits in it, and who holds a lease."""

from dataclasses import replace

import pytest

from indexrelay.health.facts import Untaken
from indexrelay.health.status import Actor, Code
from indexrelay.streams.leases import HeldLease
from indexrelay.streams.repair import WrongKey
from indexrelay.streams.retention import ServerMemory
from tests.health.healthy_facts import (
    Cases,
    check_reported_once,
    codes,
    healthy,
    problems,
    redis,
)

WRONG_KEY = WrongKey(key="{ns}:results", found="a list", wanted="a stream")
CASES: Cases = {
    "a lease without an end": (
        {"redis": redis(leases={"map": HeldLease(owner="r1:2:0a", seconds_left=None)})},
        Code.LEASE_ENDLESS,
        "the lease of map has no end, as no rebuilder takes it",
        "at its next comparison",
        Actor.PROCESS,
    ),
    "a lease that is far too long": (
        {"redis": redis(leases={"map": HeldLease(owner="r1:2:0a", seconds_left=151.0)})},
        Code.LEASE_ENDLESS,
        "the lease of map has 151 s left, as no rebuilder takes it",
        "indexrelay reconcile",
        Actor.PROCESS,
    ),
    "a server without memory that one label takes": (
        {
            "redis": redis(
                memory=ServerMemory(used=250_000_000, limit=256_000_000),
                held={"web": 200_000_000, "other": 1000},
            )
        },
        Code.REDIS_FULL,
        "what is new at that limit; readers that are called web take 200 MB of it",
        "indexrelay repair redis",
        Actor.PERSON,
    ),
    "a server without memory": (
        {"redis": redis(memory=ServerMemory(used=250_000_000, limit=256_000_000))},
        Code.REDIS_FULL,
        "Redis has 250 of 256 MB in use",
        "raise maxmemory",
        Actor.PERSON,
    ),
    "a key that only one reader writes": (
        {"redis": redis(wrong_keys=(replace(WRONG_KEY, key="{ns}:reader:web:0a"),))},
        Code.REDIS_KEY,
        "only readers that are called web write there",
        "who has its password",
        Actor.PROCESS,
    ),
    "events nobody takes": (
        {"redis": redis(untaken=(Untaken(count=4, seconds=31.0),))},
        Code.EVENTS_UNTAKEN,
        "4 event(s) wait for a rebuilder, for 31 s",
        "they run, and read nothing",
        Actor.PERSON,
    ),
    "events that were taken": (
        {"redis": redis(untaken=(Untaken(count=4, seconds=31.0, consumer="gone"),))},
        Code.EVENTS_UNTAKEN,
        "4 event(s) were taken by rebuilder gone, which has been silent for 31 s",
        "the next read of a running rebuilder takes them",
        Actor.PROCESS,
    ),
    "orphaned lease": (
        {"redis": redis(leases={"map": HeldLease(owner="gone:1:a", seconds_left=9.0)})},
        Code.LEASE_ORPHANED,
        "map is leased by a rebuilder that is gone",
        "the lease ends by itself in 9 s",
        Actor.NOBODY,
    ),
    "dead letters": (
        {"dead_letters": 2},
        Code.DEAD_LETTERS,
        "2 event(s) could not be read and are dead letters",
        "indexrelay dead list",
        Actor.PERSON,
    ),
    "key that is not ours": (
        {"redis": redis(wrong_keys=(WRONG_KEY,))},
        Code.REDIS_KEY,
        "the key {ns}:results holds a list, and should hold a stream",
        "indexrelay reconcile",
        Actor.PROCESS,
    ),
    "eviction": (
        {"redis": redis(eviction="allkeys-lru")},
        Code.REDIS_EVICTS,
        "with maxmemory-policy allkeys-lru Redis may drop events",
        "set maxmemory-policy noeviction",
        Actor.PERSON,
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_problem_of_redis_is_reported_once_with_what_to_do_and_who_acts(case: str) -> None:
    check_reported_once(CASES[case])


def test_an_event_or_a_lease_on_its_way_is_no_problem() -> None:
    waiting = (Untaken(count=1, seconds=2.0), Untaken(count=1, seconds=2.0, consumer="r1"))
    leases = {"map": HeldLease(owner="r1:2:a", seconds_left=9.0)}
    assert problems(healthy(redis=redis(untaken=waiting, leases=leases))) == []


def test_what_a_wrong_key_hides_is_unknown_and_never_invented() -> None:
    wrong = WrongKey(key="{ns}:release", found="a list", wanted="a string")
    assert codes(healthy(redis=redis(wrong_keys=(wrong,), announced=0))) == [Code.REDIS_KEY]
