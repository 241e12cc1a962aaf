"""An installation in the middle of an upgrade: what other versions wrote is used, not only read.

The messages and documents are the stored ones of each schema version and of the made-up next one.
Around them all is real: a server, a catalog, a store, a rebuilder, readers in processes.
"""

import json
import secrets
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import create_engine, text

from indexrelay.console.demo.job import results_in
from indexrelay.producers import NotServedError
from indexrelay.rebuilder.dead_letters import RetryOutcome, retry_dead_letter
from indexrelay.rebuilder.gc import StreamTrimmer
from indexrelay.schemas.clock import SystemClock
from indexrelay.schemas.messages import (
    FIELD,
    BatchCompleted,
    Event,
    ProcessState,
    ReaderState,
    RebuilderState,
    RebuildFinished,
    RebuildRequested,
    ReleaseApplied,
    ReleasePublished,
    Role,
)
from indexrelay.schemas.names import sha256_hex
from indexrelay.schemas.settings import Metric
from indexrelay.schemas.versions import Release
from indexrelay.storage.catalog import Catalog, Commit
from indexrelay.streams import Keys, Presence, Tail, members_of, publish
from tests.behaviour.conftest import Install, Installation
from tests.schemas.stored_messages import VERSIONS, document, message
from tests.storage.artifacts.samples import make_file
from tests.storage.rows import entries
from tests.streams.polling import eventually

pytestmark = pytest.mark.server

COMPONENT = "voyager"
EPOCH = "5f3a"
STORED_RELEASE = 42
STORED_GENERATION = 7
AROUND_THE_CURSOR = ["1772366400249-0", "1772366400250-0", "1772366400251-0"]
"""The stored reader has read up to the second of these."""
CONTENT = b'["a", "b"]'
"""What the stored manifest names."""
TABLES = """
[rebuilder]
quiet_seconds = 0.05
block_seconds = 0.2
reconcile_seconds = 3600
[reader]
block_seconds = 0.2
poll_seconds = 3600
[collections.tracks]
dimension = 2
metric = "l2"
[components.voyager]
kind = "tests.faults.kinds:RollCall"
from = "tracks"
group = "maps"
"""

each_version = pytest.mark.parametrize("version", VERSIONS)
Begin = Callable[[str], Installation]


@pytest.fixture
def begin(install: Install, started_servers: dict[str, str]) -> Begin:
    """An installation that a release of another version has filled, and nobody runs yet."""

    def beginning(version: str) -> Installation:
        namespace = f"upgrade_{secrets.token_hex(4)}"
        installation = install(started_servers["valkey"], TABLES, namespace=namespace)
        catalog, store = installation.catalog, installation.store
        catalog.collections.declare("tracks", dimension=2, metric=Metric.L2)
        _go_on_after(installation.settings.catalog_url, generation=STORED_GENERATION - 1)
        catalog.entries.commit(
            "tracks", "first", upserts=[entries("a", "b", dimension=2)], deletes=[]
        )
        store.put_blob(make_file(store.staging, CONTENT))
        manifest, release = document(version, "manifest"), document(version, "release")
        folder = store.root / "versions" / COMPONENT
        folder.mkdir()
        (folder / f"{sha256_hex(manifest)}.json").write_bytes(manifest)
        (store.root / "releases" / f"{STORED_RELEASE:08d}.json").write_bytes(release)
        return installation

    return beginning


def _go_on_after(catalog_url: str, *, generation: int) -> None:
    """Epochs are drawn at random; the stored documents speak of one, and of a later generation."""
    engine = create_engine(catalog_url)
    with engine.begin() as connection:
        connection.execute(
            text("UPDATE indexrelay_collections SET epoch = :epoch, generation = :generation"),
            {"epoch": EPOCH, "generation": generation},
        )
    engine.dispose()


def member_of(model: type[ProcessState], state: bytes) -> str:
    """Under which key a process of that version keeps its state."""
    return model.model_validate_json(state).member


