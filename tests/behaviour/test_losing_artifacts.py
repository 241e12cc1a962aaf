"""The artifact store is wiped while readers serve: they go on, and follow what is built anew."""

import shutil

import pytest

from indexrelay.storage.artifacts import ArtifactStore
from indexrelay.streams import Keys, current_release
from tests.behaviour.conftest import Install, Installation
from tests.streams.polling import eventually

pytestmark = pytest.mark.server

TABLES = """
[rebuilder]
quiet_seconds = 0.05
block_seconds = 0.2
reconcile_seconds = 0.5
[reader]
block_seconds = 0.2
poll_seconds = 0.5
[collections.tracks]
dimension = 2
metric = "l2"
[components.voyager]
kind = "faults.kinds:RollCall"
from = "tracks"
"""


def commit(installation: Installation, name: str) -> None:
    with installation.producer.batch("tracks", name) as batch:
        batch.upsert([name], [[1, 1]])
    installation.producer.wait_served(batch.commit, timeout_seconds=30, readers=["reader-1"])


def serving(installation: Installation) -> int:
    return installation.states()["reader-1"].release


def test_readers_follow_a_store_that_was_wiped_and_filled_again(
    install: Install, started_servers: dict[str, str]
) -> None:
    installation = install(started_servers["valkey"], TABLES, namespace="losing_artifacts")
    reader = installation.start_reader("reader-1")
    rebuilder = installation.start_rebuilder()
    for name in ("a", "b", "c"):
        commit(installation, name)
    served = serving(installation)
    rebuilder.stop()
    shutil.rmtree(installation.settings.artifacts_dir)
    # Nothing is lost from memory, and nothing can be concluded from a store that is not there.
    assert reader.ask("voyager", every="ids") == {"release": served, "ids": ["a", "b", "c"]}

    installation.store = ArtifactStore(installation.settings.artifacts_dir)
    installation.start_rebuilder()
    eventually(lambda: serving(installation) > served, seconds=30)
    keys = Keys(installation.settings.namespace)
    newest = installation.store.newest_release()
    assert newest is not None
    assert newest.number == current_release(installation.connection, keys) == serving(installation)
    commit(installation, "d")
    assert reader.ask("voyager", every="ids")["ids"] == ["a", "b", "c", "d"]
    assert reader.stop() == 0
