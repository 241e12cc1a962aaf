"""Tests of `indexrelay.components.embedder`: vectors of texts by a function of the user's."""

import asyncio
import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from indexrelay.components.embedder import Embedder, Embedders
from indexrelay.components.errors import EmbedderFunctionError
from indexrelay.schemas.errors import EmbeddingError
from indexrelay.schemas.settings import CollectionSettings, Settings

MODULE = "function_of_the_embedder_tests"
Function = Callable[[list[str]], Any]


class Recorder:
    """A function that gives each text a vector of its length, and remembers its calls."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []

    def __call__(self, texts: list[str]) -> Any:
        self.calls.append(list(texts))
        return [[len(text), 1.0] for text in texts]


class Gate(Recorder):
    """The same, and every call waits until `open` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.open = threading.Event()
        self.entered = threading.Semaphore(0)

    def __call__(self, texts: list[str]) -> Any:
        found = super().__call__(texts)
        self.entered.release()
        self.open.wait(30)
        return found


@pytest.fixture
def module() -> Iterator[ModuleType]:
    """A module that can be imported, for functions of a test."""
    made = sys.modules[MODULE] = ModuleType(MODULE)
    yield made
    del sys.modules[MODULE]


def make_embedder(
    module: ModuleType, function: Function, *, metric: str = "cosine", **keys: Any
) -> Embedder:
    """One of vectors of two dimensions."""
    module.function = function  # type: ignore[attr-defined]
    table = {"function": f"{MODULE}:function", **keys}
    declared = {"dimension": 2, "metric": metric, "embedder": table}
    return Embedder("notes", CollectionSettings.model_validate(declared))


@pytest.fixture
def embedder_of(module: ModuleType) -> Callable[..., Embedder]:
    """Makes one."""
    return partial(make_embedder, module)


def test_texts_become_vectors_in_calls_of_a_batch_at_most(
    embedder_of: Callable[..., Embedder],
) -> None:
    function = Recorder()
    texts = ["a", "bb", "ccc", "dddd", "eeeee"]
    found = embedder_of(function, batch_texts=2).embed(texts)
    assert found.vectors.dtype == np.float32
    assert found.vectors.tolist() == [[len(text), 1.0] for text in texts]
    assert not found.failures
    assert function.calls == [["a", "bb"], ["ccc", "dddd"], ["eeeee"]]


def test_no_texts_have_no_vectors(embedder_of: Callable[..., Embedder]) -> None:
    assert embedder_of(Recorder()).embed([]).vectors.shape == (0, 2)


def test_a_text_that_was_embedded_before_is_not_given_to_the_function_again(
    embedder_of: Callable[..., Embedder],
) -> None:
    function = Recorder()
    embedder = embedder_of(function)
    embedder.embed(["one", "three"])
    assert embedder.embed(["three", "five", "one", "five"]).vectors[:, 0].tolist() == [5, 4, 3, 4]
    assert function.calls == [["one", "three"], ["five"]]


def test_of_the_vectors_those_that_were_used_last_are_kept(
    embedder_of: Callable[..., Embedder],
) -> None:
    function = Recorder()
    embedder = embedder_of(function, cache_texts=2)
    for text in ("a", "b", "a", "c", "a", "b"):
        embedder.vector(text)
    assert function.calls == [["a"], ["b"], ["c"], ["b"]]


def test_a_vector_that_was_handed_out_can_be_changed_and_the_kept_one_stays(
    embedder_of: Callable[..., Embedder],
) -> None:
    embedder = embedder_of(Recorder())
    embedder.vector("abc")[:] = 7
    assert embedder.vector("abc").tolist() == [3, 1]


def test_what_comes_while_the_function_runs_goes_into_its_next_call_each_text_once(
    embedder_of: Callable[..., Embedder],
) -> None:
    function = Gate()
    embedder = embedder_of(function)
    first = embedder.submit(["first"])
    function.entered.acquire()
    later = [embedder.submit([text]) for text in ("x", "yy", "x", "first")]
    function.open.set()
    assert [each.wait().vectors[0, 0] for each in (first, *later)] == [5, 1, 2, 1, 5]
    assert function.calls == [["first"], ["x", "yy"]]


def test_callers_take_turns_whatever_one_of_them_has_waiting(
    embedder_of: Callable[..., Embedder],
) -> None:
    function = Gate()
    embedder = embedder_of(function, batch_texts=2)
    asked = [embedder.submit(["first"], caller="shop")]
    function.entered.acquire()
    asked += [embedder.submit([f"s{n}", f"S{n}"], caller="shop") for n in range(3)]
    left = embedder.submit(["left"], caller="bank")
    asked += [
        embedder.submit(["b0", "b1"], caller="bank"),
        embedder.submit(["club"], caller="club"),
        embedder.submit(["s1"], caller="bank"),  # wanted by another one already
    ]
    embedder.leave(left)
    function.open.set()
    for each in asked:
        assert not each.wait().failures
    assert function.calls == [
        ["first"],
        ["s0", "b0"],
        ["club", "S0"],
        ["b1", "s1"],
        ["S1", "s2"],
        ["S2"],
    ]


