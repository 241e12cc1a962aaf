"""What a reader found damaged is hashed again by the rebuilder, and built anew if it is right."""

import pytest

from indexrelay.rebuilder.doubting import ReaderDoubts
from indexrelay.schemas.clock import SystemClock
from indexrelay.schemas.results import ComponentState, LoadOutcome, ReaderState
from indexrelay.storage.artifacts.checked import file_identity
from indexrelay.streams import Presence
from tests.rebuilder.conftest import Bench, MakeBench, behaving


@pytest.fixture
def built(make_bench: MakeBench) -> Bench:
    bench = make_bench(index=behaving("tracks"))
    bench.commit("a")
    bench.rebuild()
    return bench


def _rot(bench: Bench) -> None:
    """Every blob of the released version gets other bytes, and looks as it did."""
    version = bench.release().components["index"]
    for ref in bench.store.version("index", version).files.values():
        path = bench.store.blob(ref)
        content = bytearray(path.read_bytes())
        content[0] ^= 1
        path.chmod(0o644)
        path.write_bytes(content)
        for mark in bench.store.root.glob(f"checked/*/{ref.digest}"):
            mark.write_text(file_identity(path.stat()))


def _state(bench: Bench, reader: str, error: str) -> ReaderState:
    now = SystemClock().now()
    wanted = bench.release().components["index"]
    component = ComponentState(outcome=LoadOutcome.FAILED, wanted=wanted, error=error)
    return ReaderState(
        reader=reader,
        host="h",
        pid=7,
        started_at=now,
        updated_at=now,
        ready=False,
        release=bench.release().number,
        components={"index": component},
    )


def _complain(bench: Bench, *, reader: str = "web", error: str = "BlobCorruptError") -> None:
    Presence(bench.connection, bench.keys, "reader").publish(
        reader, _state(bench, reader, error).model_dump_json().encode(), ttl_seconds=60
    )


def test_what_a_reader_found_damaged_is_found_here_and_built_anew(built: Bench) -> None:
    _rot(built)
    built.rebuilder.step()
    assert built.release().number == 1
    _complain(built)
    result = built.rebuilder.step()
    assert result is not None
    assert result.indexes_rebuilt == ("index",)
    assert built.release().number == 2
    built.store.open_version("index", built.release().components["index"])


def test_what_is_whole_is_hashed_once_for_each_complaint_and_not_built_anew(built: Bench) -> None:
    (ref, *_) = built.store.version("index", built.release().components["index"]).files.values()
    (mark,) = built.store.root.glob(f"checked/*/{ref.digest}")
    doubts = ReaderDoubts(built.store)
    doubts.take({"web": _state(built, "web", "no memory")})
    assert not mark.exists()
    assert built.rebuilder.step() is None
    assert mark.exists()
    doubts.take({name: _state(built, name, "no memory") for name in ("web", "other")})
    assert mark.exists()
    doubts.take({})
    doubts.take({"web": _state(built, "web", "no memory"), "newer": None})
    assert not mark.exists()
    assert built.release().number == 1
