"""What a soak says of memory over time."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import cast

import pytest

from faults.soak import KEPT, Soak
from measuring.instances import Instances

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
