"""The contract of a kind: its parameters, and the one collection of a job."""

import os
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest

from indexrelay.components import Built, Check, Job, Kind, KindParameters, UnusableInputError, kind
from tests.components.jobs import make_job, make_snapshot


class Size(KindParameters):
    size: int = 1


class LargeSize(Size):
    size: int = 100


class Nothing:
    def close(self) -> None:
        """Nothing is open."""


SizeT = TypeVar("SizeT", bound=Size)


class Sized(Kind[SizeT, Nothing]):
    def build(self, job: Job) -> Built:
        raise NotImplementedError

    def verify(self, job: Job, built: Built, files: Mapping[str, Path]) -> Iterable[Check]:
        raise NotImplementedError

    def load(self, files: Mapping[str, Path]) -> Nothing:
        raise NotImplementedError


class Large(Sized[LargeSize]):
    """Names a model of its own."""


class Larger(Large):
    """Has that of the kind that it derives from."""


class Plain(Sized[Size]):
    Parameters = LargeSize


@pytest.mark.parametrize(
    ("kind", "model"),
    [(Sized, Size), (Large, LargeSize), (Larger, LargeSize), (Plain, LargeSize)],
)
def test_the_model_of_the_parameters_follows_from_the_class(
    kind: type[Kind[Any, Any]], model: type[KindParameters]
) -> None:
    assert kind.Parameters is model


def test_parameters_are_named_before_what_is_served() -> None:
    with pytest.raises(TypeError, match=r"Wrong: write Kind\[PARAMETERS, SERVED\]; Nothing is not"):

        class Wrong(Kind[Nothing, Size]):  # type: ignore[type-var]
            """Has them the other way around."""


def test_the_parameters_of_a_kind_have_their_own_type() -> None:
    assert Large(LargeSize()).parameters.size == 100


def test_a_job_gives_its_one_collection(tmp_path: Path) -> None:
    songs = make_snapshot(np.eye(3, dtype=np.float32), collection="songs")
    artists = make_snapshot(np.eye(3, dtype=np.float32), collection="artists")
    assert make_job(tmp_path, songs).collection is songs
    with pytest.raises(UnusableInputError, match="exactly one collection, not: songs, artists"):
        _ = make_job(tmp_path, songs, artists).collection


@pytest.mark.parametrize(
    ("others", "own", "most", "free"),
    [
        (0.0, 1.0, 4, 4),
        (0.0, 3.0, 2, 2),  # what the build uses itself is free to it
        (1.0, 1.0, 4, 3),
        (0.4, 1.0, 4, 4),
        (3.9, 0.1, 4, 1),
        (4.5, 0.0, 4, 1),  # the counters of the kernel are not exact
    ],
)
def test_a_build_leaves_processors_to_others_that_use_them(
    others: float, own: float, most: int, free: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = iter(
        [
            kind._Look(at=at, processors=4, busy=50 + at * (others + own), own=7 + at * own)
            for at in (0.0, 0.1, 10.0)
        ]
    )
    monkeypatch.setattr(kind._Look, "now", lambda: next(looks))
    load = kind.HostLoad()
    assert load.free_threads(most) == most  # that was too short a time to say
    assert load.free_threads(most) == free


def test_the_kernel_says_what_this_process_and_the_host_used() -> None:
    look = kind._Look.now()
    assert look is not None
    assert look.processors == len(os.sched_getaffinity(0))
    assert 0 < look.own <= time.process_time()
    assert look.busy > 0


def test_where_the_kernel_does_not_say_what_others_use_a_build_has_all_its_threads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(kind._Look, "now", lambda: None)
    assert kind.HostLoad().free_threads(3) == 3
