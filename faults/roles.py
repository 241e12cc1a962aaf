"""Programs that write and watch: ``python -m faults.roles producer|rebuilder|publisher|watcher …``.

``producer CONFIG`` is a job: each line on standard input is one batch, each line on standard output
reports its commit.

``rebuilder CONFIG ID OFFSET_FILE`` is a rebuilder whose clock a scenario may move. The file holds
the seconds by which the wall clock is wrong; it is read at every look at the clock. A machine's
monotonic clock cannot be set, so that one is right.

``publisher STORE COMPONENT…`` publishes releases: each line on standard input is one thing to do,
each line on standard output its answer. ``{"build": {component: generation}}`` puts versions into
the store and answers with their ids; ``{"publish": {component: id}}`` answers with the release that
came of them, or ``null``: nothing was newer.

``watcher STORE`` reads every release file from the moment when it has its name, and the newest ones
again and again, as a reader would and as bytes. A line on standard input asks what it saw.
"""

import hashlib
import json
import os
import select
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np

from faults.kinds import FILE
from faults.recorder import COLLECTION
from indexrelay.console.processes import Stop
from indexrelay.producers import Producer
from indexrelay.rebuilder import Rebuilder
from indexrelay.rebuilder.publisher import Publisher
from indexrelay.schemas.clock import SystemClock
from indexrelay.schemas.failpoints import arm
from indexrelay.schemas.logs import configure_logs
from indexrelay.schemas.settings import ComponentDefinition
from indexrelay.schemas.settings_file import load_settings
from indexrelay.schemas.versions import Release, VersionManifest
from indexrelay.storage.artifacts import ArtifactStore
from indexrelay.storage.artifacts.files import staged_name
from indexrelay.storage.catalog import Catalog
from indexrelay.streams import Connection


def run_producer(config: str) -> None:
    arm(os.environ)
    settings = load_settings(Path(config), environ={})
    configure_logs(settings.log)
    with Producer.open(settings) as producer:
        for line in sys.stdin:
            message = json.loads(line)
            with producer.batch("tracks", message["batch_id"]) as batch:
                batch.upsert(message["ids"], np.ones((len(message["ids"]), 2), dtype=np.float32))
            commit = batch.commit
            answer = {"generation": commit.generation, "repeated": commit.repeated}
            sys.stdout.write(json.dumps(answer) + "\n")
            sys.stdout.flush()


_NEVER_SECONDS = 3600.0


class WrongClock(SystemClock):
    """Wrong by the seconds in the file."""

    def __init__(self, offset: Path) -> None:
        self._offset = offset

    def now(self) -> datetime:
        return super().now() + timedelta(seconds=float(self._offset.read_text(encoding="ascii")))


def run_rebuilder(config: str, rebuilder_id: str, offset: str) -> None:
    arm(os.environ)
    settings = load_settings(Path(config), environ={})
    configure_logs(settings.log)
    clock = WrongClock(Path(offset))
    catalog = Catalog.open(settings.catalog_url, clock=clock)
    assert settings.redis_url is not None
    with Stop() as stop, Connection.open(settings.redis_url) as connection:
        rebuilder = Rebuilder(
            settings,
            catalog=catalog,
            store=ArtifactStore(settings.artifacts_dir, clock=clock),
            connection=connection,
            clock=clock,
            rebuilder_id=rebuilder_id,
        )
        rebuilder.start()
        while not stop.wait(_NEVER_SECONDS):
            pass
        rebuilder.stop()
    catalog.close()


KIND = "faults.kinds:RollCall"
EPOCH = "e"


def run_publisher(folder: str, *components: str) -> None:
    arm(os.environ)
    store = ArtifactStore(Path(folder))
    definitions = {name: ComponentDefinition.of(KIND, COLLECTION) for name in components}
    publisher = Publisher(store=store, clock=SystemClock())
    for line in sys.stdin:
        message = json.loads(line)
        if "build" in message:
            answer: object = {
                name: _build(store, name, definitions[name], generation)
                for name, generation in message["build"].items()
            }
        else:
            answer = _publish(publisher, store, definitions, message["publish"])
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def _build(
    store: ArtifactStore, name: str, definition: ComponentDefinition, generation: int
) -> str:
    """A version that covers ``generation``, and whose file records that."""
    with staged_name(store.staging) as file:
        file.write_text(json.dumps([f"{name}-{generation}"]), encoding="utf-8")
        blob = store.put_blob(file)
    return store.put_version(
        VersionManifest(
            component=name,
            kind=definition.kind,
            definition=definition.digest,
            covers={COLLECTION: generation},
            epochs={COLLECTION: EPOCH},
            files={FILE: blob},
            entries=1,
            created_at=SystemClock().now(),
        )
    )


def _publish(
    publisher: Publisher,
    store: ArtifactStore,
    definitions: Mapping[str, ComponentDefinition],
    built: Mapping[str, str],
) -> object:
    """What a pass does with what it built: the real publisher decides what is still newer."""
    manifests = {name: store.version(name, version) for name, version in built.items()}
    release = publisher.publish(manifests, definitions=definitions, reason="at once").release
    return None if release is None else {"number": release.number, "digest": release.digest}


_AGAIN = 3
"""How many of the newest files are read again at every look: a publisher might touch these."""


class Watcher:
    """What one pair of eyes saw."""

    def __init__(self, store: ArtifactStore) -> None:
        self._store = store
        self._folder = store.root / "releases"
        self._newest = 0
        self.looks = 0
        self.seen: dict[int, set[str]] = {}
        """By number: the digests of the file's bytes."""
        self.wrong: Counter[str] = Counter()

    def look(self) -> None:
        """Once at the files, and once through the store."""
        self.looks += 1
        for file in sorted(self._folder.iterdir(), reverse=True)[: _AGAIN + 1]:
            self._read(file)
        newest = self._store.newest_release()
        number = newest.number if newest is not None else 0
        if number < self._newest:
            self.wrong[f"the newest release went from {self._newest} to {number}"] += 1
        self._newest = max(self._newest, number)
        for broken in self._store.broken_releases.values():
            self.wrong[f"the store calls one broken: {broken}"] += 1

    def look_at_all(self) -> None:
        """Every file there is."""
        for file in self._folder.iterdir():
            self._read(file)

    def _read(self, file: Path) -> None:
        data = file.read_bytes()
        try:
            release = Release.model_validate_json(data)
        except ValueError as error:
            self.wrong[f"{file.name} is no release: {error}"] += 1
            return
        if not release.intact or file.name != f"{release.number:08d}.json":
            self.wrong[f"{file.name} is not whole"] += 1
        self.seen.setdefault(release.number, set()).add(hashlib.sha256(data).hexdigest())


def run_watcher(folder: str) -> None:
    watcher = Watcher(ArtifactStore(Path(folder)))
    while True:
        watcher.look()
        asked, _, _ = select.select([sys.stdin], [], [], 0)
        if not asked:
            continue
        if not sys.stdin.readline():
            return
        watcher.look_at_all()
        answer = {
            "looks": watcher.looks,
            "seen": {number: sorted(digests) for number, digests in watcher.seen.items()},
            "wrong": [f"{what} ({times} times)" for what, times in watcher.wrong.items()],
        }
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


PROGRAMS: Mapping[str, Callable[..., None]] = {
    "producer": run_producer,
    "rebuilder": run_rebuilder,
    "publisher": run_publisher,
    "watcher": run_watcher,
}

if __name__ == "__main__":
    PROGRAMS[sys.argv[1]](*sys.argv[2:])
