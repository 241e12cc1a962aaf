"""The gates that every kind shares: what does not pass them is not released."""

import pytest

from indexrelay.schemas.messages import (
    RebuildStatus,
)
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
