"""What a pass does when the catalog or Redis fails in the middle of it."""

import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from typing import Any

import pytest

from indexrelay.health.facts import Facts
from indexrelay.rebuilder import Rebuilder
from indexrelay.rebuilder.passes import ComponentBuilder, PassOrder, run_pass
from indexrelay.schemas.messages import BuildOutcome, ComponentResult, RebuildStatus
from indexrelay.storage.catalog import Attempts, EntryLog, Inbox
from indexrelay.streams import BackendRefusedError, Presence
from tests.rebuilder.conftest import Bench, MakeBench, behaving


@contextmanager
def refusing(
    monkeypatch: pytest.MonkeyPatch, owner: type, name: str, error: Exception
) -> Iterator[None]:
    """A method that raises, as long as the ``with`` lasts."""

    def refuse(*_args: object, **_keys: object) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, refuse)
        yield


def test_a_catalog_that_cannot_note_an_outcome_keeps_no_component_from_being_released(
    make_bench: MakeBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = make_bench(a=behaving("tracks"), b=behaving("tracks"))
    bench.commit("x")
    with refusing(monkeypatch, Attempts, "succeeded", OSError("disk is full")):
        assert bench.rebuild().indexes_rebuilt == ("a", "b")
    assert set(bench.release().components) == {"a", "b"}


def test_a_release_is_announced_although_its_batches_cannot_be_listed(
    make_bench: MakeBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = make_bench(index=behaving("tracks"))
    bench.commit("x")
    with refusing(monkeypatch, EntryLog, "batch_ids", OSError("database is locked")):
        result = bench.rebuild()
    assert (result.status, result.batch_ids) == (RebuildStatus.SUCCESS, ())
    assert bench.connection.commands.get(bench.keys.release) == b"1"


def test_a_server_that_refuses_presence_costs_no_pass_and_no_stop(
    make_bench: MakeBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = make_bench(index=behaving("tracks"))
    bench.commit("x")
    oom = BackendRefusedError("presence", "OOM", "full")
    with (
        refusing(monkeypatch, Presence, "publish", oom),
        refusing(monkeypatch, Presence, "remove", oom),
    ):
        assert bench.rebuild().status is RebuildStatus.SUCCESS
        bench.rebuilder.stop()


def test_a_signal_is_not_lost_when_the_catalog_cannot_be_read(
    make_bench: MakeBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = make_bench(index=behaving("tracks"))
    rebuilder: Rebuilder = bench.rebuilder
    rebuilder._signal()
    with (
        refusing(monkeypatch, Inbox, "open", OSError("database is locked")),
        pytest.raises(OSError, match="locked"),
    ):
        rebuilder._start_pass()
    assert rebuilder._coalescer.remaining(rebuilder._clock.monotonic()) is not None
    assert rebuilder._woken_at is not None


def test_a_pass_that_breaks_ends_when_the_last_of_its_builds_has_ended(
    make_bench: MakeBench,
) -> None:
    """Until then its leases are held, so that nobody builds the same beside it."""
    bench = make_bench(breaks=behaving("tracks"), goes_on=behaving("tracks"))
    bench.commit("x")
    let_go, ended = threading.Event(), threading.Event()

    class Breaking(ComponentBuilder):
        def __init__(self) -> None:
            """Builds nothing itself."""

        def session(
            self,
            components: Sequence[str],  # noqa: ARG002 - the contract
        ) -> AbstractContextManager[Any]:
            return nullcontext()

        def build(
            self,
            name: str,
            order: PassOrder,  # noqa: ARG002 - the contract
            results: Mapping[str, ComponentResult],  # noqa: ARG002
            session: object,  # noqa: ARG002
        ) -> ComponentResult:
            if name == "breaks":
                let_go.set()
                raise RuntimeError("nobody thought of this")
            assert let_go.wait(10)
            ended.set()
            return ComponentResult(outcome=BuildOutcome.REBUILT)

        def skip(self, name: str, facts: Facts, because: str) -> ComponentResult:
            raise AssertionError(name, facts, because)

    with ThreadPoolExecutor(2) as executor:
        parts = run_pass(order_of(bench), Breaking(), executor=executor, release_after_seconds=60)
        with closing(parts), pytest.raises(RuntimeError):
            list(parts)
        assert ended.is_set()


def order_of(bench: Bench) -> PassOrder:
    order = bench.rebuilder._scheduler.next_order(woken_at=None)
    assert order is not None
    return order
