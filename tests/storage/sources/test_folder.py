import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from indexrelay.schemas.settings import Metric
from indexrelay.storage.catalog import Catalog
from indexrelay.storage.errors import SourceChangedError, SourceError
from tests.storage.rows import ids_of, values_of
from tests.storage.sources.conftest import OpenSource


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "vectors"
    folder.mkdir()
    return folder


def matrix(rows: int, value: float = 1.0, dtype: Any = np.float32) -> Any:
    return np.full((rows, 4), value, dtype)


def test_rows_of_npy_files_are_named_by_stem_and_row_and_come_in_byte_order(
    opened: OpenSource, folder: Path
) -> None:
    np.save(folder / "b.npy", np.arange(48, dtype=np.float64).reshape(12, 4))
    np.save(folder / "a.npy", matrix(2, 7))

    with opened(kind="folder", path=folder).snapshot() as snapshot:
        chunks = list(snapshot.chunks(rows=5))
        assert snapshot.count == 14

    ids = ids_of(chunks)
    assert ids == sorted(ids, key=str.encode)
    assert ids[:5] == ["a:0", "a:1", "b:0", "b:1", "b:10"]
    assert [len(chunk) for chunk in chunks] == [5, 5, 4]
    assert values_of(chunks)["b:11"] == 44.0
    assert all(chunk.vectors.dtype == np.float32 for chunk in chunks)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz_files_bring_their_own_ids_texts_and_payloads(
    opened: OpenSource, folder: Path, save: Any
) -> None:
    save(
        folder / "x.npz",
        vectors=np.arange(12, dtype=np.float16).reshape(3, 4),
        ids=np.array(["zebra", "apfel", "ähre"]),
        texts=np.array(["Z", "", "Ä"]),
        payloads=np.array(['{"n":1}', "", "[2]"]),
    )
    np.save(folder / "m.npy", matrix(1))

    with opened(kind="folder", path=folder).snapshot() as snapshot:
        (chunk,) = snapshot.chunks()
        assert snapshot.changes(0) is None

    assert chunk.ids == ["apfel", "m:0", "zebra", "ähre"]
    assert chunk.texts == [None, None, "Z", "Ä"]
    assert chunk.payloads == [None, None, '{"n":1}', "[2]"]
    assert chunk.vectors[:, 0].tolist() == [4.0, 1.0, 0.0, 8.0]


def test_a_snapshot_can_be_read_twice(opened: OpenSource, folder: Path) -> None:
    np.savez(folder / "x.npz", vectors=matrix(3))

    with opened(kind="folder", path=folder).snapshot() as snapshot:
        assert ids_of(snapshot.chunks()) == ids_of(snapshot.chunks()) == ["x:0", "x:1", "x:2"]


def test_the_folder_is_numbered_once_for_each_look(
    opened: OpenSource, folder: Path, catalog: Catalog
) -> None:
    source = opened(kind="folder", path=folder)
    np.save(folder / "a.npy", matrix(1))
    assert [source.observe(), source.observe()] == [1, 1]

    np.save(folder / "b.npy", matrix(1))
    (folder / ".c.npy").write_bytes(b"passed over")
    (folder / "d.npy.part").write_bytes(b"passed over")
    assert source.observe() == 2

    os.utime(folder / "a.npy", ns=(1, 1))
    with source.snapshot() as snapshot:
        assert (snapshot.generation, snapshot.count) == (3, 2)
        assert snapshot.epoch == catalog.collections.get("tracks").epoch
    (folder / "a.npy").unlink()
    assert source.observe() == 4


def test_a_mark_after_the_snapshot_opened_is_not_covered_by_it(
    opened: OpenSource, folder: Path, catalog: Catalog
) -> None:
    np.save(folder / "a.npy", matrix(1))
    source = opened(kind="folder", path=folder)

    with source.snapshot() as snapshot:
        catalog.entries.mark("tracks", "later")
        assert snapshot.generation == 1
    assert source.observe() == 2


def test_a_file_that_is_written_to_while_it_is_read_is_a_passing_error(
    opened: OpenSource, folder: Path
) -> None:
    np.save(folder / "a.npy", matrix(4))
    source = opened(kind="folder", path=folder)

    with source.snapshot() as snapshot:
        chunks = snapshot.chunks(rows=2)
        next(chunks)
        np.save(folder / "a.npy", matrix(5))
        with pytest.raises(SourceChangedError, match=r"a\.npy was written to while it was read"):
            list(chunks)

    with source.snapshot() as snapshot:
        assert len(ids_of(snapshot.chunks())) == 5


