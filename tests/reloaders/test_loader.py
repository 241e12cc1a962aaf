"""Each changed component is loaded by itself; the good ones flip and the bad ones change nothing.

What a reader keeps, drops and tries again when releases follow each other is held in
`tests/contracts/test_serving_releases.py`.
"""

from pathlib import Path
from typing import Any

import pytest

from indexrelay.schemas.messages import Refusal
from indexrelay.schemas.settings import ComponentDefinition
from tests.fixtures.logs import capture_logs
from tests.reloaders.bench import Bench, make_settings, outcomes, state_of, texts
from tests.reloaders.kinds import WORDS


def _blob_of(bench: Bench, name: str) -> Path:
    (path,) = bench.store.open_version(name, bench.components[name]).files.values()
    return path


def test_the_log_names_each_component_and_sums_up(bench: Bench) -> None:
    first = bench.publish(voyager="v1", clap="c1")
    reader = bench.reader()
    reader.step()
    bench.publish(voyager="rubbish", clap="c2", map="m1")
    with capture_logs() as lines:
        reader.step()
    assert [line["component"] for line in lines if line["event"] == "component.reloaded"] == [
        "clap",
        "map",
    ]
    (failed,) = [line for line in lines if line["event"] == "component.load_failed"]
    assert failed["component"] == "voyager"
    assert failed["serving"] == first.components["voyager"]
    (summary,) = [line for line in lines if line["event"] == "release.applied"]
    assert (summary["succeeded"], summary["failed"]) == (["clap", "map"], ["voyager"])
    assert (summary["release"], summary["log_level"]) == (2, "warning")


def test_a_load_that_failed_for_want_of_memory_is_tried_again_with_growing_waits(
    bench: Bench,
) -> None:
    cause = bench.folder / "cause"
    cause.touch()
    bench.publish(voyager="v1")
    reader = bench.reader()
    reader.step()
    bench.publish(voyager=f"memory {cause}")
    reader.step()
    assert outcomes(reader) == {"voyager": "failed"}
    waits: list[float] = []
    with capture_logs() as lines:
        for _ in range(8):
            before = bench.clock.monotonic()
            while len(lines) == len(waits):
                bench.clock.advance(0.125)
                reader.step()
            waits.append(bench.clock.monotonic() - before)
    for wait, wanted in zip(waits, [1, 2, 4, 8, 16, 32, 60, 60], strict=True):
        assert abs(wait - wanted) <= 0.2 * wanted + 0.125
    cause.unlink()
    bench.clock.advance(72.0)
    assert reader.step()
    assert outcomes(reader) == {"voyager": "applied"}
    assert state_of(reader, "voyager").error is None
    bench.clock.advance(600.0)
    with capture_logs() as lines:
        assert not reader.step()
    assert lines == []


def test_an_error_that_quotes_a_whole_file_is_cut(bench: Bench) -> None:
    bench.publish(voyager="v1", kind="a" * 100_000)
    reader = bench.reader()
    reader.step()
    error = str(state_of(reader, "voyager").error)
    assert error.startswith("KindNotFoundError: kind 'aaa")
    assert len(error) < 1100


def test_a_retry_does_not_call_unchanged_what_was_applied_before(bench: Bench) -> None:
    cause = bench.folder / "cause"
    cause.touch()
    bench.publish(voyager="v1", clap=f"disk {cause}")
    reader = bench.reader()
    reader.step()
    cause.unlink()
    bench.clock.advance(2.0)
    assert reader.step()
    assert outcomes(reader) == {"clap": "applied", "voyager": "applied"}