def test_a_text_that_another_one_has_far_behind_comes_when_the_caller_has_its_turn(
    embedder_of: Callable[..., Embedder],
) -> None:
    function = Gate()
    embedder = embedder_of(function, batch_texts=2)
    asked = [embedder.submit(["first"], caller="shop")]
    function.entered.acquire()
    asked += [embedder.submit([f"s{n}", f"S{n}"], caller="shop") for n in range(3)]
    asked += [
        embedder.submit(["S2"], caller="bank"),
        embedder.submit(["S2", "club"], caller="club"),
    ]
    function.open.set()
    for each in asked:
        assert not each.wait().failures
    assert function.calls == [["first"], ["s0", "S2"], ["club", "S0"], ["s1", "S1"], ["s2"]]


def test_a_text_that_nobody_waits_for_any_more_is_not_embedded(
    embedder_of: Callable[..., Embedder],
) -> None:
    function = Gate()
    embedder = embedder_of(function)
    first = embedder.submit(["first"])
    function.entered.acquire()
    embedder.submit(["given up"]).result()
    function.open.set()
    first.wait()
    embedder.vector("last")
    assert function.calls == [["first"], ["last"]]


def test_a_text_whose_wait_is_cancelled_is_not_embedded(
    embedder_of: Callable[..., Embedder],
) -> None:
    function = Gate()
    embedder = embedder_of(function)
    first = embedder.submit(["first"])
    function.entered.acquire()

    async def cancel() -> None:
        waiting = asyncio.create_task(embedder.submit(["given up"]).arrival())
        await asyncio.sleep(0)  # it has begun
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    asyncio.run(cancel())
    function.open.set()
    first.wait()
    embedder.vector("last")
    assert function.calls == [["first"], ["last"]]


def test_one_bad_text_fails_alone_and_the_others_get_their_vectors(
    embedder_of: Callable[..., Embedder],
) -> None:
    def function(texts: list[str]) -> Any:
        if "bad" in texts:
            raise ValueError("no vector for bad")
        return [[len(text), 1.0] for text in texts]

    found = embedder_of(function).embed(["a", "bad", "ccc"])
    assert list(found.failures) == [1]
    assert found.failures[1].reason == "the embedder raised ValueError"
    assert "no vector for bad" in str(found.failures[1])
    assert found.vectors[[0, 2], 0].tolist() == [1, 3]
    assert np.isnan(found.vectors[1]).all()
    with pytest.raises(EmbeddingError, match=r"of notes gave no vector for row 1: .*bad") as raised:
        found.raise_for_failures()
    assert not raised.value.transient


@pytest.mark.parametrize(
    ("vector", "reason"),
    [
        ([np.nan, 1.0], "the embedder gave a NaN or an infinity"),
        ([1e39, 1.0], "the embedder gave a NaN or an infinity"),
        ([0.0, 0.0], "the embedder gave a zero vector, which has no direction"),
    ],
)
def test_a_vector_that_cannot_be_searched_for_fails_its_text_alone(
    embedder_of: Callable[..., Embedder], vector: list[float], reason: str
) -> None:
    found = embedder_of(lambda texts: [[3.0, 4.0], vector][: len(texts)]).embed(["good", "bad"])
    assert {row: str(failure) for row, failure in found.failures.items()} == {1: reason}
    assert found.vectors[0].tolist() == [3.0, 4.0]


def test_a_zero_vector_counts_where_the_metric_is_a_distance(
    embedder_of: Callable[..., Embedder],
) -> None:
    embedder = embedder_of(lambda texts: np.zeros((len(texts), 2)), metric="l2")
    assert embedder.vector("a").tolist() == [0, 0]


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (lambda texts: np.ones((len(texts), 3)), r"shape \(1, 3\), and not \(1, 2\)"),
        (lambda texts: np.ones((len(texts) + 1, 2)), r"shape \(2, 2\), and not \(1, 2\)"),
        (lambda _: None, r"shape \(\), and not \(1, 2\)"),
        (lambda _: "words", "the embedder raised ValueError"),
        (lambda _: [[1.0, 2.0], [3.0]], "the embedder raised ValueError"),
        (lambda _: sys.exit(3), "the embedder raised SystemExit"),
        (lambda: None, "the embedder raised TypeError"),
    ],
)
def test_what_is_no_array_of_vectors_fails_its_texts_and_says_what_it_is(
    embedder_of: Callable[..., Embedder], function: Function, reason: str
) -> None:
    embedder = embedder_of(function)
    for _ in range(2):  # its thread goes on
        with pytest.raises(EmbeddingError, match=reason):
            embedder.vector("text")


