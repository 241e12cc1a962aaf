"""The gates that every component passes: what does not pass them is not released."""

import threading
from pathlib import Path

import pytest

from indexrelay.components.kind import Job, Verdict
from indexrelay.components.vector_index.search import VectorSearch
from indexrelay.rebuilder.builds.gates import left_in_group, own_groups
from indexrelay.schemas.gates import GateSettings
from indexrelay.schemas.messages import BuildMode, RebuildStatus
from tests.rebuilder.conftest import MakeBench, behaving


@pytest.mark.parametrize(
    ("behaviour", "error"),
    [
        ("gate_raises", "gate verify: ValueError: the gate raised"),
        ("gate_fails", "gate taste: measured 0.1, limit 0.9"),
        ("no_check", "gate verify: verify returned no check, so nothing shows that"),
    ],
)
def test_what_does_not_pass_its_gates_is_not_released(
    make_bench: MakeBench, behaviour: str, error: str
) -> None:
    bench = make_bench(index=behaving("tracks", behaviour=behaviour))
    bench.commit("a")
    result = bench.rebuild()
    assert str(result.components["index"].error).startswith(error)
    assert bench.store.newest_release() is None
    assert list(bench.store.root.glob("blobs/sha256/*/*")) == []


def test_losing_most_entries_needs_force(make_bench: MakeBench) -> None:
    bench = make_bench(index=behaving("tracks"))
    bench.commit("a", "b", "c", "d")
    bench.rebuild()
    bench.commit(deletes=("a", "b", "c"))
    result = bench.rebuild()
    assert result.status is RebuildStatus.FAILURE
    assert "1 entries where the last version has 4" in str(result.components["index"].error)
    assert bench.release().number == 1
    bench.catalog.inbox.request("r1", components=("index",), force=True, reason="it is right")
    result = bench.rebuild()
    assert result.status is RebuildStatus.SUCCESS
    assert result.request_ids == ("r1",)
    assert result.components["index"].entries == 1


def vector_index(**gates: object) -> dict[str, object]:
    return {"kind": "vector_index", "from": "tracks", "gates": gates}


def function(name: str) -> str:
    return f"{__name__}:{name}"


def is_content(served: VectorSearch, job: Job) -> bool:
    return len(served) == job.collection.count


def measures(served: VectorSearch, job: Job) -> Verdict:
    return Verdict(passed=False, measured=0.1, limit=0.9, detail="it tastes of yesterday")


def says_no(served: VectorSearch, job: Job) -> bool:
    return False


def says_nothing(served: VectorSearch, job: Job) -> None:
    """As a function of which the last line was forgotten."""


def raises(served: VectorSearch, job: Job) -> bool:
    raise ValueError("no such table")


HANGING = threading.Event()


def hangs(served: VectorSearch, job: Job) -> bool:
    return HANGING.wait()


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("measures", "measured 0.1, limit 0.9; it tastes of yesterday"),
        ("says_no", "it says no, and gives no reason: give a Verdict"),
        ("says_nothing", "it gave nothing, not a Verdict or whether it passes"),
        ("raises", "ValueError: no such table"),
        ("is_missing", "has no function 'is_missing'"),
    ],
)
def test_a_function_of_a_users_own_refuses_a_version(
    make_bench: MakeBench, name: str, error: str
) -> None:
    bench = make_bench(index=vector_index(functions=[function(name)]))
    bench.commit("a")
    failed = str(bench.rebuild().components["index"].error)
    assert failed.startswith(f"gate function {function(name)}: ")
    assert error in failed
    assert bench.store.newest_release() is None


def test_a_function_that_hangs_has_failed(make_bench: MakeBench) -> None:
    gates = {"functions": [function("hangs")], "function_seconds": 0.05}
    bench = make_bench(index=vector_index(**gates))
    bench.commit("a")
    try:
        failed = str(bench.rebuild().components["index"].error)
    finally:
        HANGING.set()
    assert "it took longer than 0.05 s (gates.function_seconds)" in failed
    assert bench.store.newest_release() is None


