"""A reader lays over its release what was committed since, whatever becomes of the messages."""

import json
import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexrelay.components.errors import UnknownEntryError
from indexrelay.components.live.vectors import LiveVectorSearch
from indexrelay.producers.served import ServedWait
from indexrelay.reloaders import Consistency, NotFreshError, Reloader, Snapshot
from indexrelay.schemas.messages import FIELD, ChangesCommitted, Event, LiveStatus
from indexrelay.schemas.session import SessionToken
from indexrelay.schemas.settings import Settings
from indexrelay.storage.catalog import Commit
from indexrelay.streams import Keys
from indexrelay.testing.pipeline import Pipeline
from tests.streams.polling import eventually

KEY, OLD_KEY, FOREIGN_KEY = "k" * 32, "o" * 32, "f" * 32
VECTORS = np.random.default_rng(3).standard_normal((30, 3)).astype(np.float32)
STREAM = Keys("test").changes("tracks")

OpenPipeline: TypeAlias = Callable[[Settings], Pipeline]


def make_settings(*, keys: tuple[str, ...] = (KEY,), most: int = 1000, **more: Any) -> Settings:
    return Settings.model_validate(
        {
            "namespace": "test",
            "live": {"keys": keys, "max_entries": most},
            "collections": {
                "tracks": {"dimension": 3, "live": True, "filterable": {"year": "number"}}
            },
            "components": {"similar": {"kind": "vector_index", "from": "tracks", "index": "Flat"}},
            **more,
        }
    )


@pytest.fixture
def open_pipeline(tmp_path: Path) -> Iterator[OpenPipeline]:
    """Opens a pipeline with settings of one's own, and closes it after the test."""
    with ExitStack() as stack:

        def opened(settings: Settings) -> Pipeline:
            return stack.enter_context(closing(Pipeline(settings, tmp_path)))

        yield opened


@pytest.fixture
def pipeline(open_pipeline: OpenPipeline) -> Pipeline:
    return open_pipeline(make_settings())


def put(
    pipeline: Pipeline, entries: dict[str, int], *deletes: str, year: int | None = None
) -> Commit:
    """Commit vectors by their place in `VECTORS`, and deletes; nothing is rebuilt."""
    with pipeline.producer.batch("tracks") as batch:
        if entries:
            payloads = None if year is None else [{"year": year}] * len(entries)
            batch.upsert(list(entries), VECTORS[list(entries.values())], payloads=payloads)
        if deletes:
            batch.delete(list(deletes))
    return batch.commit


def released(pipeline: Pipeline, *names: str) -> None:
    """Release entries with these names, and let every reader serve them."""
    put(pipeline, {name: place for place, name in enumerate(names or ("a", "b", "c"))})
    pipeline.settle()


def reader_without_catalog(pipeline: Pipeline, reader_id: str = "far") -> Reloader:
    """One on a host of its own, where there is no catalog; to be stopped."""
    elsewhere = pipeline.settings.model_copy(
        update={
            "catalog": pipeline.settings.catalog.model_validate(
                {"url": f"sqlite:///{pipeline.settings.data_dir}/elsewhere/catalog.db"}
            )
        }
    )
    reader = Reloader(
        elsewhere,
        reader_id=reader_id,
        store=pipeline.store,
        connection=pipeline.connection,
        clock=pipeline.clock,
    )
    reader.step()
    return reader


def ids(reader: Reloader) -> list[str]:
    """All that it finds, in the order of the ids."""
    reader.step()
    with reader.acquire() as snapshot:
        return sorted(hit.id for hit in snapshot["similar"].search(VECTORS[0], k=100))


def status(reader: Reloader) -> LiveStatus:
    return reader.state.live["tracks"].status


def messages(pipeline: Pipeline) -> list[tuple[bytes, bytes]]:
    """What lies in the stream: the id and the bytes of each message."""
    commands: Any = pipeline.connection.commands
    return [(entry_id, fields[FIELD]) for entry_id, fields in commands.xrange(STREAM)]