def test_vectors_of_another_length_are_not_asked_for_text_by_text(
    embedder_of: Callable[..., Embedder],
) -> None:
    calls: list[Sequence[str]] = []

    def function(texts: list[str]) -> Any:
        calls.append(texts)
        return np.ones((len(texts), 3))

    assert len(embedder_of(function).embed(["a", "b"]).failures) == 2
    assert calls == [["a", "b"]]


def test_a_search_waits_no_longer_than_it_may_and_a_late_vector_serves_the_next_one(
    embedder_of: Callable[..., Embedder],
) -> None:
    function = Gate()
    embedder = embedder_of(function, query_seconds=0.01)
    with pytest.raises(EmbeddingError, match="no vector in time") as raised:
        embedder.vector("slow")
    assert raised.value.transient
    function.open.set()
    assert embedder.submit(["slow"]).wait().vectors[0, 0] == 4
    assert function.calls == [["slow"]]


def test_texts_that_nobody_waits_for_any_more_take_no_room_behind_a_call_that_hangs(
    embedder_of: Callable[..., Embedder],
) -> None:
    function = Gate()
    embedder = embedder_of(function)
    hangs = embedder.submit(["hangs"])
    assert function.entered.acquire(timeout=30)
    stays = embedder.submit(["stays"])
    text = "".join(("large", " text"))
    known = sys.getrefcount(text)
    embedder.submit([text, "stays"]).wait(0)
    assert sys.getrefcount(text) == known
    function.open.set()
    assert [len(each.wait().failures) for each in (hangs, stays)] == [0, 0]
    assert function.calls == [["hangs"], ["stays"]]


def test_a_call_that_hangs_fails_its_texts_and_the_next_call_has_another_thread(
    embedder_of: Callable[..., Embedder],
) -> None:
    gate, hangs = threading.Event(), threading.Event()

    def function(texts: list[str]) -> Any:
        if "hangs" in texts:
            hangs.set()
            gate.wait(30)
        return [[len(text), 1.0] for text in texts]

    embedder = embedder_of(function, timeout_seconds=0.01, batch_texts=1)
    stuck, behind = embedder.submit(["hangs"]), embedder.submit(["behind"])
    assert str(stuck.wait().failures[0]) == "the embedder took more than 0.01 s"
    assert hangs.is_set()
    embedder.settings = embedder.settings.model_copy(update={"timeout_seconds": 30.0})
    assert behind.wait().vectors[0, 0] == 6
    gate.set()


def test_one_text_that_hangs_leaves_the_others_of_its_call_to_the_next_thread(
    embedder_of: Callable[..., Embedder],
) -> None:
    gate, hangs = threading.Event(), threading.Event()

    def function(texts: list[str]) -> Any:
        if len(texts) > 1:
            raise ValueError("one of them is bad")
        if texts == ["hangs"]:
            hangs.set()
            gate.wait(30)
        return [[len(text), 1.0] for text in texts]

    embedder = embedder_of(function, timeout_seconds=30)
    asked = embedder.submit(["a", "hangs", "ccc"])
    assert hangs.wait(30)
    embedder.settings = embedder.settings.model_copy(update={"timeout_seconds": 1e-9})
    embedder.give_up_overdue_calls()
    embedder.settings = embedder.settings.model_copy(update={"timeout_seconds": 30.0})
    found = asked.wait()
    assert list(found.failures) == [1]
    assert found.vectors[[0, 2], 0].tolist() == [1, 3]
    gate.set()


def test_after_several_calls_that_hang_texts_are_refused_at_once_until_one_comes_back(
    embedder_of: Callable[..., Embedder],
) -> None:
    function = Gate()
    embedder = embedder_of(function, timeout_seconds=0.001, query_seconds=30)
    for number in range(4):
        with pytest.raises(EmbeddingError, match="took more than"):
            embedder.vector(f"hangs {number}")
    refused = embedder.submit(["next"])
    assert refused.finished.done()
    assert str(refused.result().failures[0]) == "the embedder has not come back from 4 calls"
    function.open.set()
    embedder.settings = embedder.settings.model_copy(update={"timeout_seconds": 30.0})
    wait_until(lambda: not embedder.submit(["back"]).wait().failures)