def body_in_the_inbox(catalog_url: str, event_id: str) -> bytes:
    """The bytes of a row that may be finished."""
    engine = create_engine(catalog_url)
    with engine.connect() as connection:
        statement = text("SELECT body FROM indexrelay_inbox WHERE event_id = :id")
        body = connection.scalar(statement, {"id": event_id})
    engine.dispose()
    assert body is not None
    return bytes(body)


def newest(installation: Installation) -> Release:
    release = installation.store.newest_release()
    assert release is not None
    return release


def event_id(raw: bytes) -> str:
    return str(json.loads(raw)["id"])


def served(installation: Installation, reader: str) -> int:
    """The release that it has worked through; 0: none, or it is not there yet."""
    state = installation.states().get(reader)
    return state.release if state is not None else 0


def commit_of(catalog: Catalog, generation: int) -> Commit:
    found = catalog.collections.get("tracks")
    return Commit(
        collection="tracks",
        epoch=found.epoch,
        batch_id=catalog.entries.batch_ids("tracks", after=generation - 1, upto=generation)[0],
        generation=generation,
        upserts=2,
        deletes=0,
        repeated=False,
    )


@each_version
def test_a_release_and_a_manifest_of_another_version_are_served_and_built_upon(
    begin: Begin, version: str
) -> None:
    installation = begin(version)
    reader = installation.start_reader("reader-1")
    eventually(lambda: served(installation, "reader-1") == STORED_RELEASE, seconds=30)
    assert reader.ask(COMPONENT, every="ids")["ids"] == ["a", "b"]
    rebuilder = installation.start_rebuilder()
    with installation.producer.batch("tracks", "second") as batch:
        batch.upsert(["c"], [[1, 1]])
    installation.producer.wait_served(batch.commit, timeout_seconds=30, readers=["reader-1"])
    release = newest(installation)
    # Nothing was due before the batch: the version of another release of ours is as good as any.
    assert (release.number, release.previous) == (STORED_RELEASE + 1, STORED_RELEASE)
    assert reader.ask(COMPONENT, every="ids")["ids"] == ["a", "b", "c"]
    back = installation.store.rollback(STORED_RELEASE, reason="the old one was better")
    assert back.components == {COMPONENT: sha256_hex(document(version, "manifest"))}
    publish(
        installation.connection,
        Keys(installation.settings.namespace).reloads,
        message(version, ReleasePublished.TYPE),
    )
    eventually(lambda: served(installation, "reader-1") == back.number, seconds=30)
    assert reader.ask(COMPONENT, every="ids")["ids"] == ["a", "b"]
    rebuilder.stop()


@each_version
def test_events_of_another_version_are_worked_off_and_kept_as_they_came(
    begin: Begin, version: str
) -> None:
    installation = begin(version)
    keys = Keys(installation.settings.namespace)
    batch = message(version, BatchCompleted.TYPE)
    asked = message(version, RebuildRequested.TYPE)
    letter = installation.catalog.dead_letters.add(
        stream=keys.events, entry_id="1-1", raw=asked, reason="an earlier release could not read it"
    )
    for raw in (batch, batch):
        publish(installation.connection, keys.events, raw)
    installation.start_rebuilder()
    catalog_url = installation.settings.catalog_url
    eventually(lambda: _handed_over(installation), seconds=30)
    assert body_in_the_inbox(catalog_url, event_id(batch)) == batch
    # Whether it comes from the stream or from a letter, a request asks for a look and no more.
    again = retry_dead_letter(letter, catalog=installation.catalog, clock=SystemClock())
    assert (again.outcome, again.raw) == (RetryOutcome.RECEIVED, asked)
    publish(installation.connection, keys.events, asked)
    eventually(lambda: newest(installation).number > STORED_RELEASE, seconds=30)
    eventually(lambda: _handed_over(installation), seconds=30)
    kept = Event.from_bytes(body_in_the_inbox(catalog_url, event_id(asked))).data
    assert kept == RebuildRequested(request_id="r-1", reason="after a fix")
    assert installation.catalog.dead_letters.all() == []