def lose(pipeline: Pipeline, *places: int) -> None:
    """Remove messages from the stream, so that its readers cannot tell."""
    found = messages(pipeline)
    for place in places:
        pipeline.connection.commands.xdel(STREAM, found[place][0])


def send(pipeline: Pipeline, raw: bytes) -> None:
    pipeline.connection.commands.xadd(STREAM, {FIELD: raw})


def test_a_commit_is_found_before_any_release_has_it(pipeline: Pipeline) -> None:
    released(pipeline)
    reader = pipeline.reader("web")
    commit = put(pipeline, {"new": 9}, "b", year=1999)
    assert ids(reader) == ["a", "c", "new"]
    with reader.acquire() as snapshot:
        assert snapshot.live == {"tracks": commit.generation}
        assert snapshot.covers["similar"]["tracks"] == commit.generation - 1
        found = snapshot["similar"]
        assert found.search(VECTORS[9], k=1, filter={"year": {"$gt": 1990}})[0].id == "new"
        assert [each and each.payload for each in found.get(["new", "b"])] == [{"year": 1999}, None]
        with pytest.raises(UnknownEntryError):
            found.search_by_id("b")


def beside_a_graph(**more: Any) -> Settings:
    similar = {"kind": "vector_index", "from": "tracks", "index": "HNSW8"}
    return make_settings(most=5000, components={"similar": similar}, **more)


def put_many(pipeline: Pipeline) -> tuple[list[str], Any]:
    """Commit more entries than pay for comparing each with a query."""
    names = [f"n{number:04d}" for number in range(2200)]
    vectors = np.random.default_rng(7).standard_normal((len(names), 3)).astype(np.float32)
    with pipeline.producer.batch("tracks") as batch:
        batch.upsert(names, vectors)
    return names, vectors


def found_by(reader: Reloader) -> str:
    """By what live rows are found."""
    with reader.acquire() as snapshot:
        hits = snapshot["similar"].search(VECTORS[0], explain=True)
        return str(hits.explanation.layers[-1].how)


def test_many_live_rows_get_codes_and_each_is_found(open_pipeline: OpenPipeline) -> None:
    pipeline = open_pipeline(beside_a_graph())
    released(pipeline)
    reader = pipeline.reader("web")
    assert found_by(reader) == "HNSW8"
    names, vectors = put_many(pipeline)
    put(pipeline, {names[7]: 3}, names[8])
    reader.step()
    assert found_by(reader).endswith("and scan")
    with reader.acquire() as snapshot:
        index = snapshot["similar"]
        for row in range(0, len(names), 100):
            assert index.search(vectors[row], k=1)[0].id == names[row]
        assert names[7] in {hit.id for hit in index.search(VECTORS[3], k=2)}
        assert not {names[7], names[8]} & {hit.id for hit in index.search(vectors[8], k=3)[:1]}
        assert len(index) == 3 + len(names) - 1


def test_a_running_reader_makes_codes_on_a_thread_of_its_own(open_pipeline: OpenPipeline) -> None:
    settings = beside_a_graph(reader={"start_spread_seconds": 0.0})
    pipeline = open_pipeline(settings)
    released(pipeline)
    reader = Reloader(
        settings, reader_id="running", store=pipeline.store, connection=pipeline.connection
    )
    reader.start()
    try:
        reader.wait_ready(30)
        put_many(pipeline)
        eventually(lambda: found_by(reader).endswith("and scan"))
    finally:
        reader.stop()


def is_over(waiting: ServedWait) -> bool:
    return waiting.look() is not None


