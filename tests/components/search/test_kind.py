"""The kind ``search``: two kinds over one collection, built, verified, loaded as one version."""

from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from indexrelay.components.errors import CorruptFileError, RerankFunctionError
from indexrelay.components.kind import Goal, Improvable
from indexrelay.components.registry import check_kind, class_mistakes, kind_class
from indexrelay.components.search import HybridIndex
from indexrelay.components.search.parts import Part, part_of
from indexrelay.components.text_index import TextIndex, TextIndexParameters
from indexrelay.components.vector_index import VectorIndex, VectorIndexParameters
from indexrelay.schemas.settings import CollectionSettings, ComponentDefinition
from indexrelay.schemas.versions import BlobRef, VersionManifest
from tests.components.jobs import as_previous, make_job, make_manifest, run
from tests.components.search.songs import FIELDS, built, kind_of, songs
from tests.components.test_golden import file_of


def test_it_is_installed_under_its_name_and_keeps_the_contract() -> None:
    assert kind_class("search") is HybridIndex
    assert list(class_mistakes(HybridIndex)) == []


def test_a_version_has_the_files_and_the_gates_of_both_halves(tmp_path: Path) -> None:
    snapshot = songs()
    both = built(tmp_path / "both", snapshot)
    by_vector = VectorIndexParameters.model_validate({"index": "Flat", "filterable": FIELDS})
    vector = run(VectorIndex(by_vector), make_job(tmp_path / "vector", snapshot))
    by_text = TextIndexParameters.model_validate({"filterable": FIELDS})
    text = run(TextIndex(by_text), make_job(tmp_path / "text", snapshot))
    assert set(both.files) == {
        *(f"vector.{name}" for name in vector.files),
        *(f"text.{name}" for name in text.files),
    }
    assert [check.name for check in both.checks] == [
        *(f"vector.{check.name}" for check in vector.checks),
        *(f"text.{check.name}" for check in text.checks),
    ]
    assert both.built.entries == snapshot.count
    assert both.built.counts == {"texts": 200, "payloads": 200}
    columns = [both.files[f"{half}.fields.columns"].read_bytes() for half in ("vector", "text")]
    assert columns[0] == columns[1], "a store keeps them once, under one digest"


def test_what_a_library_reads_unchecked_is_sandboxed_under_its_name_in_the_version() -> None:
    assert HybridIndex.sandboxed == {"vector.base.faiss", "vector.delta.faiss"}


def test_a_small_batch_is_built_incrementally_in_both_halves(tmp_path: Path) -> None:
    first = songs()
    job = make_job(tmp_path / "1", first)
    done = run(kind_of(), job)
    second = first.commit({"new": replace(first.rows["e000000"], text="a green lantern")})
    progress: list[float] = []
    job = make_job(tmp_path / "2", second, previous=as_previous(job, done), progress=progress)
    continued = run(kind_of(), job)
    assert continued.failed == []
    assert continued.built.extends
    assert continued.built.details["build"]["mode"] == "incremental"
    assert isinstance(continued.built.files["vector.base.faiss"], BlobRef)
    assert progress == sorted(progress)
    assert progress[-1] == 1.0
    with closing(kind_of().load(continued.files)) as search:
        assert [hit.id for hit in search.search(text="lantern")] == ["new"]
        assert len(search) == 201


def test_a_half_that_cannot_continue_says_why_and_the_other_continues(tmp_path: Path) -> None:
    first = songs()
    kind = kind_of(vector={"index": "Flat", "max_delta": 0.0})
    job = make_job(tmp_path / "1", first)
    done = run(kind, job)
    second = first.commit({"new": first.rows["e000000"]})
    continued = run(kind, make_job(tmp_path / "2", second, previous=as_previous(job, done)))
    assert continued.failed == []
    assert continued.built.extends, "if a gate fails, all is built from scratch"
    build = continued.built.details["build"]
    assert build["mode"] == "incremental"
    assert "vector full: the delta would be 1" in build["reason"]
    assert "text incremental: few entries changed" in build["reason"]


