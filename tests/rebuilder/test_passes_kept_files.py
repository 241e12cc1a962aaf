"""Files that components' keys name: what a rebuilder keeps of them, and what a changed one does."""

import json
from pathlib import Path
from typing import Any

import pytest

from indexrelay.components.golden import KNOWN
from indexrelay.rebuilder.builds.runner import ForkingRunner
from indexrelay.schemas.messages import BuildMode, BuildOutcome
from indexrelay.schemas.parameter_files import FileChangedError, located
from tests.rebuilder.conftest import Bench, MakeBench


def queries(folder: Path, *expected: str) -> None:
    line = {"id": "a", "expected": list(expected)}
    (folder / "queries.jsonl").write_text(json.dumps(line))


def index(folder: Path, **keys: Any) -> dict[str, Any]:
    """A vector index with golden queries, as the settings in ``folder`` are read now."""
    table = {"kind": "vector_index", "from": ["tracks"], "golden": "queries.jsonl", **keys}
    return located(table, folder)


def known(bench: Bench) -> float | None:
    """The share of the expected ids that the released version has."""
    checks = bench.opened("index").manifest.checks
    return next(check.measured for check in checks if check.name == KNOWN)


@pytest.fixture
def bench(make_bench: MakeBench, tmp_path: Path) -> Bench:
    queries(tmp_path, "b", "c")
    bench = make_bench(index=index(tmp_path))
    bench.commit("a", "b", "c")
    bench.rebuild()
    return bench


def taken_up(bench: Bench, **components: dict[str, Any]) -> BuildMode | None:
    """How a rebuilder with these settings builds."""
    rebuilder = bench.another(components=components)
    try:
        result = bench.rebuild(rebuilder).components["index"]
    finally:
        rebuilder.stop()
    assert result.outcome is BuildOutcome.REBUILT
    return result.mode


def test_changed_queries_judge_the_same_files_again(bench: Bench, tmp_path: Path) -> None:
    before = bench.opened("index").manifest
    queries(tmp_path, "b", "nowhere")
    assert taken_up(bench, index=index(tmp_path)) is BuildMode.INCREMENTAL
    after = bench.opened("index").manifest
    assert after.definition != before.definition
    assert after.files == before.files
    assert known(bench) == 0.5


def test_a_new_floor_judges_the_same_files_again(bench: Bench, tmp_path: Path) -> None:
    before = bench.opened("index").manifest
    assert taken_up(bench, index=index(tmp_path, min_ndcg=0.2)) is BuildMode.INCREMENTAL
    assert bench.opened("index").manifest.files == before.files


def test_a_version_below_its_floor_is_not_released_and_the_last_one_serves(
    make_bench: MakeBench, tmp_path: Path
) -> None:
    queries(tmp_path, "b", "c")
    bench = make_bench(index=index(tmp_path, golden_k=1, min_hit_rate=1.0))
    bench.commit("a", "b")
    bench.rebuild()
    good = bench.release().components["index"]
    bench.commit("aa")  # as near, and before the others in the order of the ids
    failed = bench.rebuild().components["index"]
    assert failed.outcome is BuildOutcome.FAILED
    assert "golden_hit_rate: measured 0, limit 1; the golden queries find less" in str(failed.error)
    assert bench.release().components["index"] == good


def test_queries_that_come_and_go_judge_the_same_files_again(bench: Bench, tmp_path: Path) -> None:
    before = bench.opened("index").manifest
    plain = {key: value for key, value in index(tmp_path).items() if key != "golden"}
    assert taken_up(bench, index=plain) is BuildMode.INCREMENTAL
    assert bench.opened("index").manifest.files == before.files
    assert KNOWN not in {check.name for check in bench.opened("index").manifest.checks}
    assert taken_up(bench, index=index(tmp_path)) is BuildMode.INCREMENTAL
    assert known(bench) == 1


def test_another_index_is_built_from_scratch_whatever_the_queries(
    bench: Bench, tmp_path: Path
) -> None:
    queries(tmp_path, "b", "nowhere")
    assert taken_up(bench, index=index(tmp_path, index="Flat")) is BuildMode.FULL
    assert known(bench) == 0.5


def test_another_kind_is_built_from_scratch(bench: Bench) -> None:
    words = {"kind": "text_index", "from": ["tracks"], "allow_empty": True}
    assert taken_up(bench, index=words) is BuildMode.FULL


def test_a_running_rebuilder_goes_on_with_the_queries_of_its_start(
    bench: Bench, tmp_path: Path
) -> None:
    for content in ("not a query at all", None):
        if content is None:
            (tmp_path / "queries.jsonl").unlink()
        else:
            (tmp_path / "queries.jsonl").write_text(content)
        bench.commit(f"d{content}")
        assert bench.rebuild().components["index"].outcome is BuildOutcome.REBUILT
        assert known(bench) == 1


def test_the_copies_are_gone_after_the_build_and_no_manifest_names_them(
    bench: Bench, tmp_path: Path
) -> None:
    assert list((bench.settings.artifacts_dir / "work").iterdir()) == []
    golden = bench.opened("index").manifest.parameters["golden"]
    assert golden == {"file": "queries.jsonl", "sha256": index(tmp_path)["golden"]["sha256"]}


def test_a_rebuilder_does_not_start_with_a_file_that_changed_on_the_way(
    bench: Bench, tmp_path: Path
) -> None:
    read = index(tmp_path)
    queries(tmp_path, "c")
    with pytest.raises(FileChangedError, match=r"queries\.jsonl has changed"):
        bench.another(components={"index": read})


def test_a_build_in_a_child_process_asks_the_queries(make_bench: MakeBench, tmp_path: Path) -> None:
    queries(tmp_path, "b", "nowhere")
    bench = make_bench(index=index(tmp_path))
    bench.commit("a", "b")
    bench.runner = ForkingRunner(preload=["indexrelay.components.vector_index"], threads=1)
    rebuilder = bench.another()
    try:
        queries(tmp_path, "b")
        bench.rebuild(rebuilder)
    finally:
        rebuilder.stop()
    assert known(bench) == 0.5
