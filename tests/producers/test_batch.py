"""A batch is committed whole, once, and only when its block ends well."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexrelay.producers import Batch, Producer
from indexrelay.producers.batch import PendingBatch
from indexrelay.producers.errors import (
    BatchClosedError,
    NotCommittedError,
    UndeclaredCollectionError,
    WrongSourceError,
)
from indexrelay.schemas.messages import FIELD, BatchCompleted, Event, RebuildRequested
from indexrelay.schemas.settings import CollectionSettings
from indexrelay.storage.catalog import Catalog, Commit
from indexrelay.storage.errors import (
    BatchContentError,
    InvalidEntriesError,
    UnknownEntriesError,
)
from indexrelay.streams import Connection, Keys

ROWS = np.eye(3, dtype=np.float32)


def live(catalog: Catalog, collection: str = "tracks") -> dict[str, list[float]]:
    with catalog.entries.snapshot(collection) as snapshot:
        return {
            name: vector.tolist()
            for chunk in snapshot.chunks()
            for name, vector in zip(chunk.ids, chunk.vectors, strict=True)
        }


def events(connection: Connection) -> list[Event]:
    entries: Any = connection.commands.xrange(Keys("indexrelay").events)
    return [Event.from_bytes(fields[FIELD]) for _, fields in entries]


def test_leaving_the_block_commits_and_then_announces_it(
    producer: Producer, catalog: Catalog, connection: Connection
) -> None:
    with producer.batch("tracks", "monday") as batch:
        batch.upsert(["a", "b"], ROWS[:2], texts=["x", None], payloads=[{"n": 1}, None])
    assert batch.commit.generation == 1
    assert batch.commit.upserts == 2
    assert batch.announced
    assert live(catalog) == {"a": [1, 0, 0], "b": [0, 1, 0]}
    (event,) = events(connection)
    assert isinstance(event.data, BatchCompleted)
    assert (event.data.collection, event.data.batch_id) == ("tracks", "monday")
    assert (event.data.generation, event.data.epoch) == (1, batch.commit.epoch)
    assert (event.data.upserts, event.data.deletes) == (2, 0)


def test_nothing_is_written_before_the_block_ends(producer: Producer, catalog: Catalog) -> None:
    with producer.batch("tracks") as batch:
        batch.upsert(["a"], ROWS[:1])
        assert catalog.collections.get("tracks").generation == 0
        with pytest.raises(NotCommittedError, match="has not ended"):
            _ = batch.commit


def test_an_exception_in_the_block_commits_nothing(
    producer: Producer, catalog: Catalog, connection: Connection
) -> None:
    with pytest.raises(ZeroDivisionError), producer.batch("tracks") as batch:  # noqa: PT012 - the whole block is meant
        batch.upsert(["a"], ROWS[:1])
        raise ZeroDivisionError
    assert catalog.collections.get("tracks").generation == 0
    assert events(connection) == []
    with pytest.raises(NotCommittedError, match="ZeroDivisionError"):
        _ = batch.commit


def test_an_empty_batch_commits_nothing_and_the_error_says_so(
    producer: Producer, catalog: Catalog, connection: Connection
) -> None:
    with producer.batch("tracks") as batch:
        batch.upsert([], [])
        batch.delete([])
    assert len(batch) == 0
    with pytest.raises(NotCommittedError, match="nothing was changed"):
        _ = batch.commit
    assert catalog.collections.get("tracks").generation == 0
    assert events(connection) == []


def test_the_same_batch_id_again_gives_the_same_commit(
    producer: Producer, catalog: Catalog
) -> None:
    with producer.batch("tracks", "monday") as first:
        first.upsert(["a"], ROWS[:1])
    with producer.batch("tracks", "monday") as second:
        second.upsert(["a"], ROWS[1:2])
        second.upsert(["a"], ROWS[:1])
    assert second.commit.repeated
    assert second.commit.generation == first.commit.generation == 1
    assert set(live(catalog)) == {"a"}


def test_other_content_under_the_same_batch_id_is_refused(
    producer: Producer, catalog: Catalog, connection: Connection
) -> None:
    with producer.batch("tracks", "monday") as first:
        first.upsert(["a"], ROWS[:1])
    second = producer.batch("tracks", "monday")
    with pytest.raises(BatchContentError, match=r"'monday'.*generation 1.*digest"), second:
        second.upsert(["b"], ROWS[1:2])
    with pytest.raises(NotCommittedError, match="its commit failed"):
        _ = second.commit
    assert set(live(catalog)) == {"a"}
    assert len(events(connection)) == 1


NESTED = [{"x": 1, "y": [2, {"b": None, "a": "é"}]}, {"y": 1, "x": 2}]


def turned(value: Any) -> Any:
    """The same value, every key of it the other way round."""
    if isinstance(value, dict):
        return {key: turned(value[key]) for key in reversed(value)}
    return [turned(each) for each in value] if isinstance(value, list) else value


def test_the_order_of_rows_and_keys_is_no_content_and_the_order_of_a_list_is(
    producer: Producer,
) -> None:
    def monday(ids: list[str], payloads: list[Any], notes: Any, *, cut: bool = False) -> Commit:
        vectors = [ROWS["ab".index(id_)] for id_ in ids]
        with producer.batch("tracks", "monday") as batch:
            if cut:
                for row in range(2):
                    batch.upsert(ids[row : row + 1], vectors[row : row + 1])
                batch.set_payloads(ids, payloads)
            else:
                batch.upsert(ids, vectors, payloads=payloads)
            batch.upsert(["c"], ROWS[2:3])
            batch.set_payloads(["c"], [notes])
        return batch.commit

    first = monday(["a", "b"], NESTED, {"m": 1, "l": [1, 2]})
    for same in (
        monday(["a", "b"], turned(NESTED), {"l": [1, 2], "m": 1}),
        monday(["b", "a"], turned(NESTED)[::-1], {"m": 1, "l": [1, 2]}),
        monday(["b", "a"], NESTED[::-1], {"l": (1, 2), "m": 1}, cut=True),
    ):
        assert same == replace(first, repeated=True)
    for payloads, notes in (
        (NESTED, {"m": 1, "l": [2, 1]}),
        (NESTED, {"m": 1.5, "l": [1, 2]}),
        ([NESTED[0], {"x": 1, "y": 2}], {"m": 1, "l": [1, 2]}),
        (NESTED[::-1], {"m": 1, "l": [1, 2]}),
    ):
        with pytest.raises(BatchContentError):
            monday(["a", "b"], payloads, notes)


def test_batches_without_an_id_are_different_batches(producer: Producer) -> None:
    commits = []
    for _ in range(2):
        with producer.batch("tracks") as batch:
            batch.upsert(["a"], ROWS[:1])
        commits.append(batch.commit)
    assert [commit.generation for commit in commits] == [1, 2]
    assert commits[0].batch_id != commits[1].batch_id


def test_several_calls_make_one_commit_and_deletes_are_part_of_it(
    producer: Producer, catalog: Catalog
) -> None:
    with producer.batch("tracks") as batch:
        batch.upsert(["a"], ROWS[:1])
        batch.upsert(["b"], ROWS[1:2])
    with producer.batch("tracks") as batch:
        batch.upsert(["c"], ROWS[2:])
        batch.delete(["a", "never there"])
    assert batch.commit.generation == 2
    assert set(live(catalog)) == {"b", "c"}


def test_an_array_may_be_reused_after_the_call(producer: Producer, catalog: Catalog) -> None:
    block = np.ones((4, 3), np.float32)
    with producer.batch("tracks") as batch:
        batch.upsert(["whole"], block[:1])
        block[:] = 7
        batch.upsert(["rest"], block[1:2])
        block[:] = 9
    assert live(catalog) == {"whole": [1, 1, 1], "rest": [7, 7, 7]}


Step = Callable[[Batch], None]


def kept(catalog: Catalog) -> dict[str, tuple[int, str | None, str | None]]:
    """Each live entry: which of `ROWS` its vector is, its text, its payload."""
    with catalog.entries.snapshot("tracks") as snapshot:
        return {
            name: (int(vector.argmax()), text, payload)
            for chunk in snapshot.chunks()
            for name, vector, text, payload in zip(
                chunk.ids, chunk.vectors, chunk.texts, chunk.payloads, strict=True
            )
        }


def test_what_an_upsert_does_not_give_stays_until_it_is_cleared(
    producer: Producer, catalog: Catalog
) -> None:
    with producer.batch("tracks") as batch:
        batch.upsert(["a", "b"], ROWS[:2], texts=["x", "y"], payloads=[{"n": 1}, {"n": 2}])
    with producer.batch("tracks") as batch:  # embedded again
        batch.upsert(["a", "b"], ROWS[1:])
    assert kept(catalog) == {"a": (1, "x", '{"n":1}'), "b": (2, "y", '{"n":2}')}
    with producer.batch("tracks") as batch:
        batch.upsert(["a", "b"], ROWS[:2], texts=[None, "z"], payloads=[7, None])
    assert kept(catalog) == {"a": (0, "x", "7"), "b": (1, "z", '{"n":2}')}
    with producer.batch("tracks") as batch:
        batch.set_texts(["a"], ["w"])
        batch.set_payloads(("b",), [False])
        batch.clear_texts({"b", "never there"})
    assert batch.commit.upserts == 2
    assert kept(catalog) == {"a": (0, "w", "7"), "b": (1, None, "false")}
    with producer.batch("tracks") as batch:
        batch.clear_payloads({"a": 1, "b": 2}.keys())
    assert kept(catalog) == {"a": (0, "w", None), "b": (1, None, None)}


@pytest.mark.parametrize(
    ("steps", "wanted"),
    [
        ([lambda b: b.upsert(["a"], ROWS[1:2])], (1, "t", '"p"')),
        (
            [lambda b: b.upsert(["a"], ROWS[:1]), lambda b: b.upsert(["a"], ROWS[2:])],
            (2, "t", '"p"'),
        ),
        (
            [
                lambda b: b.upsert(["a"], ROWS[:1], ["u"], ["q"]),
                lambda b: b.upsert(["a"], ROWS[1:2], ["v"]),
                lambda b: b.upsert(["a"], ROWS[2:], None, ["r"]),
            ],
            (2, "v", '"r"'),
        ),
        (
            [lambda b: b.set_texts(["a"], ["u"]), lambda b: b.set_texts(["a"], ["v"])],
            (0, "v", '"p"'),
        ),
        ([lambda b: b.set_texts(["a"], ["u"]), lambda b: b.clear_texts(["a"])], (0, None, '"p"')),
        ([lambda b: b.clear_texts(["a"]), lambda b: b.set_texts(["a"], ["u"])], (0, "u", '"p"')),
        (
            [lambda b: b.clear_payloads(["a"]), lambda b: b.upsert(["a"], ROWS[1:2])],
            (1, "t", None),
        ),
        (
            [
                lambda b: b.clear_payloads(["a"]),
                lambda b: b.set_texts(["a"], ["u"]),
                lambda b: b.upsert(["a"], ROWS[1:2], ["v"], ["q"]),
            ],
            (1, "v", '"q"'),
        ),
        (
            [lambda b: b.upsert(["a"], ROWS[1:2], ["u"], ["q"]), lambda b: b.clear_texts(["a"])],
            (1, None, '"q"'),
        ),
        (
            [lambda b: b.upsert(["a"], ROWS[1:2], ["u"]), lambda b: b.set_texts(["a"], ["v"])],
            (1, "v", '"p"'),
        ),
        ([lambda b: b.delete(["a"])], None),
        ([lambda b: b.set_texts(["a"], ["u"]), lambda b: b.delete({"a"})], None),
        ([lambda b: b.upsert(["a"], ROWS[1:2]), lambda b: b.delete(["a"])], None),
        ([lambda b: b.delete(["a"]), lambda b: b.delete(["a"])], None),
        ([lambda b: b.delete(["a"]), lambda b: b.clear_texts(["a"])], None),
        (
            [lambda b: b.delete(["a"]), lambda b: b.upsert(["a"], ROWS[1:2])],
            (1, None, None),
        ),
        (
            [
                lambda b: b.upsert(["a"], ROWS[2:], ["u"], ["q"]),
                lambda b: b.delete(["a"]),
                lambda b: b.upsert(["a"], ROWS[1:2], ["v"]),
            ],
            (1, "v", None),
        ),
        (
            [
                lambda b: b.delete(["a"]),
                lambda b: b.upsert(["a"], ROWS[1:2]),
                lambda b: b.set_payloads(["a"], ["q"]),
            ],
            (1, None, '"q"'),
        ),
    ],
)
def test_calls_on_one_batch_apply_in_their_order(
    producer: Producer,
    catalog: Catalog,
    steps: list[Step],
    wanted: tuple[int, str | None, str | None] | None,
) -> None:
    with producer.batch("tracks") as batch:
        batch.upsert(["a", "z"], ROWS[:2], ["t", "t"], ["p", "p"])
    with producer.batch("tracks") as batch:
        for step in steps:
            step(batch)
        assert len(batch) == 1
    assert kept(catalog) == ({"a": wanted} if wanted else {}) | {"z": (1, "t", '"p"')}
    assert (batch.commit.upserts, batch.commit.deletes) == ((1, 0) if wanted else (0, 1))
    # The same calls on entries that are new within the batch come to the same.
    with producer.batch("tracks") as batch:
        batch.delete(["z"])
        batch.upsert(["z", "a"], ROWS[[1, 0]], ["t", "t"], ["p", "p"])
        for step in steps:
            step(batch)
    assert kept(catalog) == ({"a": wanted} if wanted else {}) | {"z": (1, "t", '"p"')}


@pytest.mark.parametrize(
    ("step", "named"),
    [
        (lambda b: b.set_texts(["a", "x"], ["u", "v"]), "1 entries that 'tracks' .*: 'x'"),
        (lambda b: b.set_payloads(["x"], [1]), "'x'"),
        (lambda b: (b.delete(["a"]), b.set_texts(["a"], ["u"])), "'a'"),
    ],
)
def test_a_text_of_an_entry_that_is_not_there_is_refused_by_its_id(
    producer: Producer, catalog: Catalog, connection: Connection, step: Step, named: str
) -> None:
    with producer.batch("tracks") as batch:
        batch.upsert(["a"], ROWS[:1])
    with pytest.raises(UnknownEntriesError, match=named), producer.batch("tracks") as batch:  # noqa: PT012 - the whole block is meant
        batch.upsert(["b"], ROWS[:1])
        step(batch)
    assert set(live(catalog)) == {"a"}
    assert len(events(connection)) == 1


@pytest.mark.parametrize(
    "step",
    [
        lambda b: b.set_texts(["a"], [None]),
        lambda b: b.set_payloads(["a"], [None]),
        lambda b: b.set_texts({"a"}, ["x"]),
        lambda b: b.set_payloads(["a"], [{1: 2}]),
        lambda b: b.set_texts(["a", "b"], ["x"]),
        lambda b: b.set_texts(["a", "a"], ["x", "y"]),
        lambda b: b.clear_texts("a"),
        lambda b: b.clear_payloads(["a", ""]),
        lambda b: b.delete({"a": 1}),
    ],
)
def test_every_call_refuses_what_an_upsert_refuses(producer: Producer, step: Step) -> None:
    with pytest.raises(InvalidEntriesError), producer.batch("tracks") as batch:  # noqa: PT012 - the whole block is meant
        batch.upsert(["a"], ROWS[:1])
        step(batch)


@pytest.mark.parametrize(
    ("ids", "vectors", "rows"),
    [
        (["a", "b"], [[1, 0, 0], [0, np.nan, 0]], (1,)),
        (["a", "b"], [[1, 0, 0], [0, np.inf, 0]], (1,)),
        (["a", "b"], [[0, 0, 0], [1, 0, 0]], (0,)),
        (["a", "a"], [[1, 0, 0], [0, 1, 0]], (1,)),
        (["a", ""], [[1, 0, 0], [0, 1, 0]], (1,)),
        (["a"], [[1, 0]], ()),
    ],
)
def test_wrong_rows_are_named_before_anything_is_written(
    producer: Producer,
    catalog: Catalog,
    ids: list[str],
    vectors: list[list[float]],
    rows: tuple[int, ...],
) -> None:
    with pytest.raises(InvalidEntriesError) as caught, producer.batch("tracks") as batch:  # noqa: PT012 - the whole block is meant
        batch.upsert(["good"], ROWS[:1])
        batch.upsert(ids, vectors)
    assert caught.value.rows == rows
    assert catalog.collections.get("tracks").generation == 0


def test_a_collection_that_is_not_declared_is_refused_with_a_suggestion(
    producer: Producer,
) -> None:
    with pytest.raises(UndeclaredCollectionError, match="did you mean 'tracks'"):
        producer.batch("track")


def test_entries_belong_to_the_source_that_the_settings_name(producer: Producer) -> None:
    with pytest.raises(WrongSourceError, match="call batch_completed"):
        producer.batch("files")
    with pytest.raises(WrongSourceError, match="with batch"):
        producer.batch_completed("tracks")


def test_a_job_with_data_of_its_own_marks_a_batch(
    producer: Producer, catalog: Catalog, connection: Connection
) -> None:
    commit = producer.batch_completed("files", batch_id="monday")
    assert commit.generation == catalog.collections.get("files").generation == 1
    again = producer.batch_completed("files", batch_id="monday")  # of what, only the job knows
    assert (again.generation, again.repeated) == (2, False)
    assert [event.subject for event in events(connection)] == ["files", "files"]


def test_a_batch_is_for_one_block(producer: Producer) -> None:
    with producer.batch("tracks") as batch:
        batch.upsert(["a"], ROWS[:1])
    with pytest.raises(BatchClosedError):
        batch.upsert(["b"], ROWS[:1])
    with pytest.raises(BatchClosedError), batch:
        pass


def test_a_trace_context_is_carried_along(producer: Producer, connection: Connection) -> None:
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    with producer.batch("tracks", traceparent=trace) as batch:
        batch.upsert(["a"], ROWS[:1])
    assert events(connection)[0].traceparent == trace


def test_a_requested_rebuild_is_a_row_and_a_wake_up_under_one_id(
    producer: Producer, catalog: Catalog, connection: Connection
) -> None:
    request_id = producer.request_rebuild(["map"], force=True, reason="new colours")
    (row,) = catalog.inbox.open()
    (event,) = events(connection)
    assert row.event_id == event.id == request_id
    assert row.requested
    assert Event.from_bytes(row.body).data == RebuildRequested(
        request_id=request_id, components=("map",), force=True, reason="new colours"
    )
    assert event.data == RebuildRequested(request_id=request_id, reason="new colours")


DECLARED = CollectionSettings(dimension=3)
changes = st.dictionaries(
    st.sampled_from("abcdef"), st.sampled_from(["upsert", "delete"]), max_size=6
)


@given(batches=st.lists(changes, max_size=6))
def test_gathered_changes_are_what_is_committed(batches: list[dict[str, str]]) -> None:
    """Against a plain model: what a batch hands on is what was said to it, in order."""
    for said in batches:
        committed: list[tuple[list[str], list[str]]] = []

        def submit(
            pending: PendingBatch, into: list[tuple[list[str], list[str]]] = committed
        ) -> None:
            upserts = [name for chunk in pending.changes.upserts for name in chunk.ids]
            into.append((upserts, list(pending.changes.deletes)))

        with Batch("tracks", "b1", declared=DECLARED, submit=submit) as batch:
            for name, what in said.items():
                if what == "upsert":
                    batch.upsert([name], ROWS[:1])
                else:
                    batch.delete([name])
        upserts = [name for name, what in said.items() if what == "upsert"]
        deletes = [name for name, what in said.items() if what == "delete"]
        assert committed == ([(upserts, deletes)] if said else [])


@pytest.mark.parametrize("trace", ["", "\ud800", "a" * 2_000_000, "00-" + "G" * 52, 5, b"00"])
def test_a_trace_context_that_an_event_cannot_carry_is_refused_before_the_commit(
    producer: Producer, catalog: Catalog, trace: Any
) -> None:
    with pytest.raises(ValueError, match="traceparent="):
        producer.batch("tracks", traceparent=trace)
    with pytest.raises(ValueError, match="traceparent="):
        producer.batch_completed("files", traceparent=trace)
    assert catalog.collections.all() == []