def test_a_running_reader_says_at_once_what_it_has(open_pipeline: OpenPipeline) -> None:
    # Its presence is not due for minutes: who waits for a write elsewhere waits for this.
    reader_settings = {"start_spread_seconds": 0.0, "presence_ttl_seconds": 600.0}
    settings = make_settings(reader={**reader_settings, "poll_seconds": 300.0})
    pipeline = open_pipeline(settings)
    released(pipeline)
    reader = Reloader(
        settings, reader_id="running", store=pipeline.store, connection=pipeline.connection
    )
    reader.start()
    try:
        assert reader.wait_ready(10)
        for place in (7, 8):
            waiting = pipeline.producer.served_wait(
                put(pipeline, {"new": place}), timeout_seconds=10, readers=1, live=True
            )
            eventually(partial(is_over, waiting))
    finally:
        reader.stop()


def test_what_a_batch_does_not_give_of_an_entry_stays(pipeline: Pipeline) -> None:
    released(pipeline)
    put(pipeline, {"a": 0}, year=1)
    with pipeline.producer.batch("tracks") as batch:
        batch.set_payloads(["b"], [{"year": 7}])
        batch.upsert(["a"], VECTORS[[20]])
    reader = pipeline.reader("web")
    reader.step()
    with reader.acquire() as snapshot:
        found = snapshot["similar"]
        assert found.payload("a") == {"year": 1}
        assert np.allclose(found.vector("a"), VECTORS[20] / np.linalg.norm(VECTORS[20]))
        assert found.payload("b") == {"year": 7}
        assert np.allclose(found.vector("b"), VECTORS[1] / np.linalg.norm(VECTORS[1]))


def test_a_release_takes_over_what_was_laid_over_it(pipeline: Pipeline) -> None:
    released(pipeline)
    reader = pipeline.reader("web")
    put(pipeline, {"new": 9}, "b")
    before = ids(reader)
    assert reader.state.live["tracks"].entries == 2
    pipeline.settle()
    assert ids(reader) == before
    assert reader.state.live["tracks"].entries == 0
    with reader.acquire() as snapshot:
        assert not isinstance(snapshot["similar"], LiveVectorSearch)


def test_texts_and_both_together_are_found_before_any_release_has_them(
    open_pipeline: OpenPipeline,
) -> None:
    both = {"kind": "search", "from": "tracks", "vector": {"index": "Flat"}}
    words = {"kind": "text_index", "from": "tracks"}
    pipeline = open_pipeline(make_settings(components={"both": both, "words": words}))
    texts = ["a quiet river", "the loud sea", "nights in spring"]
    with pipeline.producer.batch("tracks") as batch:
        batch.upsert(["a", "b", "c"], VECTORS[:3], texts=texts)
    pipeline.settle()
    with pipeline.producer.batch("tracks") as batch:
        batch.upsert(["new"], VECTORS[9:10], texts=["a river in the night"])
        batch.set_texts(["b"], ["the sea is a river"])
        batch.delete(["a"])
    reader = pipeline.reader("web")
    reader.step()
    with reader.acquire() as snapshot:
        assert {hit.id for hit in snapshot["words"].search("river", k=9)} == {"b", "new"}
        assert snapshot["words"].search("loud", k=9) == []
        found = snapshot["both"]
        assert {hit.id for hit in found.search(text="river", k=9)} == {"b", "new"}
        assert found.search(vector=VECTORS[9], text="river", k=9)[0].id in {"b", "new"}
        assert found.search(vector=VECTORS[9], k=1)[0].id == "new"
        assert [each and each.text for each in found.get(["new", "a", "b", "c"])] == [
            "a river in the night",
            None,
            "the sea is a river",
            "nights in spring",
        ]
        assert len(found) == found.count() == 3
        assert np.allclose(found.by_vector.vector("b"), VECTORS[1] / np.linalg.norm(VECTORS[1]))
        before = [(hit.id, hit.payload) for hit in found.search(vector=VECTORS[0], k=9)]
    pipeline.settle()
    with reader.acquire() as snapshot:
        assert reader.state.live["tracks"].entries == 0
        found = snapshot["both"]
        assert [(hit.id, hit.payload) for hit in found.search(vector=VECTORS[0], k=9)] == before
        assert {hit.id for hit in found.search(text="river", k=9)} == {"b", "new"}