def test_a_snapshot_stays_as_it_was_when_files_come_and_go_and_are_replaced(
    opened: OpenSource, folder: Path
) -> None:
    for name in ("a", "b"):
        np.save(folder / f"{name}.npy", matrix(2))
    np.savez(folder / "c.npz", vectors=matrix(2))
    source = opened(kind="folder", path=folder)

    with source.snapshot() as snapshot:
        before = [(chunk.ids, chunk.vectors.tolist()) for chunk in snapshot.chunks()]
        (folder / "a.npy").unlink()
        np.save(folder / "b.part", matrix(9) + 1)
        (folder / "b.part.npy").replace(folder / "b.npy")
        (folder / "c.npz").write_bytes(b"on its way")
        np.save(folder / "d.npy", matrix(1))
        assert [(chunk.ids, chunk.vectors.tolist()) for chunk in snapshot.chunks()] == before


def test_a_folder_that_changes_while_it_is_opened_is_a_passing_error(
    opened: OpenSource, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.save(folder / "a.npy", matrix(4))
    load = np.lib.format.open_memmap

    def load_while_another_comes(*args: Any, **keywords: Any) -> Any:
        np.save(folder / "b.npy", matrix(1))
        return load(*args, **keywords)

    source = opened(kind="folder", path=folder)
    monkeypatch.setattr(np.lib.format, "open_memmap", load_while_another_comes)
    with pytest.raises(SourceChangedError, match="changed while it was opened"), source.snapshot():
        pass


def test_a_broken_file_in_a_changing_folder_is_a_passing_error(
    opened: OpenSource, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.save(folder / "a.npy", matrix(4))
    whole = (folder / "a.npy").read_bytes()
    (folder / "a.npy").write_bytes(whole[:-1])
    load = np.lib.format.open_memmap

    def load_while_it_is_written(*args: Any, **keywords: Any) -> Any:
        try:
            return load(*args, **keywords)
        finally:
            (folder / "a.npy").write_bytes(whole)

    monkeypatch.setattr(np.lib.format, "open_memmap", load_while_it_is_written)
    source = opened(kind="folder", path=folder)
    with pytest.raises(SourceChangedError), source.snapshot():
        pass
    monkeypatch.undo()
    with source.snapshot() as snapshot:
        assert snapshot.count == 4


def test_an_empty_folder_has_no_rows(opened: OpenSource, folder: Path) -> None:
    with opened(kind="folder", path=folder).snapshot() as snapshot:
        assert snapshot.count == 0
        assert list(snapshot.chunks()) == []


def test_a_missing_folder_is_named(opened: OpenSource, folder: Path) -> None:
    source = opened(kind="folder", path=folder / "gone")
    with pytest.raises(SourceError, match="gone cannot be read: No such file"):
        source.observe()


@pytest.mark.parametrize(
    ("arrays", "problem"),
    [
        ({"vectors": np.zeros((2, 3), np.float32)}, r"shape \(2, 3\).*\(rows, 4\)"),
        ({"vectors": np.zeros(4, np.float32)}, r"shape \(4,\)"),
        ({"vectors": np.zeros((2, 4), np.int32)}, "dtype int32.*floats"),
        ({"other": np.zeros((2, 4))}, "no array 'vectors'"),
        ({"vectors": matrix(2), "ids": np.array([1, 2])}, "ids are of dtype int64"),
        ({"vectors": matrix(2), "ids": np.array(["a"])}, r"ids have shape \(1,\)"),
        ({"vectors": matrix(2), "texts": np.array([["a", "b"]])}, r"texts have shape \(1, 2\)"),
        (
            {"vectors": matrix(1), "ids": np.array([None])},
            "cannot be read: its array 'ids' holds Python objects .* never unpickled",
        ),
        (
            {"vectors": np.array([[None] * 4])},
            "cannot be read: its array 'vectors' holds Python objects .* never unpickled",
        ),
        ({"embeddings": matrix(1)}, "no array 'vectors' in it; it has 'embeddings'"),
        ({"vectors": matrix(1), "texts": np.array([b"a"])}, "texts are of dtype .S1"),
    ],
)
def test_a_file_that_does_not_fit_is_named(
    opened: OpenSource, folder: Path, arrays: dict[str, Any], problem: str
) -> None:
    np.savez(folder / "good.npz", vectors=matrix(1))
    np.savez(folder / "odd.npz", allow_pickle=True, **arrays)

    with (
        pytest.raises(SourceError, match=f"odd.npz: .*{problem}"),
        opened(kind="folder", path=folder).snapshot(),
    ):
        pass


@pytest.mark.parametrize(
    "content", [b"", b"nothing of the kind", b"PK\x03\x04", b"\x93NUMPY\x01\x00"]
)
@pytest.mark.parametrize("name", ["odd.npy", "odd.npz"])
def test_a_file_that_is_no_array_is_named(
    opened: OpenSource, folder: Path, name: str, content: bytes
) -> None:
    (folder / name).write_bytes(content)

    with (
        pytest.raises(SourceError, match=f"{name}: cannot be read"),
        opened(kind="folder", path=folder).snapshot(),
    ):
        pass


def _changed(archive: Path, *, local: int, central: int, value: int) -> None:
    """Set two bytes in the first member's local header and in the central directory."""
    raw = bytearray(archive.read_bytes())
    for signature, offset in ((b"PK\x03\x04", local), (b"PK\x01\x02", central)):
        start = raw.find(signature) + offset
        raw[start : start + 2] = value.to_bytes(2, "little")
    archive.write_bytes(raw)


def _encrypted(folder: Path) -> None:
    np.savez(folder / "odd.npz", vectors=matrix(1))
    _changed(folder / "odd.npz", local=6, central=8, value=1)


def _compressed_otherwise(folder: Path) -> None:
    np.savez(folder / "odd.npz", vectors=matrix(1))
    _changed(folder / "odd.npz", local=8, central=10, value=99)


def _corrupt_within(folder: Path) -> None:
    with zipfile.ZipFile(folder / "odd.npz", "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("vectors.npy", bytes(range(256)))
    raw = bytearray((folder / "odd.npz").read_bytes())
    raw[60:90] = bytes(30)
    (folder / "odd.npz").write_bytes(raw)


def _header_without_end(folder: Path) -> None:
    np.save(folder / "odd.npy", matrix(1))
    raw = (folder / "odd.npy").read_bytes()
    (folder / "odd.npy").write_bytes(raw.replace(b"}", b"{", 1))


@pytest.mark.parametrize(
    "write", [_encrypted, _compressed_otherwise, _corrupt_within, _header_without_end]
)
def test_whatever_a_parser_raises_is_told_of_the_file(
    opened: OpenSource, folder: Path, write: Callable[[Path], None]
) -> None:
    write(folder)
    with (
        pytest.raises(SourceError, match=r"odd\.np[yz]: cannot be read"),
        opened(kind="folder", path=folder).snapshot(),
    ):
        pass


def test_a_file_whose_name_is_no_unicode_is_read_if_its_ids_are(
    opened: OpenSource, folder: Path
) -> None:
    name = os.fsdecode(b"\xff")
    np.savez(folder / f"{name}.npz", vectors=matrix(1), ids=np.array(["a"]))
    with opened(kind="folder", path=folder).snapshot() as snapshot:
        assert ids_of(snapshot.chunks()) == ["a"]
    np.save(folder / f"{name}.npy", matrix(1))  # its ids would be its name and the row
    with pytest.raises(SourceError, match="lone surrogate"):
        _read(opened(kind="folder", path=folder))


def test_a_pickle_is_never_loaded(opened: OpenSource, folder: Path, tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "sprung",))

    np.save(folder / "trap.npy", np.array([[Trap()] * 4], dtype=object), allow_pickle=True)

    with pytest.raises(SourceError), opened(kind="folder", path=folder).snapshot():
        pass
    assert not (tmp_path / "sprung").exists()


def _read(source: Any) -> None:
    with source.snapshot() as snapshot:
        for _ in snapshot.chunks():
            pass


def test_bad_rows_are_named_by_file_and_row(opened: OpenSource, folder: Path) -> None:
    bad = matrix(3)
    bad[1, 2] = np.nan
    np.save(folder / "a.npy", matrix(2))
    np.save(folder / "bad.npy", bad)

    with pytest.raises(SourceError, match=r"'tracks': vector holds NaN.*: bad\.npy row 1$"):
        _read(opened(kind="folder", path=folder))


def test_values_beyond_float32_and_zero_vectors_are_named(opened: OpenSource, folder: Path) -> None:
    source = opened(Metric.COSINE, kind="folder", path=folder)
    np.save(folder / "big.npy", matrix(1, 1e300, np.float64))
    with pytest.raises(SourceError, match=r"longer than.*big\.npy row 0"):
        _read(source)
    np.save(folder / "big.npy", matrix(8, 0))
    with pytest.raises(SourceError, match=r"zero vector.*row 0.*at least 8 rows"):
        _read(source)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_what_float32_would_round_to_zero_is_named_and_not_rounded(
    opened: OpenSource, folder: Path, dtype: Any
) -> None:
    np.save(folder / "small.npy", matrix(1, 1e-40, dtype))
    np.save(folder / "usual.npy", matrix(1))
    with pytest.raises(SourceError, match=r"shorter than 1e-18 and not zero.*small\.npy row 0"):
        _read(opened(kind="folder", path=folder))


def test_endings_are_read_in_either_case_and_what_is_left_out_is_counted_and_named(
    opened: OpenSource, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    np.save(folder / "a.npy", matrix(1))
    (folder / "a.npy").rename(folder / "X.NPY")
    np.savez(folder / "b.npz", vectors=matrix(1), label=np.array(["x"]))
    (folder / "b.npz").rename(folder / "Y.Npz")
    source = opened(kind="folder", path=folder)
    for name in (".hidden.npy", "next.npy.part", "next.tmp"):  # on their way
        (folder / name).touch()
    with source.snapshot() as snapshot:
        assert ids_of(snapshot.chunks()) == ["X:0", "Y:0"]
        assert snapshot.left_out == {"other_arrays": 1}
    for name in ("2025", "2026"):
        (folder / name).mkdir()
        np.save(folder / name / "c.npy", matrix(1))
    for name in ("notes.txt", "d.npy.gz", "e.pkl"):
        (folder / name).touch()
    caplog.clear()
    assert source.left_out() == {"subfolders": 2, "other_files": 3}
    with source.snapshot() as snapshot:
        assert snapshot.left_out == {"subfolders": 2, "other_files": 3, "other_arrays": 1}
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    for said in ("source.left_out", "tracks", "2025", "2026", "d.npy.gz", "Y.Npz: label"):
        assert said in record.getMessage()


def test_a_file_that_is_cut_short_is_said_to_be(opened: OpenSource, folder: Path) -> None:
    np.savez(folder / "odd.npz", vectors=matrix(100))
    whole = (folder / "odd.npz").read_bytes()
    (folder / "odd.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SourceError, match=r"odd\.npz: cannot be read: .* cut short"):
        _read(opened(kind="folder", path=folder))
    (folder / "odd.npz").unlink()
    np.save(folder / "odd.npy", matrix(100))
    whole = (folder / "odd.npy").read_bytes()
    (folder / "odd.npy").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SourceError, match=r"odd\.npy: cannot be read: .* bytes"):
        _read(opened(kind="folder", path=folder))


def test_an_id_in_two_files_is_named_with_both(opened: OpenSource, folder: Path) -> None:
    np.save(folder / "a.npy", matrix(2))
    np.savez(folder / "b.npz", vectors=matrix(2), ids=np.array(["x", "a:1"]))

    with pytest.raises(SourceError, match=r"'a:1' is given twice: a\.npy row 1 and b\.npz row 1"):
        _read(opened(kind="folder", path=folder))


def test_bad_payloads_and_empty_ids_are_named(opened: OpenSource, folder: Path) -> None:
    np.savez(folder / "a.npz", vectors=matrix(2), payloads=np.array(["{}", "{"]))
    with pytest.raises(SourceError, match=r"payload that is no JSON value .*: a\.npz row 1"):
        _read(opened(kind="folder", path=folder))
    np.savez(folder / "a.npz", vectors=matrix(2), ids=np.array(["x", ""]))
    with pytest.raises(SourceError, match=r"id that is empty: a\.npz row 1"):
        _read(opened(kind="folder", path=folder))