def test_a_corrupt_blob_is_not_served_and_a_missing_one_is_tried_again(bench: Bench) -> None:
    bench.publish(voyager="v1", clap="c1")
    voyager, clap = _blob_of(bench, "voyager"), _blob_of(bench, "clap")
    voyager.chmod(0o644)
    voyager.write_text("vX")
    hidden = clap.with_suffix(".hidden")
    clap.rename(hidden)
    reader = bench.reader()
    reader.step()
    assert texts(reader) == {}
    assert "BlobCorruptError" in str(state_of(reader, "voyager").error)
    assert "BlobMissingError" in str(state_of(reader, "clap").error)
    assert not reader.ready
    hidden.rename(clap)
    bench.clock.advance(2.0)
    assert reader.step()
    assert texts(reader) == {"clap": "c1"}


def test_a_corrupt_blob_that_was_repaired_is_taken_up_without_another_release(
    bench: Bench,
) -> None:
    bench.publish(voyager="v1")
    blob = _blob_of(bench, "voyager")
    blob.chmod(0o644)
    blob.write_text("vX")
    reader = bench.reader()
    reader.step()
    with capture_logs() as lines:
        bench.clock.advance(3600.0)
        assert not reader.step()
        blob.write_text("vY")  # another one, and no better
        assert not reader.step()
        assert not reader.step()
    events = [line["event"] for line in lines]
    assert events == ["component.files_replaced", "component.load_failed"]
    blob.write_text("v1")
    assert reader.step()
    assert texts(reader) == {"voyager": "v1"}
    assert outcomes(reader) == {"voyager": "applied"}


def test_a_corrupt_manifest_that_was_repaired_is_taken_up(bench: Bench) -> None:
    release = bench.publish(voyager="v1")
    version = release.components["voyager"]
    path = bench.store.root / "versions" / "voyager" / f"{version}.json"
    intact = path.read_bytes()
    path.chmod(0o644)
    path.write_bytes(b"{}")
    reader = bench.reader()
    reader.step()
    bench.clock.advance(3600.0)
    assert not reader.step()
    path.write_bytes(intact)
    assert reader.step()
    assert texts(reader) == {"voyager": "v1"}


def test_a_group_flips_together_or_not_at_all(bench: Bench) -> None:
    groups = {"voyager": "songs", "map": "songs"}
    bench.publish(groups=groups, voyager="v1", map="m1", clap="c1")
    reader = bench.reader()
    reader.step()
    bench.publish(groups=groups, voyager="v2", map="rubbish", clap="c2")
    reader.step()
    assert texts(reader) == {"voyager": "v1", "map": "m1", "clap": "c2"}
    assert outcomes(reader) == {"voyager": "failed", "map": "failed", "clap": "applied"}
    assert state_of(reader, "voyager").error == (
        "waits for map, which failed: group songs flips as a whole"
    )
    bench.publish(groups=groups, map="m3")
    reader.step()
    assert texts(reader) == {"voyager": "v2", "map": "m3", "clap": "c2"}


def test_a_new_group_appears_together_or_not_at_all(bench: Bench) -> None:
    bench.publish(groups={"voyager": "songs", "map": "songs"}, voyager="v1", map="rubbish")
    reader = bench.reader()
    reader.step()
    assert texts(reader) == {}


def test_a_component_leaves_with_the_group_that_it_was_served_in(bench: Bench) -> None:
    groups = {"voyager": "songs", "map": "songs"}
    bench.publish(groups=groups, voyager="v1", map="m1")
    reader = bench.reader()
    reader.step()
    bench.publish(groups=groups, voyager="rubbish")
    bench.drop("map", groups={"voyager": "songs"})
    reader.step()
    assert texts(reader) == {"voyager": "v1", "map": "m1"}
    bench.publish(groups={"voyager": "songs"}, voyager="v3")
    reader.step()
    assert texts(reader) == {"voyager": "v3"}
    assert list(reader.state.components) == ["voyager"]


def test_a_group_with_a_permanent_failure_does_not_keep_the_reader_busy(bench: Bench) -> None:
    cause = bench.folder / "cause"
    cause.touch()
    groups = {"voyager": "songs", "map": "songs"}
    bench.publish(groups=groups, voyager=f"memory {cause}", map="rubbish")
    reader = bench.reader()
    reader.step()
    bench.clock.advance(600.0)
    with capture_logs() as lines:
        assert not reader.step()
    assert lines == []


