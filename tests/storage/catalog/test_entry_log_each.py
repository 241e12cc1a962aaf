"""Batches of writers that have nothing to do with each other, in one transaction."""

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from indexrelay.schemas.errors import IndexRelayError
from indexrelay.schemas.settings import Metric
from indexrelay.storage.catalog import BatchChanges, Catalog, Commit
from indexrelay.storage.entries import Entries, Guard
from indexrelay.storage.errors import (
    BatchContentError,
    GuardedEntriesError,
    InvalidEntriesError,
    UnknownCollectionError,
    UnknownEntriesError,
)
from tests.storage.rows import entries


def changes(batch_id: str, collection: str = "tracks", **changed: Any) -> BatchChanges:
    return BatchChanges(collection=collection, batch_id=batch_id, **changed)


def owned(*ids: str, by: str | None) -> Entries:
    """Entries whose payload says whose they are; ``None``: they are given without one."""
    vectors = entries(*ids).vectors
    payload = None if by is None else f'"{by}"'
    return Entries(
        ids=list(ids), vectors=vectors, texts=[None] * len(ids), payloads=[payload] * len(ids)
    )


def guard_of(owner: str) -> Guard:
    return lambda payload: payload == f'"{owner}"'


def payloads(catalog: Catalog) -> dict[str, str | None]:
    with catalog.entries.snapshot("tracks") as snapshot:
        found = {
            id_: payload
            for chunk in snapshot.chunks()
            for id_, payload in zip(chunk.ids, chunk.payloads, strict=True)
        }
        assert snapshot.count == len(found)
    return found


def kinds(outcomes: Sequence[Commit | IndexRelayError]) -> list[type]:
    return [type(each) for each in outcomes]


def test_what_is_wrong_with_one_batch_fails_that_batch_alone(tracks: Catalog) -> None:
    tracks.entries.commit("tracks", "taken", upserts=[entries("a")], deletes=[])
    wide = Entries(ids=["w"], vectors=entries("w").vectors[:, :2], texts=[None], payloads=[None])
    outcomes = tracks.entries.commit_each(
        [
            changes("1", upserts=[entries("b")]),
            changes("2", upserts=[entries("half")], texts={"nobody": "text"}),
            changes("3", upserts=[wide]),
            changes("taken", upserts=[entries("c")]),
            changes("1", upserts=[entries("b")]),
            changes("1", upserts=[entries("d")]),
            changes("4", collection="nothing", upserts=[entries("e")]),
            changes("5", deletes=["a"]),
        ]
    )
    assert kinds(outcomes) == [
        Commit,
        UnknownEntriesError,
        InvalidEntriesError,
        BatchContentError,
        Commit,
        BatchContentError,
        UnknownCollectionError,
        Commit,
    ]
    commits = [each for each in outcomes if isinstance(each, Commit)]
    assert [(each.generation, each.repeated) for each in commits] == [
        (2, False),
        (2, True),
        (3, False),
    ]
    assert payloads(tracks).keys() == {"b"}
    assert tracks.collections.get("tracks").generation == 3
    assert tracks.entries.batch_ids("tracks", after=0, upto=9) == ["taken", "1", "5"]


def test_where_every_batch_is_wrong_no_generation_is_used(tracks: Catalog) -> None:
    wrong = [changes(str(number), texts={"nobody": "text"}) for number in range(3)]
    assert kinds(tracks.entries.commit_each(wrong)) == [UnknownEntriesError] * 3
    assert tracks.collections.get("tracks").generation == 0
    assert tracks.entries.commit_each([]) == []


def test_a_guarded_batch_changes_only_what_its_guard_accepts(tracks: Catalog) -> None:
    ours, guard = owned("ours", by="us"), guard_of("us")
    tracks.entries.commit("tracks", "1", upserts=[ours, owned("theirs", by="them")], deletes=[])
    outcomes = tracks.entries.commit_each(
        [
            changes("2", guard=guard, upserts=[owned("theirs", "new", by="us")]),
            changes("3", guard=guard, upserts=[owned("new", by="them")]),
            changes("4", guard=guard, upserts=[owned("new", by=None)]),
            changes("5", guard=guard, payloads={"ours": '"them"'}),
            changes("6", guard=guard, payloads={"ours": None}),
            changes("7", guard=guard, payloads={"theirs": '"us"'}),
            changes("8", guard=guard, texts={"theirs": None}),
            changes("9", guard=guard, upserts=[owned("ours", by=None)], texts={"ours": "text"}),
            changes("10", guard=guard, deletes=["ours", "theirs", "nobody"]),
            changes("11", guard=guard, upserts=[owned("ours", by=None)]),
            changes("12", guard=guard, upserts=[owned("new", by="us")], payloads={"new": None}),
        ]
    )
    assert kinds(outcomes) == [
        *[GuardedEntriesError] * 5,
        UnknownEntriesError,
        *[Commit] * 3,  # to take something away from what is not there is no error
        *[GuardedEntriesError] * 2,  # a deleted entry has left no payload behind
    ]
    errors = [each for each in outcomes if isinstance(each, GuardedEntriesError)]
    assert [(each.ids, each.become) for each in errors] == [
        (("theirs",), False),
        (("new",), True),
        (("new",), True),
        (("ours",), True),
        (("ours",), True),
        (("ours",), True),
        (("new",), True),
    ]
    commits = [each for each in outcomes if isinstance(each, Commit)]
    assert [(each.upserts, each.deletes) for each in commits] == [(0, 0), (1, 0), (0, 1)]
    assert payloads(tracks) == {"theirs": '"them"'}


