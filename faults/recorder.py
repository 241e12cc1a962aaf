"""Asks every witness what happened, and makes one history of it."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from sqlalchemy import create_engine, text

from faults.history import (
    Announced,
    Answered,
    AskedFor,
    Batch,
    History,
    Left,
    Part,
    QueryFailed,
    Released,
    Reported,
    SaidWell,
    Sample,
    Told,
    Version,
    content_digest,
)
from faults.kinds import FILE
from indexrelay.health.judge import judge
from indexrelay.health.survey import Survey
from indexrelay.schemas.clock import SystemClock
from indexrelay.schemas.errors import UnreadableEventError
from indexrelay.schemas.messages import (
    BatchCompleted,
    Event,
    ReaderState,
    RebuildRequested,
    ReleaseApplied,
    ReleasePublished,
)
from indexrelay.schemas.settings import Settings
from indexrelay.schemas.versions import BlobRef, VersionManifest
from indexrelay.storage.artifacts import ArtifactStore
from indexrelay.storage.catalog import Catalog
from indexrelay.storage.urls import driver_url
from indexrelay.streams import Connection, Keys, members_of
from indexrelay.streams.consumer import stream_info
from indexrelay.streams.keys import scan

COLLECTION = "tracks"
_GROUP = "rebuilder"


class Recorder:
    """Watches one installation, and returns its history at the end."""

    def __init__(
        self,
        settings: Settings,
        *,
        catalog: Catalog,
        store: ArtifactStore,
        connection: Connection,
        samples: Path,
    ) -> None:
        self._settings = settings
        self._catalog = catalog
        self._store = store
        self._connection = connection
        self._keys = Keys(settings.namespace)
        self._samples = samples
        self._engine = create_engine(driver_url(settings.catalog_url))
        self._seen: dict[int, set[str]] = {}
        self._versions: dict[str, Version] = {}
        self._announced: dict[bytes, Announced] = {}
        self._emitted: dict[bytes, int] = {}
        self._reports: dict[bytes, Reported] = {}
        self._said_well: list[SaidWell] = []
        self.committed: dict[str, tuple[str, ...]] = {}
        """What was in each batch, by its id; written by who commits it."""
        self.deleted: dict[str, tuple[str, ...]] = {}
        """What a batch took away, by its id; written by who commits it."""
        self.clients: list[Told | Answered] = []
        """What clients were told and answered; written by them."""
        self.forged: set[bytes] = set()
        """Forged messages: they prove nothing."""
        self.corrupt: set[Path] = set()
        """Files of the store that a scenario corrupted; what they hold now proves nothing."""
        self.distrusted: set[str] = set()
        """Labels of readers under which an intruder reports: that proves nothing."""

    def close(self) -> None:
        self._engine.dispose()

    def watch(self) -> None:
        """Look at what may be changed or wiped later; call it before a server loses its data."""
        for file in (self._store.root / "releases").glob("*.json"):
            if file not in self.corrupt:
                digest = hashlib.sha256(file.read_bytes()).hexdigest()
                self._seen.setdefault(int(file.stem), set()).add(digest)
        for file in self.manifests():
            self._look_at(file)
        for entry, event in self.events(self._keys.events):
            if isinstance(event.data, BatchCompleted):
                self._emitted[entry] = event.data.generation
        for entry, event in self.events(self._keys.reloads):
            if isinstance(event.data, ReleasePublished):
                data = event.data
                self._announced[entry] = Announced(number=data.release, digest=data.digest)
        for entry, event in self.reports():
            if isinstance(event.data, ReleaseApplied):
                self._reports[entry] = Reported(
                    reader=event.data.reader, release=event.data.release
                )

    def judge(self) -> None:
        """Ask the judge, and record what there is if all is well.

        Whatever moves meanwhile is no witness: the release has to be the same before and after.
        """
        before = self._store.newest_release()
        verdict = judge(
            Survey(
                self._settings,
                catalog=lambda: self._catalog,
                store=lambda: self._store,
                connection=lambda: self._connection,
                clock=SystemClock(),
            ).whole()
        )
        if before is None or not verdict.well:
            return
        readers = members_of(self._connection, self._keys, ReaderState).known
        if self._store.newest_release() == before:
            self._said_well.append(
                SaidWell(
                    newest=before.number,
                    components=before.components,
                    readers={
                        member: (state.release, _served(state))
                        for member, state in readers.items()
                        if state.label not in self.distrusted
                    },
                )
            )

    def left(self) -> Left:
        """What is still to do."""
        commands = self._connection.commands
        there = commands.exists(self._keys.events)
        groups: Any = commands.xinfo_groups(self._keys.events) if there else []
        mine = [group for group in groups if group["name"] == _GROUP.encode()]
        last = stream_info(self._connection, self._keys.events).last_generated.to_bytes()
        leases = [self._keys.lease(name) for name in self._settings.components]
        return Left(
            unread=sum(group["last-delivered-id"] != last for group in mine),
            pending=sum(group["pending"] for group in mine),
            inbox=len(self._catalog.inbox.open()),
            retries=len(self._catalog.attempts.all()),
            leases=int(commands.exists(*leases)),
        )

    def history(self) -> History:
        """Everything, as of now."""
        self.watch()
        self.judge()
        releases = tuple(self._released(number) for number in sorted(self._seen))
        samples, failed = _read_samples(self._samples)
        letters = self._catalog.dead_letters.all()
        return History(
            components=tuple(self._settings.components),
            batches=tuple(self._batches()),
            emitted=tuple(self._emitted.values()),
            versions=tuple(self._versions.values()),
            releases=releases,
            announced=tuple(self._announced.values()),
            samples=tuple(samples),
            query_failures=tuple(failed),
            reports=tuple(self._reports.values()),
            clients=tuple(self.clients),
            failures={
                name: attempt.targets.get(COLLECTION, 0)
                for name, attempt in self._catalog.attempts.all().items()
            },
            dead=frozenset(_generations(letter.raw for letter in letters)),
            said_well=tuple(self._said_well),
            left=self.left(),
            requests=tuple(self._requests()),
            max_shrink={
                name: definition.max_shrink
                for name, definition in self._settings.components.items()
            },
            corrupt=frozenset(self._corrupt_versions()),
        )

    def _corrupt_versions(self) -> Iterator[str]:
        names = {path.name for path in self.corrupt}
        for version in self._versions.values():
            if not names.isdisjoint({f"{version.id}.json", version.blob}):
                yield version.id

    def inbox_rows(self) -> int:
        """How many events were ever taken for news."""
        with self._engine.connect() as connection:
            return int(connection.scalar(text("SELECT count(*) FROM indexrelay_inbox")) or 0)

    def _batches(self) -> Iterator[Batch]:
        with self._engine.connect() as connection:
            rows = connection.execute(
                text("SELECT batch_id, generation FROM indexrelay_batches ORDER BY generation")
            )
            for batch_id, generation in rows:
                yield Batch(
                    batch_id=batch_id,
                    generation=generation,
                    upserts=self.committed[batch_id],
                    deletes=self.deleted.get(batch_id, ()),
                )

    def _requests(self) -> Iterator[AskedFor]:
        with self._engine.connect() as connection:
            bodies = connection.execute(text("SELECT body FROM indexrelay_inbox WHERE requested"))
            for (body,) in bodies:
                data = Event.from_bytes(bytes(body)).data
                assert isinstance(data, RebuildRequested)
                yield AskedFor(components=data.components, force=data.force)

    def manifests(self) -> list[Path]:
        """Every version that was ever built."""
        return sorted((self._store.root / "versions").glob("*/*.json"))

    def _look_at(self, file: Path) -> None:
        """Take down a version when it is seen first, since its files may be corrupt later."""
        if file.stem in self._versions or file in self.corrupt:
            return
        manifest = VersionManifest.model_validate_json(file.read_bytes())
        blob = manifest.files.get(FILE)
        if blob is None:
            return  # of a kind that does not say what it holds
        path = self.path_of(blob)
        # Read by ourselves: the store would note for all that it was checked.
        raw = path.read_bytes() if path.is_file() else b""
        if hashlib.sha256(raw).hexdigest() != blob.digest:
            assert path in self.corrupt, f"{path} is not what it was"
            return
        self._versions[file.stem] = Version(
            component=manifest.component,
            id=file.stem,
            covers=manifest.covers[COLLECTION],
            content=content_digest(json.loads(raw)),
            blob=blob.digest,
            parents=manifest.parents,
            entries=manifest.entries,
            definition=manifest.definition,
        )

    def path_of(self, blob: BlobRef) -> Path:
        """Where a blob lies, whatever is there."""
        return self._store.root / "blobs" / "sha256" / blob.digest[:2] / blob.digest

    def _released(self, number: int) -> Released:
        release = self._store.release(number)
        return Released(
            number=number,
            components=release.components,
            groups=release.groups,
            holds=frozenset(release.holds),
            digest=release.digest,
            seen=frozenset(self._seen[number]),
        )

    def events(self, key: str) -> Iterator[tuple[bytes, Event]]:
        """Everything readable in one stream, by entry id."""
        entries: Any = self._connection.commands.xrange(key)
        for entry, fields in entries:
            raw = fields.get(b"event")
            if raw is None or raw in self.forged:
                continue
            try:
                yield entry, Event.from_bytes(raw)
            except UnreadableEventError:
                continue  # poison that a scenario put there: the dead letters have it

    def reports(self) -> Iterator[tuple[bytes, Event]]:
        """Every readable report, by its stream and entry id."""
        lies = {self._keys.reports(label) for label in self.distrusted}
        for key in sorted({*scan(self._connection, self._keys.reports("*"))} - lies):
            for entry, event in self.events(key):
                yield b"%s %s" % (key.encode(), entry), event


def _served(state: ReaderState) -> dict[str, str | None]:
    return {name: component.version for name, component in state.components.items()}


def _generations(raws: Iterable[bytes]) -> Iterator[int]:
    for raw in raws:
        try:
            data = Event.from_bytes(raw).data
        except UnreadableEventError:
            continue
        if isinstance(data, BatchCompleted):
            yield data.generation


def _read_samples(folder: Path) -> tuple[list[Sample], list[QueryFailed]]:
    samples: list[Sample] = []
    failed: list[QueryFailed] = []
    for file in sorted(folder.glob("*.jsonl")):
        for line in file.read_text(encoding="utf-8").splitlines():
            record: Mapping[str, Any] = json.loads(line)
            if "error" in record:
                failed.append(QueryFailed(reader=file.stem, error=record["error"]))
            elif "parts" in record:
                parts = {name: Part(**part) for name, part in record["parts"].items()}
                samples.append(Sample(**{**record, "reader": file.stem, "parts": parts}))
    return samples, failed
