"""The contract of a kind: its parameters, and the one collection of a job."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest

from indexrelay.components import Built, Check, Job, Kind, KindParameters, UnusableInputError
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