def test_a_guarded_batch_again_is_the_same_batch(tracks: Catalog) -> None:
    tracks.entries.commit("tracks", "1", upserts=[owned("theirs", by="them")], deletes=[])
    deleting = changes("2", guard=guard_of("us"), deletes=["theirs"])
    first, second = (tracks.entries.commit_many([deleting])[0] for _ in range(2))
    assert (first.deletes, second.deletes, second.repeated) == (0, 0, True)
    with pytest.raises(GuardedEntriesError, match="belong to others: choose other ids"):
        tracks.entries.commit_many(
            [changes("3", guard=guard_of("us"), upserts=[owned("theirs", by="us")])]
        )


def test_an_entry_is_read_as_it_is_now(tracks: Catalog) -> None:
    tracks.entries.commit("tracks", "1", upserts=[owned("a", by="us")], deletes=[])
    tracks.entries.commit_many([changes("2", texts={"a": "text"})])
    found = tracks.entries.get("tracks", "a")
    assert found is not None
    assert (found.id, found.text, found.payload, found.generation) == ("a", "text", '"us"', 2)
    assert found.epoch == tracks.collections.get("tracks").epoch
    tracks.entries.commit("tracks", "3", upserts=[], deletes=["a"])
    assert tracks.entries.get("tracks", "a") is None
    with pytest.raises(UnknownCollectionError):
        tracks.entries.get("nothing", "a")


OWNERS = st.sampled_from(["us", "them", None])
IDS = st.lists(st.sampled_from("abcd"), unique=True, max_size=3)


@st.composite
def batches(draw: st.DrawFn) -> tuple[str | None, dict[str, Any]]:
    """Whose batch it is (``None``: of somebody who may change everything), and what it changes."""
    sets = st.dictionaries(st.sampled_from("abcd"), OWNERS, max_size=2)
    texts = st.dictionaries(st.sampled_from("abcd"), st.sampled_from(["text", None]), max_size=2)
    payloads = {id_: None if owner is None else f'"{owner}"' for id_, owner in draw(sets).items()}
    return draw(OWNERS), {
        "upserts": [owned(id_, by=draw(OWNERS)) for id_ in draw(IDS)],
        "texts": draw(texts),
        "payloads": payloads,
        "deletes": draw(IDS),
    }


States = dict[str, tuple[str | None, str | None]]


def states(catalog: Catalog, collection: str) -> States:
    """By id, the text and payload of each entry."""
    with catalog.entries.snapshot(collection) as snapshot:
        found = {
            id_: (text, payload)
            for chunk in snapshot.chunks()
            for id_, text, payload in zip(chunk.ids, chunk.texts, chunk.payloads, strict=True)
        }
        assert snapshot.count == len(found)
    return found


def theirs(entries: States, owner: str) -> States:
    return {id_: state for id_, state in entries.items() if state[1] != f'"{owner}"'}


@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(drawn=st.lists(batches(), min_size=1, max_size=8))
def test_a_group_is_what_its_batches_are_one_by_one_and_nobody_changes_anothers(
    tracks: Catalog, drawn: list[tuple[str | None, dict[str, Any]]]
) -> None:
    number = len(tracks.collections.all())
    together, alone = f"together_{number}", f"alone_{number}"
    for name in (together, alone):
        tracks.collections.declare(name, dimension=4, metric=Metric.L2)
        first = [owned("a", "b", by="us"), owned("c", by="them")]
        tracks.entries.commit(name, "first", upserts=first, deletes=[])

    def batch(row: int, collection: str) -> BatchChanges:
        owner, changed = drawn[row]
        guard = None if owner is None else guard_of(owner)
        return changes(str(row), collection=collection, guard=guard, **changed)

    of_group = tracks.entries.commit_each([batch(row, together) for row in range(len(drawn))])
    for row, (owner, _) in enumerate(drawn):
        before = states(tracks, alone)
        [outcome] = tracks.entries.commit_each([batch(row, alone)])
        assert type(outcome) is type(of_group[row])
        after = states(tracks, alone)
        if not isinstance(outcome, Commit):
            assert after == before
        elif owner is not None:
            assert theirs(after, owner) == theirs(before, owner)
    assert states(tracks, together) == states(tracks, alone)
    generations = {tracks.collections.get(name).generation for name in (together, alone)}
    assert generations == {1 + sum(isinstance(each, Commit) for each in of_group)}
