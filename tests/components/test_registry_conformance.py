"""A kind of anybody's is held against the contract: class, files, checks and what it serves."""

# ruff: noqa: ARG002, ARG005 - the contract's arguments, which these kinds have no use for

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import ArrayLike

from indexrelay.components.errors import ContractError
from indexrelay.components.kind import Built, Job, Kind, KindParameters
from indexrelay.components.registry import (
    checked_build,
    checks_of,
    class_mistakes,
    lacks_of,
    loads,
    served,
)
from indexrelay.components.served import Hit
from indexrelay.schemas.versions import BlobRef, Check
from tests.components.jobs import make_job, make_snapshot


class Thing:
    def close(self) -> None:
        """Nothing is open."""


class Fine(Kind[KindParameters, Thing]):
    """Keeps the contract; the others below differ from it in one thing each."""

    def build(self, job: Job) -> Built:
        file = job.workdir / "thing.txt"
        file.write_text("thing")
        return Built(files={"thing.txt": file}, entries=1)

    def verify(self, job: Job, built: Built, files: Mapping[str, Path]) -> Iterable[Check]:
        yield Check(name="there", passed=files["thing.txt"].exists())

    def load(self, files: Mapping[str, Path]) -> Thing:
        return Thing()


class Searching(Thing):
    def search(self, text: str) -> list[Hit]:
        return []


class ByVector(Thing):
    def search(self, vector: object, *, k: int = 10) -> list[Hit]:
        return []


class ByArray(Thing):
    def search(self, query: ArrayLike, *, k: int = 10) -> list[Hit]:
        return []


class ByText(Thing):
    def search(self, query: str, *, k: int = 10) -> list[Hit]:
        return []


def different(**members: Any) -> type[Kind[Any, Any]]:
    """`Fine`, but for these members."""
    return type("Mine", (Fine,), members)


@pytest.fixture
def job(tmp_path: Path) -> Job:
    workdir = tmp_path / "work"
    workdir.mkdir()
    return make_job(workdir, make_snapshot(np.eye(3, dtype=np.float32)))


def unfinished() -> type[Kind[Any, Any]]:
    return type("Mine", (Kind,), {"build": Fine.build})


async def build_later(self: object, job: Job) -> Built:
    await asyncio.sleep(0)
    return Built(files={}, entries=0)