def test_a_batch_that_changes_nothing_names_every_file_again(tmp_path: Path) -> None:
    first = songs()
    job = make_job(tmp_path / "1", first)
    done = run(kind_of(), job)
    again = first.commit({"e000003": first.rows["e000003"]})
    same = run(kind_of(), make_job(tmp_path / "2", again, previous=as_previous(job, done)))
    assert same.failed == []
    assert all(isinstance(file, BlobRef) for file in same.built.files.values())
    assert same.built.details["build"] == {"mode": "incremental", "reason": "nothing changed"}


@pytest.mark.parametrize("name", ["vector.base.faiss", "text.texts.db"])
def test_a_damaged_file_fails_a_gate_of_its_own_half(tmp_path: Path, name: str) -> None:
    job = make_job(tmp_path, songs())
    kind = kind_of()
    made = kind.build(job)
    files = {each: file for each, file in made.files.items() if isinstance(file, Path)}
    files[name].write_bytes(files[name].read_bytes()[:-100])
    stored = replace(made, files={each: BlobRef(digest="0" * 64, size=1) for each in files})
    failed = [check.name for check in kind.verify(job, stored, files) if not check.passed]
    half = name.partition(".")[0]
    assert f"{half}.reads_back" in failed
    assert {each.partition(".")[0] for each in failed} == {half}


def test_a_version_that_lacks_a_file_is_corrupt(tmp_path: Path) -> None:
    files = built(tmp_path, songs()).files
    del files["text.texts.db"]
    with pytest.raises(CorruptFileError, match=r"texts\.db is corrupt: the version does not have"):
        kind_of().load(files)


def test_the_next_version_shares_the_base_that_is_open(tmp_path: Path) -> None:
    first = songs()
    job = make_job(tmp_path / "1", first)
    done = run(kind_of(), job)
    served = kind_of().load(done.files)
    second = first.commit({"new": first.rows["e000000"]})
    continued = run(kind_of(), make_job(tmp_path / "2", second, previous=as_previous(job, done)))
    with closing(kind_of().reload(continued.files, served)) as following:
        assert following.by_vector.contents.base is served.by_vector.contents.base
        served.close()
        assert "new" in following
        assert len(following.search(vector=first.rows["e000000"].vector, text="sea", k=3)) == 3


def test_a_list_that_names_a_row_that_is_not_there_is_found_by_inspecting(tmp_path: Path) -> None:
    import faiss

    parameters = {"vector": {"index": "IVF4,Flat"}}
    files = built(tmp_path, songs(600), **parameters).files
    base = files["vector.base.faiss"]
    kind = kind_of(**parameters)
    with closing(kind.load(files)) as served:
        kind.inspect(served)
    index: Any = faiss.read_index(str(base))
    rows = faiss.rev_swig_ptr(index.invlists.get_ids(0), index.invlists.list_size(0))
    rows[0] = 10_000_000
    base.unlink()
    faiss.write_index(index, str(base))
    # `load` asks one query, which may or may not meet the row.
    with pytest.raises(CorruptFileError), closing(kind.load(files)) as served:
        kind.inspect(served)


def test_a_version_whose_texts_were_cut_by_an_earlier_analyser_is_outdated(tmp_path: Path) -> None:
    job = make_job(tmp_path, songs())
    manifest = make_manifest(job, run(kind_of(), job))
    assert HybridIndex.outdated(manifest) is None
    details = manifest.details
    details["parts"]["text"]["details"]["analyser"] = "words/0"
    outdated = HybridIndex.outdated(manifest.model_copy(update={"details": details}))
    assert outdated == "text: texts are cut in another way since it was built"


def test_mistakes_in_the_table_of_a_half_name_their_key() -> None:
    definition = ComponentDefinition.of(
        "search", "songs", vector={"index": "IVF"}, text={"tokeniser": "words"}, rerank="mine"
    )
    found = {mistake.key: str(mistake) for mistake in check_kind("find", definition)}
    assert set(found) == {
        "components.find.vector.index",
        "components.find.text.tokeniser",
        "components.find.rerank",
    }
    assert "module:function" in found["components.find.rerank"]


def test_an_index_that_cannot_be_built_is_found_by_trying() -> None:
    collections = {"songs": CollectionSettings(dimension=10)}
    trial = kind_of(vector={"index": "IVF16,PQ4"}).trial(collections)
    assert trial.wrong
    assert trial.wrong[0].startswith("vector: ")