def test_without_a_thread_texts_are_refused_and_the_next_one_gets_another(
    embedder_of: Callable[..., Embedder], monkeypatch: pytest.MonkeyPatch
) -> None:
    embedder = embedder_of(Recorder())
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", raising(RuntimeError("can't start new thread")))
        refused = embedder.submit(["a", "b"])
        assert refused.finished.done()
    assert str(refused.result().failures[1]) == "the embedder has no thread to run on"
    with monkeypatch.context() as patch:
        patch.setattr(embedder, "_checked", raising(MemoryError()))
        assert refused.result().failures == embedder.submit(["a", "b"]).wait().failures
    assert embedder.vector("abc").tolist() == [3, 1]


def raising(error: Exception) -> Callable[..., Any]:
    def function(*_: object) -> None:
        raise error

    return function


def wait_until(true: Callable[[], bool]) -> None:
    """Ask until it is true; for what another thread does in a moment."""
    for _ in range(100_000):
        if true():
            return
        os.sched_yield()
    raise AssertionError("it did not become true")


def test_collections_that_name_one_function_take_turns(
    embedder_of: Callable[..., Embedder],
) -> None:
    function = Gate()
    first, second = embedder_of(function), embedder_of(function)
    asked = [first.submit(["a"])]
    function.entered.acquire()
    asked.append(second.submit(["bb"]))
    wait_until(lambda: not second._queue)  # its thread has the text
    for _ in range(1000):
        os.sched_yield()
    assert function.calls == [["a"]]
    function.open.set()
    assert [each.wait().vectors[0, 0] for each in asked] == [1, 2]


def test_a_call_that_hangs_keeps_no_other_collection_from_the_function(
    embedder_of: Callable[..., Embedder],
) -> None:
    function = Gate()
    hangs = embedder_of(function, timeout_seconds=0.01).submit(["hangs"])
    function.entered.acquire()
    second = embedder_of(function)
    asked = second.submit(["a"])
    assert hangs.wait().failures  # it is left, and has no turn any more
    function.entered.acquire()
    function.open.set()
    assert asked.wait().vectors[0, 0] == 1


def test_what_the_function_prints_goes_to_stderr_and_others_print_on(
    embedder_of: Callable[..., Embedder], capsys: pytest.CaptureFixture[str]
) -> None:
    function = Gate()

    def printing(texts: list[str]) -> Any:
        print("loading weights")  # noqa: T201
        return function(texts)

    embedder = embedder_of(printing)
    asked = embedder.submit(["a"])
    function.entered.acquire()
    print("an answer")  # noqa: T201
    function.open.set()
    asked.wait()
    print("another")  # noqa: T201
    said = capsys.readouterr()
    assert said.out == "an answer\nanother\n"
    assert said.err == "loading weights\n"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("no_such_module:function", "no_such_module cannot be imported"),
        (f"{MODULE}:absent", "has no function 'absent'"),
        (f"{MODULE}:__name__", "has no function '__name__'"),
    ],
)
def test_a_function_that_cannot_be_loaded_is_named_before_the_first_text(
    module: ModuleType, name: str, reason: str
) -> None:
    assert module
    embedders = Embedders(settings_with(name))
    with pytest.raises(EmbedderFunctionError, match=reason):
        embedders.start()


def test_a_collection_without_an_embedder_has_none() -> None:
    settings = Settings.model_validate({"collections": {"notes": {"dimension": 2}}})
    embedders = Embedders(settings)
    embedders.start()
    assert embedders.of("notes") is None
    assert embedders.of("unknown") is None


def test_all_of_a_process_share_one_embedder_of_a_collection(module: ModuleType) -> None:
    module.function = Recorder()  # type: ignore[attr-defined]
    embedders = Embedders(settings_with(f"{MODULE}:function"))
    assert embedders.of("notes") is embedders.of("notes")


def settings_with(name: str) -> Settings:
    """Settings of one collection with this embedder."""
    return Settings.model_validate({"collections": {"notes": {"dimension": 2, "embedder": name}}})


def test_what_is_no_text_is_refused(embedder_of: Callable[..., Embedder]) -> None:
    with pytest.raises(TypeError, match="takes texts, not int"):
        embedder_of(Recorder()).embed(["a", 7])  # type: ignore[list-item]


def test_a_forked_child_embeds_with_a_thread_of_its_own_and_the_vectors_that_there_were(
    embedder_of: Callable[..., Embedder],
) -> None:
    function = Gate()
    embedder = embedder_of(function)
    function.open.set()
    embedder.vector("known")
    function.open.clear()
    running = embedder.submit(["runs in the parent"])  # holds the thread while it forks
    child = os.fork()
    if not child:
        try:
            function.open.set()
            calls = len(function.calls)
            ok = embedder.vector("known")[0] == 5 and embedder.vector("new")[0] == 3
            os._exit(0 if ok and function.calls[calls:] == [["new"]] else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    function.open.set()
    assert running.wait().vectors[0, 0] == 18