def gives(kind: object) -> Callable[..., Any]:
    def load(self: object, files: Mapping[str, Path]) -> Any:
        raise NotImplementedError

    load.__annotations__["return"] = kind
    return load


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (unfinished(), "Mine lacks load, verify"),
        (different(build=lambda self: None), "Mine.build cannot be called with (job)"),
        (different(verify=lambda self, built: []), "Mine.verify cannot be called with (job, built"),
        (different(load=lambda self, files, more: None), "Mine.load cannot be called with (files)"),
        (
            different(reload=lambda self, files: None),
            "Mine.reload cannot be called with (files, p",
        ),
        (different(lacks=lambda self, host: ()), "Mine.lacks cannot be called with (nothing)"),
        (different(__init__=lambda self: None), "Mine.__init__ cannot be called with (parameters)"),
        (different(build=build_later), "Mine.build is async"),
        (different(load="thing"), "Mine.load is a str, not a method"),
        (different(Parameters=dict), "Mine.Parameters is <class 'dict'>, not derived from"),
        (different(preload="numpy"), "Mine.preload is 'numpy', not a tuple"),
        (different(max_inputs=0), "Mine.max_inputs is 0, not a number from 1"),
        (different(max_inputs=True), "Mine.max_inputs is True, not a number from 1"),
        (
            different(outdated=classmethod(lambda cls: None)),
            "Mine.outdated cannot be called with (manifest)",
        ),
        (different(takes_components=1), "Mine.takes_components is 1, not true or false"),
        (
            different(load=gives(Searching)),
            "Mine.load gives a Searching, whose search cannot be called with (query, k=10)",
        ),
        (
            different(load=gives(ByVector)),
            "Mine.load gives a ByVector, whose search takes a vector, and which lacks search_by_id",
        ),
        (
            different(load=gives(ByArray)),
            "Mine.load gives a ByArray, whose search takes a vector, and which lacks search_by_id",
        ),
        (different(load=gives(dict[str, int])), "Mine.load gives a dict, which has no close()"),
        (different(load=gives(np.ndarray)), "Mine.load gives a ndarray, which has no close()"),
        (different(load=gives(type(None))), "Mine.load gives a NoneType, which has no close()"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_class_that_cannot_be_a_kind_is_refused_before_anything_is_built(
    kind: type[Kind[Any, Any]], said: str
) -> None:
    found = list(class_mistakes(kind))
    assert len(found) == 1
    assert found[0].startswith(said)


@pytest.mark.parametrize(
    "kind",
    [
        Fine,
        different(load=gives(Any)),
        different(load=gives("SomethingElsewhere")),
        different(load=gives(ByText)),
        different(build=staticmethod(lambda job: None), preload=["numpy"]),
        different(__init__=lambda self, parameters, more=1: None),
    ],
)
def test_what_keeps_the_contract_in_its_own_way_is_no_mistake(kind: type[Kind[Any, Any]]) -> None:
    assert list(class_mistakes(kind)) == []


def builds(make: Callable[[Job], Any]) -> Kind[Any, Any]:
    return different(build=lambda self, job: make(job))(KindParameters())


def written(job: Job, name: str = "thing.txt") -> Path:
    file = job.workdir / name
    file.write_text("thing")
    return file


def linked(job: Job) -> Path:
    file = job.workdir / "link"
    file.symlink_to("/etc/hostname")
    return file


BLOB = BlobRef(digest="a" * 64, size=1)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda job: None, r"returned nothing \(None\), not a Built"),
        (lambda job: {"thing.txt": written(job)}, "returned a dict, not a Built"),
        (lambda job: Built(files={}, entries=0), "returned no files"),
        (lambda job: Built(files=None, entries=0), "returned no files"),  # type: ignore[arg-type]
        (lambda job: Built(files={"a": job.workdir / "a"}, entries=0), "there is no such file"),
        (lambda job: Built(files={"a": job.workdir}, entries=0), "there is no such file"),
        (lambda job: Built(files={"a": linked(job)}, entries=0), "there is no such file"),
        (
            lambda job: Built(files={"a": Path("/etc/hostname")}, entries=0),
            "outside of the",
        ),
        (lambda job: Built(files={"a": "/etc/hostname"}, entries=0), "is a str, not a Path"),  # type: ignore[dict-item]
        (lambda job: Built(files={"../a": written(job)}, entries=0), "which is none for a file"),
        (lambda job: Built(files={1: written(job)}, entries=0), "which is none for a file"),  # type: ignore[dict-item]
        (lambda job: Built(files={"a": BLOB}, entries=0), "a blob of no previous version"),
        (lambda job: Built(files={"a": written(job)}, entries=-1), "entries is -1"),
        (lambda job: Built(files={"a": written(job)}, entries=None), "entries is None"),  # type: ignore[arg-type]
        (lambda job: Built(files={"a": written(job)}, entries=True), "entries is True"),
        (lambda job: Built(files={"a": written(job)}, entries=2.0), "entries is 2.0"),  # type: ignore[arg-type]
        (
            lambda job: Built(files={"a": written(job)}, entries=2, counts={"texts": 1.5}),  # type: ignore[dict-item]
            r"counts\['texts'\] is 1.5",
        ),
        (
            lambda job: Built(files={"a": written(job)}, entries=1, details={"a": float("nan")}),
            "details are not JSON",
        ),
        (
            lambda job: Built(files={"a": written(job)}, entries=1, details=["a"]),  # type: ignore[arg-type]
            "details are a list",
        ),
    ],
)
def test_a_build_that_hands_over_no_version_fails(
    job: Job, make: Callable[[Job], Any], said: str
) -> None:
    with pytest.raises(ContractError, match=said):
        checked_build(builds(make), job)


