"""What a reader found damaged is hashed again by the rebuilder, and built anew if it is right."""

import pytest

from indexrelay.rebuilder.doubting import ReaderDoubts
from tests.rebuilder.complaints import complain, rot, state_of
from tests.rebuilder.conftest import Bench, MakeBench, behaving


@pytest.fixture
def built(make_bench: MakeBench) -> Bench:
    bench = make_bench(index=behaving("tracks"))
    bench.commit("a")
    bench.rebuild()
    return bench


def test_what_a_reader_found_damaged_is_found_here_and_built_anew(built: Bench) -> None:
    rot(built)
    built.rebuilder.step()
    assert built.release().number == 1
    complain(built)
    result = built.rebuilder.step()
    assert result is not None
    assert result.indexes_rebuilt == ("index",)
    assert built.release().number == 2
    built.store.open_version("index", built.release().components["index"])


def test_what_is_whole_is_hashed_once_for_each_complaint_and_not_built_anew(built: Bench) -> None:
    (ref, *_) = built.store.version("index", built.release().components["index"]).files.values()
    (mark,) = built.store.root.glob(f"checked/*/{ref.digest}")
    doubts = ReaderDoubts(built.store)
    doubts.take({"web": state_of(built, "web", "no memory")})
    assert not mark.exists()
    assert built.rebuilder.step() is None
    assert mark.exists()
    doubts.take({name: state_of(built, name, "no memory") for name in ("web", "other")})
    assert mark.exists()
    doubts.take({})
    doubts.take({"web": state_of(built, "web", "no memory"), "newer": None})
    assert not mark.exists()
    assert built.release().number == 1