def _handed_over(installation: Installation) -> bool:
    """Whether nothing waits in the stream or in the inbox."""
    keys = Keys(installation.settings.namespace)
    groups = installation.connection.commands.xinfo_groups(keys.events)
    return (
        bool(groups)
        and all(group["pending"] == 0 and group["lag"] == 0 for group in groups)
        and not installation.catalog.inbox.open()
    )


@each_version
def test_results_and_reports_of_another_version_are_read_and_trimmed(
    begin: Begin, version: str
) -> None:
    installation = begin(version)
    keys = Keys(installation.settings.namespace)
    tail = Tail(installation.connection, keys.results)
    tail.read(count=1, block_seconds=0)
    publish(installation.connection, keys.results, message(version, RebuildFinished.TYPE))
    publish(
        installation.connection, keys.reports("reader-a"), message(version, ReleaseApplied.TYPE)
    )
    [result] = results_in(tail.read(count=10, block_seconds=0).deliveries)
    assert (result.release, result.request_ids) == (STORED_RELEASE, ("r-1",))
    assert result.indexes_failed == ("main_map",)
    commands, published = installation.connection.commands, message(version, ReleasePublished.TYPE)
    for entry in AROUND_THE_CURSOR:
        publish(
            installation.connection, keys.reports("reader-a"), message(version, ReleaseApplied.TYPE)
        )
        commands.xadd(keys.reloads, {FIELD: published}, id=entry)
    state = document(version, "reader_state")
    Presence(installation.connection, keys, "reader").publish(
        member_of(ReaderState, state), state, ttl_seconds=60
    )
    brief = installation.settings.rebuilder.model_copy(update={"history_entries": 2})
    settings = installation.settings.model_copy(update={"rebuilder": brief})
    StreamTrimmer(settings, installation.connection, keys).trim()
    assert commands.xlen(keys.reports("reader-a")) == 2
    kept: Any = commands.xrange(keys.reloads)
    assert [entry.decode() for entry, _ in kept] == AROUND_THE_CURSOR[1:]


@each_version
def test_members_of_another_version_are_seen_waited_for_and_believed(
    begin: Begin, version: str
) -> None:
    installation = begin(version)
    keys = Keys(installation.settings.namespace)
    kinds: tuple[tuple[Role, type[ProcessState]], ...] = (
        ("reader", ReaderState),
        ("rebuilder", RebuilderState),
    )
    for kind, model in kinds:
        state = document(version, f"{kind}_state")
        Presence(installation.connection, keys, kind).publish(
            member_of(model, state), state, ttl_seconds=60
        )
    [reader] = members_of(installation.connection, keys, ReaderState).states.values()
    assert reader is not None
    assert (reader.reader, reader.release) == ("reader-a", STORED_RELEASE)
    [rebuilder] = members_of(installation.connection, keys, RebuilderState).states.values()
    assert rebuilder is not None
    assert rebuilder.failures["main_map"].failures == 2
    commit = commit_of(installation.catalog, STORED_GENERATION)
    # Without a stamp anybody might say it; such a version serves no commit of today.
    with pytest.raises(NotServedError, match="without the stamp of its commit"):
        installation.producer.wait_served(commit, timeout_seconds=0, components=[COMPONENT])
    known = installation.catalog.collections.log(commit.collection, [commit.generation]).stamps
    stamped = reader.components[COMPONENT].model_copy(
        update={"stamps": {commit.collection: known[commit.generation]}}
    )
    ours = reader.model_copy(update={"components": {COMPONENT: stamped}})
    Presence(installation.connection, keys, "reader").publish(
        reader.member, ours.model_dump_json().encode(), ttl_seconds=60
    )
    by = installation.producer.wait_served(commit, timeout_seconds=5, components=[COMPONENT])
    assert by.readers == ("reader-a",)