def test_a_function_that_passes_is_recorded_with_the_version(make_bench: MakeBench) -> None:
    bench = make_bench(index=vector_index(functions=[function("is_content")]))
    bench.commit("a")
    bench.rebuild()
    checks = {check.name: check.passed for check in bench.opened("index").manifest.checks}
    assert checks[f"function {function('is_content')}"]


def test_what_is_only_not_good_enough_is_released_where_the_settings_say_so(
    make_bench: MakeBench,
) -> None:
    gates = {"functions": [function("measures")], "require_validation_pass": False}
    bench = make_bench(index=vector_index(**gates))
    bench.commit("a")
    assert bench.rebuild().status is RebuildStatus.SUCCESS
    checks = {check.name: check for check in bench.opened("index").manifest.checks}
    refused = checks[f"function {function('measures')}"]
    assert (refused.passed, refused.required, refused.refuses) == (False, False, False)
    assert checks["count"].required


def test_what_is_not_whole_is_never_released(make_bench: MakeBench) -> None:
    gates = {"require_validation_pass": False}
    bench = make_bench(index=behaving("tracks", behaviour="gate_fails") | {"gates": gates})
    bench.commit("a")
    assert "gate taste" in str(bench.rebuild().components["index"].error)
    assert bench.store.newest_release() is None


def test_a_collection_that_grew_by_more_than_its_limit_is_refused(make_bench: MakeBench) -> None:
    bench = make_bench(index=vector_index(max_growth=0.5))
    bench.commit("a", "b")
    bench.rebuild()
    bench.commit("c")
    assert bench.rebuild().status is RebuildStatus.SUCCESS
    bench.commit("d", "e")
    error = str(bench.rebuild().components["index"].error)
    assert "5 entries where the last version has 3" in error
    assert bench.release().number == 2


@pytest.mark.parametrize(
    ("setting", "what"), [("min_free_disk", "disk"), ("min_free_memory", "memory")]
)
def test_a_build_from_scratch_without_room_does_not_begin_and_is_retried(
    make_bench: MakeBench, setting: str, what: str
) -> None:
    bench = make_bench(index=vector_index(**{setting: 1e15}))
    bench.commit("a")
    result = bench.rebuild().components["index"]
    # One vector of two floats.
    assert f"bytes of {what} are free, and 8,000,000,000,000,000 are asked for" in str(result.error)
    assert f"gates.{setting}" in str(result.error)
    assert result.transient


def test_a_build_that_continues_the_last_version_is_not_asked_for_room(
    make_bench: MakeBench,
) -> None:
    bench = make_bench(index=vector_index())
    bench.commit(*(f"e{row:02d}" for row in range(20)))
    bench.rebuild()
    narrow = bench.settings.components["index"].model_copy(
        update={"gates": GateSettings(min_free_disk=1e15)}
    )
    other = bench.another(components={"index": narrow.model_dump(by_alias=True)})
    bench.commit("f")
    result = bench.rebuild(other).components["index"]
    assert result.mode is BuildMode.INCREMENTAL


def test_what_a_control_group_leaves_is_its_limit_without_what_cannot_be_dropped(
    tmp_path: Path,
) -> None:
    (tmp_path / "memory.current").write_text("1000\n")
    stat = "anon 300\ninactive_file 500\nactive_file 100\nslab_reclaimable 50\n"
    (tmp_path / "memory.stat").write_text(stat)
    for most, left in (("max\n", None), ("5000\n", 4550), ("400\n", 1)):
        (tmp_path / "memory.max").write_text(most)
        assert left_in_group(tmp_path) == left
    assert left_in_group(tmp_path / "nowhere") is None


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ("0::/a.slice/b.service\n", ["a.slice/b.service", "a.slice", "."]),
        ("0::/\n", ["."]),
        ("4:memory:/old\n", ["."]),
        (None, ["."]),
    ],
)
def test_limits_of_every_control_group_above_are_looked_at(
    tmp_path: Path, said: str | None, found: list[str]
) -> None:
    own = tmp_path / "own"
    if said is not None:
        own.write_text(said)
    groups = own_groups(tmp_path / "cgroup", own=own)
    assert groups == [tmp_path / "cgroup" / each for each in found]
