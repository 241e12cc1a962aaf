"""The gates of an incremental build fail on corrupt files, and on a base without checks."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.components.vector_index.histories import History, rows, snapshot


@pytest.mark.parametrize(
    "name", ["delta_vectors.npy", "delta_payloads.table", "delta_ids.table", "tombstones.npy"]
)
@pytest.mark.parametrize("keep", [0.0, 0.5])
def test_a_delta_that_was_cut_short_is_not_released(tmp_path: Path, name: str, keep: float) -> None:
    history = History(tmp_path, snapshot())
    done = history.commit(rows(10, seed=3), history.source.ids[:5])
    raw = done.files[name].read_bytes()
    done.files[name].write_bytes(raw[: int(len(raw) * keep)])
    checks = history.kind.verify(history.job, done.built, done.files)
    assert [check.name for check in checks if not check.passed] == ["reads_back"]


def lose_a_tombstone(files: Mapping[str, Path]) -> None:
    np.save(files["tombstones.npy"], np.load(files["tombstones.npy"])[1:])


def bury_another(files: Mapping[str, Path]) -> None:
    tombstones = np.load(files["tombstones.npy"])
    np.save(files["tombstones.npy"], np.append(tombstones[:-1], 900))


def change_a_vector(files: Mapping[str, Path]) -> None:
    vectors = np.load(files["delta_vectors.npy"])
    vectors[3] = -vectors[3]
    np.save(files["delta_vectors.npy"], vectors)


def change_a_payload(files: Mapping[str, Path]) -> None:
    raw = files["delta_payloads.table"].read_bytes()
    files["delta_payloads.table"].write_bytes(raw.replace(b'{"new": 3}', b'{"new": 4}'))


def rename_an_entry(files: Mapping[str, Path]) -> None:
    raw = files["delta_ids.table"].read_bytes()
    files["delta_ids.table"].write_bytes(raw.replace(b"new0003", b"newXXXX"))


def move_the_entries(files: Mapping[str, Path]) -> None:
    places = np.load(files["delta_places.npy"])
    np.save(files["delta_places.npy"], np.full_like(places, 500))


def claim_nearer_neighbours(files: Mapping[str, Path]) -> None:
    with np.load(files["sample.npz"]) as file:
        columns = {name: file[name] for name in file.files}
    columns["distances"] = columns["distances"] - 0.1
    np.savez(files["sample.npz"], **columns)


@pytest.mark.parametrize("second", [False, True])
@pytest.mark.parametrize(
    ("corrupt", "gate"),
    [
        (lose_a_tombstone, "reads_back"),
        (bury_another, "unchanged_kept"),
        (change_a_vector, "changes_match_source"),
        (change_a_payload, "changes_match_source"),
        (rename_an_entry, "changes_match_source"),
        (move_the_entries, "ids_in_order"),
        (claim_nearer_neighbours, "sample_is_exact"),
    ],
)
def test_files_that_differ_from_the_source_fail(
    tmp_path: Path, corrupt: Any, gate: str, second: bool
) -> None:
    history = History(tmp_path, snapshot())
    done = history.commit(rows(10, seed=3), history.source.ids[:5])
    if second:  # the corruption is then to what an earlier batch brought
        done = history.commit(rows(3, seed=4, like="later"), history.source.ids[20:21])
        if gate in {"changes_match_source", "ids_in_order"}:
            gate = "unchanged_kept"
    corrupt(done.files)
    checks = list(history.kind.verify(history.job, done.built, done.files))
    assert gate in [check.name for check in checks if not check.passed]


def test_a_base_without_checks_fails(tmp_path: Path) -> None:
    history = History(tmp_path, snapshot())
    done = history.commit(rows(10, seed=3))
    previous = history.job.previous
    assert previous is not None
    manifest = previous.manifest.model_copy(update={"checks": ()})
    job = replace(history.job, previous=replace(previous, manifest=manifest))
    checks = history.kind.verify(job, done.built, done.files)
    assert [c.name for c in checks if not c.passed] == ["base_was_judged"]