def test_a_snapshot_stays_as_it_was_borrowed(pipeline: Pipeline) -> None:
    released(pipeline)
    reader = pipeline.reader("web")
    put(pipeline, {"new": 9})
    reader.step()
    with reader.acquire() as snapshot:
        put(pipeline, {"newer": 10}, "new")
        reader.step()
        assert [hit.id for hit in snapshot["similar"].search(VECTORS[9], k=1)] == ["new"]
    assert ids(reader) == ["a", "b", "c", "newer"]


def test_several_batches_at_once_are_one_message(pipeline: Pipeline) -> None:
    released(pipeline)
    far = reader_without_catalog(pipeline)
    with pipeline.producer.batches() as batches:
        for place in (9, 10, 11):
            with batches.batch("tracks") as batch:
                batch.upsert(["same", f"n{place}"], VECTORS[[place, place]])
    assert len(messages(pipeline)) == 2
    assert ids(far) == ["a", "b", "c", "n10", "n11", "n9", "same"]
    far.stop()


def test_a_lost_message_is_filled_in_from_the_catalog(pipeline: Pipeline) -> None:
    released(pipeline)
    reader = pipeline.reader("web")
    put(pipeline, {"lost": 9})
    lose(pipeline, -1)
    assert ids(reader) == ["a", "b", "c"]
    put(pipeline, {"next": 10})
    assert ids(reader) == ["a", "b", "c", "lost", "next"]
    put(pipeline, {"last": 11})
    lose(pipeline, -1)
    pipeline.clock.advance(pipeline.settings.reader.poll_seconds)
    assert "last" in ids(reader)


def test_while_redis_is_away_the_catalog_is_looked_into(pipeline: Pipeline) -> None:
    released(pipeline)
    reader = pipeline.reader("web")
    with pipeline.without_redis():
        put(pipeline, {"new": 9})
        pipeline.clock.advance(pipeline.settings.reader.poll_seconds)
        assert "new" in ids(reader)


def test_without_the_catalog_a_gap_waits_for_a_release_and_says_so(pipeline: Pipeline) -> None:
    released(pipeline)
    far = reader_without_catalog(pipeline)
    put(pipeline, {"seen": 8})
    assert ids(far) == ["a", "b", "c", "seen"]
    put(pipeline, {"lost": 9})
    lose(pipeline, -1)
    put(pipeline, {"after": 10})
    pipeline.clock.advance(pipeline.settings.reader.poll_seconds)
    assert ids(far) == ["a", "b", "c", "seen"]  # what it had stays
    state = far.state.live["tracks"]
    assert state.status is LiveStatus.WAITING
    assert "cannot look into the catalog" in str(state.reason)
    assert [each.code for each in far.problems] == ["reader_live_behind"]
    pipeline.settle()
    put(pipeline, {"more": 11})
    assert ids(far) == ["a", "after", "b", "c", "lost", "more", "seen"]
    assert status(far) is LiveStatus.FOLLOWING
    assert not far.problems
    far.stop()


def test_a_reader_that_starts_late_finds_the_changes_in_the_stream(pipeline: Pipeline) -> None:
    released(pipeline)
    put(pipeline, {"n1": 8})
    put(pipeline, {"n2": 9})
    far = reader_without_catalog(pipeline)
    assert ids(far) == ["a", "b", "c", "n1", "n2"]
    far.stop()


def test_messages_that_nobody_signed_send_readers_to_the_catalog(
    open_pipeline: OpenPipeline,
) -> None:
    pipeline = open_pipeline(make_settings(keys=()))
    released(pipeline)
    reader, far = pipeline.reader("web"), reader_without_catalog(pipeline)
    put(pipeline, {"new": 9})
    [*_, (_, raw)] = messages(pipeline)
    said = Event.from_bytes(raw).data
    assert isinstance(said, ChangesCommitted)
    assert (said.changes, said.mac) == (None, None)
    pipeline.clock.advance(1)  # looks that anyone may ask for have a pause between them
    assert "new" in ids(reader)
    assert "new" not in ids(far)
    assert "no live.keys" in str(far.state.live["tracks"].reason)
    far.stop()


