"""What a soak says of memory over time, and of what did not happen in it."""

import random
from collections.abc import Sequence
from types import SimpleNamespace
from typing import cast

import pytest

from faults.soak import KEPT, KILLED, Soak
from measuring.instances import REBUILDER, Instances

MINUTES = 60
MEGABYTE = 1_000_000


def soak_of(megabytes_at_minute: Sequence[float]) -> Soak:
    there = cast("Instances", SimpleNamespace(names=(KEPT,)))
    soak = Soak(there, seconds=60.0 * MINUTES, kill_seconds=30, seed=1)
    soak.memory[KEPT] = [
        (60.0 * minute, int(size * MEGABYTE)) for minute, size in enumerate(megabytes_at_minute)
    ]
    return soak


def test_memory_that_only_grows_while_it_warms_up_is_steady() -> None:
    sizes = [min(100 + 5 * minute, 150) for minute in range(MINUTES + 1)]
    assert soak_of(sizes).growth == pytest.approx(1.0)


def test_memory_that_grows_on_is_seen_and_one_look_at_a_busy_moment_is_not() -> None:
    growing = [100 + minute for minute in range(MINUTES + 1)]
    assert soak_of(growing).growth > 1.3
    busy = [100.0] * MINUTES + [400.0]
    assert soak_of(busy).growth == pytest.approx(1.0)


def test_a_run_without_a_kill_of_each_kind_or_without_a_release_has_shown_nothing() -> None:
    soak = soak_of([100])
    assert soak.unproved(0) == [
        "no instance was killed",
        "the rebuilder was not killed",
        "nothing was released",
    ]
    draw = random.Random(1)
    for _ in range(2):
        soak.kills[soak._next(draw)] += 1
    assert soak.unproved(1) == []
    assert soak.kills.keys() <= {*KILLED, REBUILDER}
    del soak.kills[REBUILDER]
    assert soak.unproved(1) == ["the rebuilder was not killed"]
    short = Soak(soak.there, seconds=30, kill_seconds=30, seed=1)
    assert short.unproved(0) == []
