"""A batch is committed whole, once, and only when its block ends well."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexrelay.producers import Batch, Producer
from indexrelay.producers.errors import (
    BatchClosedError,
    NotCommittedError,
    RepeatedIdsError,
    UndeclaredCollectionError,
    WrongSourceError,
)
from indexrelay.producers.outcome import Outcome
from indexrelay.schemas.events import FIELD, BatchCompleted, Event
from indexrelay.schemas.settings import Metric
from indexrelay.storage.catalog import BatchChanges, Catalog
from indexrelay.storage.errors import InvalidEntriesError
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


def test_leaving_the_block_commits_and_then_says_so(
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


def test_an_empty_batch_commits_nothing_and_says_so(
    producer: Producer, catalog: Catalog, connection: Connection
) -> None:
    with producer.batch("tracks") as batch:
        batch.upsert([], [])
        batch.delete([])
    assert len(batch) == 0
    with pytest.raises(NotCommittedError, match="nothing was upserted or deleted"):
        _ = batch.commit
    assert catalog.collections.get("tracks").generation == 0
    assert events(connection) == []


def test_the_same_batch_id_again_gives_the_same_commit(
    producer: Producer, catalog: Catalog
) -> None:
    with producer.batch("tracks", "monday") as first:
        first.upsert(["a"], ROWS[:1])
    with producer.batch("tracks", "monday") as second:
        second.upsert(["b"], ROWS[1:2])
    assert second.commit.repeated
    assert second.commit.generation == first.commit.generation == 1
    assert set(live(catalog)) == {"a"}


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


@pytest.mark.parametrize(
    ("say", "named"),
    [
        (lambda batch: batch.upsert(["a"], ROWS[:1]), "upserted twice"),
        (lambda batch: batch.delete(["a"]), "both upserted and deleted"),
        (lambda batch: batch.upsert(["z"], ROWS[:1]), "both deleted and upserted"),
        (lambda batch: batch.delete(["z"]), "deleted twice"),
    ],
)
def test_one_batch_says_one_thing_about_an_id(
    producer: Producer, catalog: Catalog, say: Callable[[Batch], None], named: str
) -> None:
    with pytest.raises(RepeatedIdsError, match=named), producer.batch("tracks") as batch:  # noqa: PT012 - the whole block is meant
        batch.upsert(["a"], ROWS[:1])
        batch.delete(["z"])
        say(batch)
    assert catalog.collections.get("tracks").generation == 0


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
    assert producer.batch_completed("files", batch_id="monday").repeated
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
    assert json.loads(row.body)["data"] == event.data.model_dump(mode="json")


changes = st.dictionaries(
    st.sampled_from("abcdef"), st.sampled_from(["upsert", "delete"]), max_size=6
)


@given(batches=st.lists(changes, max_size=6))
def test_gathered_changes_are_what_is_committed(batches: list[dict[str, str]]) -> None:
    """Against a plain model: what a batch hands on is what was said to it, in order."""
    for said in batches:
        committed: list[tuple[list[str], list[str]]] = []

        def hand_over(
            changes: BatchChanges,
            _outcome: Outcome,
            into: list[tuple[list[str], list[str]]] = committed,
        ) -> None:
            upserts = [name for chunk in changes.upserts for name in chunk.ids]
            into.append((upserts, list(changes.deletes)))

        with Batch("tracks", "b1", dimension=3, metric=Metric.COSINE, hand_over=hand_over) as batch:
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