def test_a_key_is_changed_in_readers_first(open_pipeline: OpenPipeline) -> None:
    pipeline = open_pipeline(make_settings(keys=(OLD_KEY, KEY)))
    released(pipeline)
    update = {"live": pipeline.settings.live.model_validate({"keys": (KEY, OLD_KEY)})}
    pipeline.settings = pipeline.settings.model_copy(update=update)
    far = reader_without_catalog(pipeline)
    put(pipeline, {"new": 9})  # signed with the first key of the producer
    assert "new" in ids(far)
    far.stop()


def test_a_large_batch_is_fetched_from_the_catalog(pipeline: Pipeline) -> None:
    released(pipeline)
    reader = pipeline.reader("web")
    with pipeline.producer.batch("tracks") as batch:
        names = [f"n{number}" for number in range(5)]
        batch.upsert(names, VECTORS[:5], payloads=[{"x": "x" * 60_000}] * 5)
    [*_, (_, raw)] = messages(pipeline)
    assert len(raw) < 2000
    assert ids(reader) == ["a", "b", "c", *names]


def test_past_its_limit_a_reader_asks_for_a_rebuild_and_stays_where_it_is(
    open_pipeline: OpenPipeline,
) -> None:
    pipeline = open_pipeline(make_settings(most=3))
    released(pipeline)
    reader, other = pipeline.reader("web"), pipeline.reader("api")
    put(pipeline, {"n1": 4, "n2": 5, "n3": 6})
    put(pipeline, {"n1": 7})  # an entry counts once
    assert status(reader) is LiveStatus.FOLLOWING
    put(pipeline, {"n4": 8})
    put(pipeline, {"n5": 9}, "n4")
    for each in (reader, other):
        assert ids(each) == ["a", "b", "c", "n1", "n2", "n3"]
        assert status(each) is LiveStatus.FULL
        assert "live.max_entries (3)" in str(each.state.live["tracks"].reason)
    [asked] = [row for row in pipeline.catalog.inbox.open() if row.event_id.startswith("live-")]
    assert asked.event_id.startswith("live-tracks-")
    pipeline.settle()
    assert ids(reader) == ["a", "b", "c", "n1", "n2", "n3", "n5"]
    assert status(reader) is LiveStatus.FOLLOWING


def test_a_reader_asks_for_nothing_that_a_person_paused(open_pipeline: OpenPipeline) -> None:
    pipeline = open_pipeline(make_settings(most=3))
    released(pipeline)
    reader = pipeline.reader("web")
    pipeline.catalog.attempts.pause("similar", reason="too expensive")
    put(pipeline, {f"n{number}": 4 for number in range(4)})
    assert ids(reader) == ["a", "b", "c"]
    assert status(reader) is LiveStatus.FULL
    pipeline.settle()
    assert ids(reader) == ["a", "b", "c"]
    pipeline.catalog.attempts.resume("similar")
    pipeline.rebuild()
    assert len(ids(reader)) == 7
    assert status(reader) is LiveStatus.FOLLOWING


def test_nothing_is_laid_over_a_version_that_a_person_holds(pipeline: Pipeline) -> None:
    released(pipeline)
    reader = pipeline.reader("web")
    pipeline.store.hold("similar", reason="the new data is wrong")
    put(pipeline, {"new": 9})
    assert ids(reader) == ["a", "b", "c"]
    assert status(reader) is LiveStatus.IDLE
    pipeline.store.lift("similar", reason="it was right")
    reader.step()
    assert ids(reader) == ["a", "b", "c", "new"]


def test_changes_of_a_collection_that_was_made_anew_wait_for_its_version(
    pipeline: Pipeline,
) -> None:
    released(pipeline)
    reader = pipeline.reader("web")
    pipeline.catalog.collections.drop("tracks")
    put(pipeline, {"other": 9})
    put(pipeline, {"second": 10})
    pipeline.clock.advance(pipeline.settings.reader.poll_seconds)
    assert ids(reader) == ["a", "b", "c"]
    assert status(reader) is LiveStatus.WAITING