def test_a_reader_serves_only_what_its_settings_choose(bench: Bench) -> None:
    bench.settings = make_settings(bench.folder, components=("clap",))
    bench.publish(voyager="v1", clap="c1")
    reader = bench.reader()
    reader.step()
    assert texts(reader) == {"clap": "c1"}
    assert list(reader.state.components) == ["clap"]


def test_a_manifest_does_not_choose_what_is_imported(bench: Bench, tmp_path: Path) -> None:
    witness = tmp_path / "imported"
    module = tmp_path / "hostile_kind.py"
    module.write_text(f"import pathlib; pathlib.Path({str(witness)!r}).touch()\nKind = object\n")
    bench.publish(voyager="v1")
    bench.publish(kind="hostile_kind:Kind", clap="c1", stranger="s1")
    reader = bench.reader()
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(tmp_path)
        reader.step()
    assert texts(reader) == {"voyager": "v1"}
    assert "KindNotAllowedError" in str(state_of(reader, "clap").error)
    assert "KindNotAllowedError" in str(state_of(reader, "stranger").error)
    assert not witness.exists()


def test_a_class_that_is_allowed_for_one_component_is_not_allowed_for_another(
    bench: Bench,
) -> None:
    bench.settings = bench.settings.model_copy(
        update={"components": {"voyager": ComponentDefinition.of(WORDS, "tracks")}}
    )
    bench.publish(voyager="v1", clap="c1")
    reader = bench.reader()
    reader.step()
    assert texts(reader) == {"voyager": "v1"}


def test_what_a_newer_release_names_differently_is_superseded_and_comes_first_then(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.publish(clap="c1", map="m1", voyager="v1")
    reader = bench.reader()
    order: list[str] = []
    seen: list[dict[str, str]] = []
    opener = reader._follower._loader._opener
    load = opener.open

    def loading(component: str, version: str, **kept: Any) -> object:
        order.append(component)
        if len(order) == 1:  # while the first is loading, the next release arrives
            bench.publish(clap="c2", voyager="v2")
        return load(component, version, **kept)

    monkeypatch.setattr(opener, "open", loading)
    monkeypatch.setattr(
        reader._reporter,
        "report",
        lambda applied: seen.append(
            {name: state.outcome.value for name, state in applied.components.items()}
        ),
    )
    assert reader.step()
    assert order == ["clap", "map", "voyager", "clap"]
    assert seen == [
        {"clap": "applied", "map": "applied", "voyager": "superseded"},
        {"clap": "applied", "map": "unchanged", "voyager": "applied"},
    ]
    assert texts(reader) == {"clap": "c2", "map": "m1", "voyager": "v2"}


def test_what_the_budget_has_no_room_for_is_loaded_once_others_leave_room(bench: Bench) -> None:
    bench.settings = make_settings(bench.folder, memory_budget_bytes=10)
    bench.publish(clap="c--1", map="m--1")
    reader = bench.reader()
    reader.step()
    bench.publish(clap="c--2", map="m")
    with capture_logs() as lines:
        reader.step()
    assert texts(reader) == {"clap": "c--2", "map": "m"}
    assert "component.load_failed" not in [line["event"] for line in lines]

    bench.publish(map="m--3")
    reader.step()
    bench.publish(clap="c---4")
    reader.step()
    assert outcomes(reader) == {"clap": "failed", "map": "unchanged"}
    assert state_of(reader, "clap").refusal is Refusal.MEMORY
    with capture_logs() as lines:
        bench.release()
        reader.step()
    assert texts(reader) == {"clap": "c--2", "map": "m--3"}
    assert "component.load_failed" not in [line["event"] for line in lines]  # nothing has changed
    bench.drop("map")
    reader.step()  # the release wants the same of clap as before
    assert texts(reader) == {"clap": "c---4"}
    assert state_of(reader, "clap").error is None