def test_a_count_may_be_any_whole_number(job: Job) -> None:
    built = checked_build(
        builds(lambda job: Built(files={"a": written(job)}, entries=np.int64(3))),  # type: ignore[arg-type]
        job,
    )
    assert (type(built.entries), built.entries) == (int, 3)


def no_check(*_: object) -> Iterable[Check]:
    yield from ()


def one_and_an_error(*_: object) -> Iterable[Check]:
    yield Check(name="there", passed=True)
    raise ValueError("the gate raised")


def ends_the_process(*_: object) -> Iterable[Check]:
    raise SystemExit(3)


UNDECIDED = Check(name="a", passed=True).model_copy(update={"passed": None})
"""Nothing checks what is copied or constructed."""


@pytest.mark.parametrize(
    ("verify", "said"),
    [
        (lambda *_: None, r"returned nothing (None), not the checks"),
        (lambda *_: True, "returned a bool, not the checks"),
        (lambda *_: {}, "returned a dict, not the checks"),
        (lambda *_: "passed", "returned a str, not the checks"),
        (lambda *_: [], "returned no check"),
        (no_check, "returned no check"),
        (lambda *_: [True], "yielded a bool, not a Check"),
        (lambda *_: [None], "yielded nothing (None), not a Check"),
        (lambda *_: [{"name": "a", "passed": True}], "yielded a dict, not a Check"),
        (lambda *_: [UNDECIDED], "a.passed is nothing (None), not a bool"),
        (one_and_an_error, "ValueError: the gate raised"),
        (ends_the_process, "SystemExit: 3"),
    ],
)
def test_a_check_that_returned_nothing_has_failed(
    job: Job, verify: Callable[..., Any], said: str
) -> None:
    kind = different(verify=verify)(KindParameters())
    checks = list(checks_of(kind, job, checked_build(kind, job), {}))
    assert not all(check.passed for check in checks)
    assert said in checks[-1].detail


async def _close_later(self: object) -> None:
    raise AssertionError("nobody awaits it")


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, r"gave nothing \(None\), which has no close"),
        ({"a": 1}, "gave a dict, which has no close"),
        (np.eye(2), "gave a ndarray, which has no close"),
        (Thing, "gave a type, which has no close"),
        (type("Odd", (), {"close": None})(), "gave a Odd, which has no close"),
        (type("Late", (), {"close": _close_later})(), r"gave a Late, whose close\(\) is async"),
    ],
)
def test_what_cannot_be_closed_is_served_to_nobody(job: Job, value: object, said: str) -> None:
    kind = different(load=lambda self, files: value)(KindParameters())
    with pytest.raises(ContractError, match=said):
        served(kind, value)
    check = loads(kind, {})
    assert check is not None
    assert not check.passed
    assert "close()" in check.detail


def test_a_version_that_no_reader_could_load_is_found_where_it_is_built(tmp_path: Path) -> None:
    def load(self: object, files: Mapping[str, Path]) -> Thing:
        raise KeyError("genre")

    kind = different(load=load)(KindParameters())
    check = loads(kind, {})
    assert check is not None
    here = "tests/components/test_registry_conformance.py"
    assert check.detail.startswith(f"KeyError: 'genre' ({here}:")
    assert loads(Fine(KindParameters()), {}) == Check(name="loads", passed=True)


def test_lacks_may_give_any_iterable_or_nothing() -> None:
    def raising(self: object) -> Iterable[str]:
        raise OSError("no such host")

    def lacks(lacks: object) -> list[str]:
        return lacks_of(different(lacks=lacks)(KindParameters()))

    assert lacks(lambda self: None) == []
    assert lacks(lambda self: ["a driver"]) == ["a driver"]
    assert "no such host" in lacks(raising)[0]


def test_a_blob_of_the_previous_version_may_stay(job: Job) -> None:
    previous: Any = type("Previous", (), {"manifest": type("M", (), {"files": {"a": BLOB}})})
    kind = builds(lambda job: Built(files={"a": BLOB}, entries=1))
    assert checked_build(kind, replace(job, previous=previous)).files == {"a": BLOB}