def test_a_collection_that_is_not_live_has_no_stream(open_pipeline: OpenPipeline) -> None:
    plain = make_settings(collections={"tracks": {"dimension": 3}})
    pipeline = open_pipeline(plain)
    released(pipeline)
    assert messages(pipeline) == []
    assert pipeline.reader("web").state.live == {}


def test_a_reader_that_stopped_holds_nothing(pipeline: Pipeline) -> None:
    released(pipeline)
    reader = pipeline.reader("web")
    put(pipeline, {"new": 9})
    reader.step()
    reader.stop()
    assert reader.state.live["tracks"].entries == 0
    assert ids(reader) == ["a", "b", "c", "new"]


def hostile(raw: bytes, rng: random.Random) -> bytes:
    """A message that somebody made who may write to the stream and has no key."""
    envelope = json.loads(raw)
    data = envelope["data"]
    match rng.randrange(8):
        case 0:
            return raw  # replayed
        case 1:
            return raw[: rng.randrange(len(raw))]
        case 2:
            place = rng.randrange(len(raw))
            return raw[:place] + bytes([rng.randrange(256)]) + raw[place + 1 :]
        case 3:
            data["generation"] += rng.choice([1, 2, 1000, 2**62])
        case 4:
            data["after"] = max(0, data["after"] + rng.choice([-1, 1]))
            data["changes"]["deletes"] = ["a"]
        case 5:
            data["changes"] = {
                "ids": ["evil"],
                "vectors": "AAAAAAAAAAAAAAAA",
                "deletes": ["a", "b"],
            }
            data["generation"] += 1
        case 6:
            said = ChangesCommitted.model_validate(data | {"generation": data["generation"] + 1})
            data |= json.loads(said.signed("test", FOREIGN_KEY.encode()).model_dump_json())
        case _:
            said = ChangesCommitted.model_validate(data | {"generation": data["generation"] + 1})
            data |= json.loads(said.signed("other", KEY.encode()).model_dump_json())
    return json.dumps(envelope).encode()


def everything(reader: Reloader) -> list[object]:
    """All that it answers: by vector, by text, by both, filtered, and each entry whole."""
    reader.step()
    names = ["a", "b", "c", "n1", "n2", "n3", "evil"]
    with reader.acquire() as snapshot:
        found, words = snapshot["both"], snapshot["words"]
        return [
            found.search(vector=VECTORS[0], k=100),
            found.search(vector=VECTORS[0], text="river", k=100),
            found.search(vector=VECTORS[0], k=100, filter={"year": {"$gt": 1990}}),
            words.search("river", k=100),
            found.get(names),
            words.get(names),
            [found.count(), words.count(), len(found), len(words)],
        ]


def test_two_thousand_hostile_messages_change_no_answer(open_pipeline: OpenPipeline) -> None:
    both = {"kind": "search", "from": "tracks", "vector": {"index": "Flat"}}
    words = {"kind": "text_index", "from": "tracks"}
    pipeline = open_pipeline(make_settings(components={"both": both, "words": words}))
    texts = ["a quiet river", "the loud sea", "nights in spring"]
    with pipeline.producer.batch("tracks") as batch:
        batch.upsert(["a", "b", "c"], VECTORS[:3], texts=texts, payloads=[{"year": 1999}] * 3)
    pipeline.settle()
    reader, far = pipeline.reader("web"), reader_without_catalog(pipeline)
    for number, text in enumerate(["a river of words", "rivers and a river"], start=1):
        with pipeline.producer.batch("tracks") as batch:
            batch.upsert([f"n{number}"], VECTORS[[number + 7]], texts=[text])
            batch.set_payloads([f"n{number}"], [{"year": 2000 + number}])
            batch.delete(["b"])
    genuine = [raw for _, raw in messages(pipeline)]
    rng = random.Random(11)
    wanted = everything(reader)
    assert {hit.id for hit in cast("list[Any]", wanted[0])} == {"a", "n1", "n2", "c"}
    assert everything(far) == wanted
    for _ in range(20):
        for _ in range(100):
            send(pipeline, hostile(rng.choice(genuine), rng))
        assert everything(reader) == wanted
        assert everything(far) == wanted
        pipeline.clock.advance(1)
    generation = pipeline.catalog.collections.get("tracks").generation
    for each in (reader, far):
        state = each.state.live["tracks"]
        assert state.generation == generation
        assert state.ignored > 500
    put(pipeline, {"n3": 10})
    found = everything(reader)
    assert found != wanted
    assert found == everything(far)
    far.stop()


