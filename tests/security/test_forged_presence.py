"""Whoever has the password of one reader writes in its place whatever he likes: on a real server.

He may write 40 states of a megabyte under its label, each so that refusing it takes as long as it
can, and others every moment. Then a look at presence has an end, a wait ends in time, and builds
start; and however many processes he is, he is one reader.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest

from indexrelay.producers import NotServedError, Producer
from indexrelay.rebuilder import Rebuilder
from indexrelay.schemas.messages import ComponentState, LoadOutcome, ReaderState
from indexrelay.schemas.settings import Settings
from indexrelay.storage.artifacts import ArtifactStore
from indexrelay.storage.catalog import Catalog, Commit
from indexrelay.streams import Connection, Keys, Presence
from indexrelay.streams.presence import MAX_STATE_BYTES, MAX_STATE_FIELDS, ParsedStates
from tests.rebuilder.conftest import behaving
from tests.streams.polling import eventually

pytestmark = pytest.mark.server

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
MANY = 40
WORK_SECONDS = 10.0
"""Of the processor, for one wait. Without limits the first look alone takes half a minute."""
LIMIT_SECONDS = 60.0
"""On a machine that does much else."""
SETTINGS: dict[str, Any] = {
    "namespace": "forged",
    "collections": {"tracks": {"dimension": 2}},
    "components": {"index": {"kind": "vector_index", "from": "tracks"}},
}


@cache
def wrong(fields: int) -> str:
    """A state with so many fields that are all wrong, for an instance that is put in."""
    covers = ",".join(f'"_{number:x}":{{}}' for number in range(fields - 20))
    return (
        '{"reader":"evil","host":"h","pid":1,"release":1,"instance":"INSTANCE",'
        f'"components":{{"c":{{"outcome":"applied","covers":{{{covers}}}}}}}}}'
    )


def hostile(instance: str, fields: int) -> bytes:
    """A state of at most a megabyte."""
    return wrong(fields).replace("INSTANCE", instance).encode()[:MAX_STATE_BYTES]


def serving(catalog: Catalog, commit: Commit, member: str, *, stamped: bool = True) -> ReaderState:
    known = catalog.collections.log(commit.collection, [commit.generation]).stamps
    label, instance = member.split(":")
    component = ComponentState(
        outcome=LoadOutcome.APPLIED,
        version="0" * 64,
        covers={commit.collection: commit.generation},
        epochs={commit.collection: commit.epoch},
        stamps={commit.collection: known[commit.generation]} if stamped else {},
    )
    return ReaderState(
        reader=label, host="h", pid=1, instance=instance, started_at=NOON, updated_at=NOON,
        ready=True, release=1, components={"index": component},
    )  # fmt: skip


@pytest.fixture
def presence(real_connection: Connection) -> Iterator[Presence]:
    yield Presence(real_connection, Keys("forged"), "reader")
    real_connection.commands.flushdb()


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    opened = Catalog.open(f"sqlite:///{tmp_path / 'catalog.db'}")
    yield opened
    opened.close()


@pytest.fixture
def producer(tmp_path: Path, catalog: Catalog, real_connection: Connection) -> Iterator[Producer]:
    settings = Settings.model_validate({**SETTINGS, "data_dir": tmp_path})
    with Producer(settings, catalog=catalog, connection=real_connection) as opened:
        yield opened


@pytest.fixture
def commit(producer: Producer) -> Commit:
    with producer.batch("tracks") as batch:
        batch.upsert(["a"], [[1, 0]])
    return batch.commit


def write(presence: Presence, state: ReaderState) -> None:
    presence.publish(state.member, state.model_dump_json().encode(), ttl_seconds=60)


@pytest.mark.parametrize("fields", [MAX_STATE_FIELDS - 100, 10 * MAX_STATE_FIELDS])
def test_a_wait_ends_in_time_and_others_are_seen(
    presence: Presence, producer: Producer, catalog: Catalog, commit: Commit, fields: int
) -> None:
    for number in range(MANY):
        instance = f"{number:02x}"
        presence.publish(f"evil:{instance}", hostile(instance, fields), ttl_seconds=60)
    began = time.process_time()
    with pytest.raises(NotServedError, match=r"none is alive|could not be read in time"):
        producer.wait_served(commit, timeout_seconds=1)
    assert time.process_time() - began < WORK_SECONDS
    write(presence, serving(catalog, commit, "honest:0a"))
    asked: list[Any] = [None, 1, ["honest"]]
    for readers in asked:
        began = time.process_time()
        served = producer.wait_served(commit, timeout_seconds=LIMIT_SECONDS, readers=readers)
        assert served.readers == ("honest",)
        assert time.process_time() - began < WORK_SECONDS


def test_a_wait_for_other_readers_does_not_read_the_states_of_that_label(
    presence: Presence, producer: Producer, catalog: Catalog, commit: Commit,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    read: list[str] = []
    reads = Presence._read

    def noted(presence: Presence, members: Any) -> Any:
        read.extend(members)
        return reads(presence, members)

    monkeypatch.setattr(Presence, "_read", noted)
    presence.publish("evil:0a", hostile("0a", 100), ttl_seconds=60)
    write(presence, serving(catalog, commit, "honest:0a"))
    assert producer.wait_served(commit, timeout_seconds=0, readers=["honest"])
    assert read == ["honest:0a"]


def test_a_state_that_did_not_change_is_parsed_once(
    presence: Presence, producer: Producer, catalog: Catalog, commit: Commit,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    parsed: list[str] = []
    validate = ReaderState.model_validate_json

    def counted(raw: bytes) -> ReaderState:
        state = validate(raw)
        parsed.append(state.member)
        return state

    monkeypatch.setattr(ReaderState, "model_validate_json", counted)
    state = serving(catalog, commit, "honest:0a").model_copy(update={"components": {}})
    write(presence, state)
    with pytest.raises(NotServedError):
        producer.wait_served(commit, timeout_seconds=0.5)
    assert parsed == ["honest:0a"]
    write(presence, state.model_copy(update={"release": 2}))
    with pytest.raises(NotServedError):
        producer.wait_served(commit, timeout_seconds=0.5)
    assert parsed == ["honest:0a"] * 2


def test_a_look_ends_when_the_time_is_over_and_the_error_says_why(
    presence: Presence, producer: Producer, commit: Commit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("indexrelay.producers.served._LOOK_SECONDS", 0.0)
    for number in range(4):
        instance = f"{number:02x}"
        raw = hostile(instance, MAX_STATE_FIELDS - 100)
        presence.publish(f"evil:{instance}", raw, ttl_seconds=60)
    with pytest.raises(NotServedError, match=r"4 state\(s\) of it could not be read in time"):
        producer.wait_served(commit, timeout_seconds=0)


def test_the_password_of_one_reader_never_stands_for_another_that_is_named(
    presence: Presence, producer: Producer, catalog: Catalog, commit: Commit
) -> None:
    for number in range(20):
        write(presence, serving(catalog, commit, f"evil:{number:02x}"))
    asked: list[Any] = [["evil", "honest"], {"evil": 1, "honest": 1}, ["honest"]]
    for readers in asked:
        with pytest.raises(NotServedError):
            producer.wait_served(commit, timeout_seconds=0, readers=readers)
    write(presence, serving(catalog, commit, "honest:0a"))
    for readers in asked:
        assert "honest" in producer.wait_served(commit, timeout_seconds=0, readers=readers).readers


def test_whoever_does_not_have_the_stamp_of_a_commit_does_not_serve_it(
    presence: Presence, producer: Producer, catalog: Catalog, commit: Commit
) -> None:
    """A stamp is in the catalog and in the artifacts, which a password for Redis does not open."""
    write(presence, serving(catalog, commit, "evil:0a", stamped=False))
    with pytest.raises(NotServedError, match="without the stamp of its commit"):
        producer.wait_served(commit, timeout_seconds=0)
    forged = serving(catalog, commit, "evil:0a")
    component = forged.components["index"].model_copy(update={"stamps": {"tracks": "0" * 16}})
    write(presence, forged.model_copy(update={"components": {"index": component}}))
    with pytest.raises(NotServedError, match="which this catalog did not commit"):
        producer.wait_served(commit, timeout_seconds=0)


def test_no_build_waits_for_what_is_in_presence(
    presence: Presence,
    producer: Producer,
    real_connection: Connection,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A look that takes for ever, as if states were without limits, delays no pass."""
    settings = Settings.model_validate(
        {
            **SETTINGS,
            "data_dir": tmp_path,
            "components": {"index": behaving("tracks")},
            "rebuilder": {
                "quiet_seconds": 0.01, "block_seconds": 0.05, "reconcile_seconds": 0.1,
                "trim_seconds": 0.1, "gc_seconds": 0.1, "presence_ttl_seconds": 0.5,
            },
        }
    )  # fmt: skip
    looking, going_on = threading.Event(), threading.Event()
    parse = ParsedStates.of

    def slow(states: ParsedStates[Any], member: str, raw: bytes) -> Any:
        if member.startswith("evil:"):
            looking.set()
            going_on.wait()
        return parse(states, member, raw)

    store = ArtifactStore(settings.artifacts_dir)
    with closing(Catalog.open(settings.catalog_url)) as catalog:
        rebuilder = Rebuilder(settings, catalog=catalog, store=store, connection=real_connection)
        rebuilder.start()
        try:
            eventually(lambda: rebuilder._readers._last is not None)
            monkeypatch.setattr(ParsedStates, "of", slow)
            presence.publish("evil:0a", hostile("0a", 100), ttl_seconds=60)
            assert looking.wait(LIMIT_SECONDS)
            with Producer(settings, catalog=catalog, connection=real_connection) as job:
                for number in range(1, 4):
                    with job.batch("tracks") as batch:
                        batch.upsert([str(number)], [[1, 0]])
                    eventually(partial(_has_reached, store, batch.commit.generation))
        finally:
            going_on.set()
            rebuilder.stop()


def _has_reached(store: ArtifactStore, generation: int) -> bool:
    """Whether the newest release covers a generation."""
    release = store.newest_release()
    if release is None:
        return False
    covers = store.version("index", release.components["index"]).covers
    return covers["tracks"] == generation
