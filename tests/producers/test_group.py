"""Batches of many writers that are committed together, each for itself."""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from typing import Any

import pytest

from indexrelay.producers import (
    Batch,
    Commit,
    GroupCommit,
    GroupFullError,
    InvalidEntriesError,
    Producer,
    UndeclaredCollectionError,
    UnknownEntriesError,
)
from indexrelay.producers.batch import Committer
from indexrelay.schemas.messages import BatchCompleted, Event
from indexrelay.schemas.settings import Settings
from indexrelay.storage.catalog import Catalog
from indexrelay.streams import Connection

SECONDS = 30.0


class Held:
    """A catalog whose transactions wait until the test lets them go, and are counted."""

    def __init__(self, catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sizes: list[int] = []
        self.began = threading.Event()
        self.may_go = threading.Event()
        commit_each = catalog.entries.commit_each

        def held(batches: Sequence[Any]) -> Any:
            self.sizes.append(len(batches))
            self.began.set()
            assert self.may_go.wait(SECONDS)
            return commit_each(batches)

        monkeypatch.setattr(catalog.entries, "commit_each", held)


@pytest.fixture
def held(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> Iterator[Held]:
    held = Held(catalog, monkeypatch)
    yield held
    held.may_go.set()


@pytest.fixture
def group(producer: Producer) -> Iterator[GroupCommit]:
    group = producer.group_commit(max_waiting=3)
    yield group
    group.close()


def upsert(*ids: str) -> Callable[[Batch], None]:
    return lambda batch: batch.upsert(list(ids), [[1.0, 2.0, 3.0]] * len(ids))


def submitted(
    group: GroupCommit, change: Callable[[Batch], None], batch_id: str | None = None
) -> "Future[Commit]":
    return group.submit(group.prepared("tracks", batch_id, change))


def events(connection: Connection) -> list[int]:
    """The generations that were announced."""
    raws: Any = connection.commands.xrange("{indexrelay}:events")
    found = [Event.from_bytes(fields[b"event"]).data for _, fields in raws]
    return [each.generation for each in found if isinstance(each, BatchCompleted)]


def test_what_comes_during_a_commit_is_committed_together(
    group: GroupCommit, held: Held, connection: Connection
) -> None:
    first = submitted(group, upsert("a"))
    assert held.began.wait(SECONDS)
    others = [submitted(group, upsert(name)) for name in "bcd"]
    assert len(group) == 3
    held.may_go.set()
    assert [each.result(SECONDS).generation for each in (first, *others)] == [1, 2, 3, 4]
    assert held.sizes == [1, 3]
    group.close()
    assert events(connection) == [1, 2, 3, 4]


def test_a_bad_batch_of_a_group_fails_alone(group: GroupCommit, held: Held) -> None:
    first = submitted(group, upsert("a"))
    assert held.began.wait(SECONDS)
    bad = submitted(group, lambda batch: batch.set_texts(["nobody"], ["text"]))
    good = submitted(group, upsert("b"))
    held.may_go.set()
    assert (first.result(SECONDS).generation, good.result(SECONDS).generation) == (1, 2)
    assert isinstance(bad.exception(SECONDS), UnknownEntriesError)


def test_no_more_may_wait_than_were_allowed(
    group: GroupCommit, held: Held, catalog: Catalog
) -> None:
    outcomes = [submitted(group, upsert("0"))]
    assert held.began.wait(SECONDS)
    outcomes += [submitted(group, upsert(str(number))) for number in (1, 2, 3)]
    with pytest.raises(GroupFullError, match="3 batches wait for their commit; nothing was writ"):
        submitted(group, upsert("4"))
    held.may_go.set()
    assert [each.result(SECONDS).generation for each in outcomes] == [1, 2, 3, 4]
    with catalog.entries.snapshot("tracks") as snapshot:
        assert snapshot.count == 4


def test_a_failed_transaction_fails_those_that_were_in_it(
    group: GroupCommit, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as broken:
        broken.setattr(catalog.entries, "commit_each", lambda _: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            submitted(group, upsert("a")).result(SECONDS)
    assert submitted(group, upsert("a")).result(SECONDS).generation == 1


def test_a_transaction_that_one_collection_fails_is_made_for_the_others_alone(
    settings: Settings,
    held: Held,
    catalog: Catalog,
    connection: Connection,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    albums = settings.collections["tracks"]
    collections = {**settings.collections, "albums": albums}
    settings = settings.model_copy(update={"collections": collections})
    group = Producer(settings, catalog=catalog, connection=connection).group_commit()
    first = submitted(group, upsert("a"))
    assert held.began.wait(SECONDS)
    locked = group.submit(group.prepared("albums", None, upsert("b")))
    good = submitted(group, upsert("c"), "known by its id")
    commit_each = catalog.entries.commit_each

    def locks_albums(batches: Sequence[Any]) -> Any:
        if {each.collection for each in batches} == {"albums"}:
            raise OSError("a job holds its lock")
        outcomes = commit_each(batches)
        if len(batches) > 1:
            raise OSError("the answer to its commit got lost")
        return outcomes

    monkeypatch.setattr(catalog.entries, "commit_each", locks_albums)
    held.may_go.set()
    assert first.result(SECONDS).generation == 1
    assert isinstance(locked.exception(SECONDS), OSError)
    commit = good.result(SECONDS)
    assert (commit.generation, commit.repeated) == (2, True)
    group.close()


def test_closing_commits_and_announces_what_waits_and_takes_no_more(
    group: GroupCommit, held: Held, connection: Connection
) -> None:
    outcomes = [submitted(group, upsert("a"))]
    assert held.began.wait(SECONDS)
    outcomes.append(submitted(group, upsert("b")))
    threading.Timer(0, held.may_go.set).start()
    group.close()
    assert [each.result(0).generation for each in outcomes] == [1, 2]
    assert events(connection) == [1, 2]
    with pytest.raises(GroupFullError, match="no more is taken"):
        submitted(group, upsert("c"))
    group.close()


def test_a_writer_has_its_commit_while_redis_does_not_answer(
    group: GroupCommit, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers, asked = threading.Event(), list[int]()

    def announce(_self: Committer, commits: Sequence[Commit], _traceparents: Any) -> bool:
        asked.append(len(commits))
        return answers.wait(SECONDS)

    monkeypatch.setattr(Committer, "announce", announce)
    for name in "abcd":
        assert submitted(group, upsert(name)).result(SECONDS).generation
    answers.set()
    group.close()
    assert sum(asked) == 4
    assert len(asked) <= 4


def test_the_same_batch_again_gets_its_first_commit(group: GroupCommit) -> None:
    first, again = (submitted(group, upsert("a"), "mine").result(SECONDS) for _ in range(2))
    assert (first.generation, first.repeated) == (again.generation, False)
    assert again.repeated


def test_what_cannot_be_written_is_refused_before_it_waits(group: GroupCommit) -> None:
    with pytest.raises(UndeclaredCollectionError):
        group.prepared("nothing", None, upsert("a"))
    with pytest.raises(InvalidEntriesError):
        group.prepared("tracks", None, lambda batch: batch.upsert(["a"], [[1.0]]))
    with pytest.raises(ValueError, match="a batch for 'tracks' changes nothing"):
        group.prepared("tracks", None, lambda _: None)
    assert len(group) == 0
    assert group


def test_a_collection_that_was_dropped_is_made_again(group: GroupCommit, catalog: Catalog) -> None:
    assert submitted(group, upsert("a")).result(SECONDS).generation == 1
    catalog.collections.drop("tracks")
    assert submitted(group, upsert("a")).exception(SECONDS) is not None
    assert submitted(group, upsert("a")).result(SECONDS).generation == 1