Model = dict[str, tuple[int, Any]]
"""By entry: the place of its vector, and its payload."""


class World:
    """A pipeline with three readers, one of them without the catalog, and what is true at each
    generation."""

    def __init__(self, folder: Path) -> None:
        self.pipeline = Pipeline(make_settings(), folder)
        released(self.pipeline)
        self.near = [self.pipeline.reader("web"), self.pipeline.reader("api")]
        self.far = reader_without_catalog(self.pipeline)
        self.models: dict[int, Model] = {
            1: {name: (place, None) for place, name in enumerate("abc")}
        }
        self.seen: dict[str, int] = {}
        self.late: list[bytes] = []
        self.genuine: list[bytes] = []
        self.sessions = [SessionToken(), SessionToken()]
        """Of two clients, which write, and ask whichever reader."""
        self.known = [0, 0]
        """By client: the newest generation that it has written or seen."""

    @property
    def newest(self) -> int:
        return max(self.models)

    def write(self, name: str, place: int) -> None:
        commit = put(self.pipeline, {name: place}, year=place)
        self._client_saw(place % 2, commit.session)
        self._is_now({**self.models[self.newest], name: (place, {"year": place})})

    def delete(self, name: str, place: int) -> None:
        commit = put(self.pipeline, {}, name)
        self._client_saw(place % 2, commit.session)
        model = self.models[self.newest]
        self._is_now({each: state for each, state in model.items() if each != name})

    def payload(self, name: str, place: int) -> None:
        model = self.models[self.newest]
        if name in model:
            with self.pipeline.producer.batch("tracks") as batch:
                batch.set_payloads([name], [{"year": place}])
            self._is_now({**model, name: (model[name][0], {"year": place})})

    def lose(self, _: str, __: int) -> None:
        if messages(self.pipeline):
            lose(self.pipeline, -1)

    def delay(self, _: str, __: int) -> None:
        if found := messages(self.pipeline):
            self.late.append(found[-1][1])
            lose(self.pipeline, -1)

    def deliver(self, _: str, __: int) -> None:
        if self.late:
            send(self.pipeline, self.late.pop(0))

    def repeat(self, _: str, place: int) -> None:
        if found := messages(self.pipeline):
            send(self.pipeline, found[place % len(found)][1])

    def forge(self, _: str, place: int) -> None:
        if self.genuine:
            send(self.pipeline, hostile(self.genuine[-1], random.Random(place)))

    def poll(self, _: str, __: int) -> None:
        self.pipeline.clock.advance(5)

    def rebuild(self, _: str, __: int) -> None:
        self.pipeline.rebuild()

    def restart(self, _: str, place: int) -> None:
        near = self.near[place % 2]
        near.stop()
        near.step()
        self.seen.pop(near.reader_id, None)
        self.far.stop()
        self.far = reader_without_catalog(self.pipeline)
        self.seen.pop(self.far.reader_id, None)

    def ask(self, name: str, place: int) -> None:
        """A client asks a reader for what it has written and seen, and never misses any of it."""
        client, reader = place % 2, [*self.near, self.far][place % 3]
        sent = self.sessions[client]
        try:
            snapshot = reader.acquire(Consistency.session(sent), timeout_seconds=0)
        except NotFreshError:
            assert reader is self.far  # it cannot find out what it lacks
            return
        with snapshot:
            generation = self._generation(snapshot)
            assert generation >= self.known[client]
            assert (name in snapshot["similar"]) is (name in self.models[generation])
            self._client_saw(client, snapshot.session(), sent)

    def ask_strongly(self, name: str, place: int) -> None:
        with self.near[place % 2].acquire(Consistency.strong(), timeout_seconds=0) as snapshot:
            assert self._generation(snapshot) == self.newest
            assert (name in snapshot["similar"]) is (name in self.models[self.newest])
            self._client_saw(place % 2, snapshot.session())

    def hand_over(self, _: str, place: int) -> None:
        self._client_saw(place % 2, self.sessions[1 - place % 2])

    def look(self, _: str = "", __: int = 0) -> None:
        for reader in (*self.near, self.far):
            self.check(reader)

    def check(self, reader: Reloader, *, at: int | None = None) -> None:
        """It answers whole as of one generation, and of no earlier one than before."""
        reader.step()
        with reader.acquire() as snapshot:
            found = snapshot["similar"]
            generation = self._generation(snapshot)
            assert generation >= self.seen.get(reader.reader_id, 0)
            assert at is None or generation == at
            self.seen[reader.reader_id] = generation
            model = self.models[generation]
            hits = found.search(VECTORS[0], k=100)
            assert {hit.id: hit.payload for hit in hits} == {
                name: payload for name, (_, payload) in model.items()
            }
            for hit in hits:
                vector = VECTORS[model[hit.id][0]]
                unit = vector / np.linalg.norm(vector)
                assert np.allclose(found.vector(hit.id), unit, atol=1e-6)
            late = {name for name, (_, each) in model.items() if each and each["year"] >= 10}
            asked = {"year": {"$gte": 10}}
            assert found.count(asked) == len(late)
            assert {hit.id for hit in found.search(VECTORS[0], k=100, filter=asked)} == late

    def check_after_quiet(self) -> None:
        self.pipeline.clock.advance(5)
        for reader in self.near:
            self.check(reader, at=self.newest)
        self.pipeline.settle()
        for reader in (*self.near, self.far):
            self.check(reader, at=self.newest)

    def close(self) -> None:
        self.far.stop()
        self.pipeline.close()

    def _generation(self, snapshot: Snapshot) -> int:
        generation = max(snapshot.live["tracks"], snapshot.covers["similar"]["tracks"])
        [life] = snapshot.session()
        assert life.generation == generation
        return generation

    def _client_saw(
        self, client: int, seen: SessionToken, sent: SessionToken | None = None
    ) -> None:
        session = self.sessions[client].after(sent or SessionToken(), seen)
        self.sessions[client] = session
        self.known[client] = max((life.generation for life in session), default=0)

    def _is_now(self, model: Model) -> None:
        self.models[self.newest + 1] = model
        self.genuine.append(messages(self.pipeline)[-1][1])


OPERATIONS = st.lists(
    st.tuples(
        st.sampled_from(
            [
                *(World.write, World.write, World.write, World.delete, World.payload),
                *(World.lose, World.delay, World.deliver, World.repeat, World.forge),
                *(World.poll, World.look, World.look, World.rebuild, World.restart),
                *(World.ask, World.ask, World.ask_strongly, World.hand_over),
            ]
        ),
        st.sampled_from("abcdefghij"),
        st.integers(0, len(VECTORS) - 1),
    ),
    min_size=10,
    max_size=36,
)


@settings(max_examples=8, deadline=None)
@given(operations=OPERATIONS)
def test_every_reader_answers_as_of_a_generation_and_no_client_goes_backwards(
    tmp_path_factory: pytest.TempPathFactory,
    operations: list[tuple[Callable[[World, str, int], None], str, int]],
) -> None:
    with closing(World(tmp_path_factory.mktemp("world"))) as world:
        for operation, name, place in operations:
            operation(world, name, place)
        world.check_after_quiet()