def test_a_rerank_function_that_cannot_be_imported_is_named(tmp_path: Path) -> None:
    kind = kind_of(rerank="no.such.module:score")
    (lack,) = list(kind.lacks())
    assert "function 'no.such.module:score'" in lack
    files = built(tmp_path, songs()).files
    with pytest.raises(RerankFunctionError, match=r"no\.such\.module cannot be imported"):
        kind.load(files)


def test_a_half_is_shown_its_own_version_only(tmp_path: Path) -> None:
    job = make_job(tmp_path, songs())
    manifest = make_manifest(job, run(kind_of(), job))
    text = part_of("text", manifest)
    assert "texts.db" in text.files
    assert "base.faiss" not in text.files
    assert {"count", "found_as_asked"} <= {check.name for check in text.checks}
    assert not {check.name for check in text.checks} & {"dimension", "vector.dimension"}
    assert text.details["tokenizer"] == "words"


def test_golden_queries_ask_both_halves_together(tmp_path: Path) -> None:
    snapshot = songs()
    row = snapshot.rows["e000005"]
    file = file_of(
        tmp_path,
        {"text": row.text, "vector": row.vector.tolist(), "expected": ["e000005"]},
        {"id": "e000001", "expected": ["e000002"]},
    )
    kind = kind_of(golden=file.model_dump(mode="json"))
    done = run(kind, make_job(tmp_path / "work", snapshot))
    assert done.failed == []
    assert done.check("golden_known").measured == 1.0
    assert done.check("golden_hit_rate").measured in (0.5, 1.0)
    assert done.checks[-1].name == "golden_ndcg"


def test_golden_queries_in_the_table_of_a_half_are_a_mistake() -> None:
    definition = ComponentDefinition.of("search", "songs", text={"golden": "queries.jsonl"})
    (mistake,) = check_kind("find", definition)
    assert mistake.key == "components.find.text"
    assert "golden stands beside it: golden queries ask both halves" in str(mistake)


def test_another_rerank_function_needs_no_other_files(tmp_path: Path) -> None:
    assert {"rerank", "rerank_hits"} <= HybridIndex.gate_parameters
    snapshot = songs()
    job = make_job(tmp_path / "1", snapshot)
    done = run(kind_of(), job)
    following = make_job(tmp_path / "2", snapshot, previous=as_previous(job, done))
    again = run(kind_of(rerank="operator:add", rerank_hits=7), following)
    assert again.failed == []
    assert all(isinstance(file, BlobRef) for file in again.built.files.values())


def test_what_is_better_about_a_version_is_asked_of_the_half_that_can_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = make_job(tmp_path, songs())
    manifest = make_manifest(job, run(kind_of(), job))
    better = Improvable(reason="a graph", since={"tracks": 1})

    def improvable(_: type[VectorIndex], seen: VersionManifest) -> Improvable:
        assert seen.files.keys() >= {"base.faiss", "ids.table"}
        return better

    def improves(_: type[VectorIndex], new: VersionManifest, old: VersionManifest) -> bool:
        return new.entries == old.entries == 200

    monkeypatch.setattr(VectorIndex, "improvable", classmethod(improvable))
    monkeypatch.setattr(VectorIndex, "improves", classmethod(improves))
    assert HybridIndex.improvable(manifest) is better
    assert HybridIndex.improves(manifest, manifest)
    assert HybridIndex.has_quick_versions is VectorIndex.has_quick_versions


def test_an_improvement_builds_one_half_from_scratch_and_goes_on_with_the_other(
    tmp_path: Path,
) -> None:
    snapshot = songs()
    job = make_job(tmp_path / "1", snapshot)
    done = run(kind_of(), job)
    improvement = replace(
        make_job(tmp_path / "2", snapshot, previous=as_previous(job, done)),
        goal=Goal.IMPROVEMENT,
        from_scratch=True,
    )
    text = Part("text", TextIndex(TextIndexParameters())).job(improvement)
    assert (text.goal, text.from_scratch) == (Goal.BEST, False)
    built = run(kind_of(), improvement)
    assert built.failed == []
    assert isinstance(built.built.files["text.texts.db"], BlobRef)
