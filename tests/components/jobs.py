"""What a kind's test needs of a rebuilder: a collection in memory, a job, and a whole run of it."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from indexrelay.components.kind import Built, ComponentInput, Job, Kind, PreviousVersion
from indexrelay.schemas.settings import Metric
from indexrelay.schemas.versions import BlobRef, Check, VersionManifest
from indexrelay.storage.entries import CHUNK_ROWS, Changes, Entries, Vectors


@dataclass(frozen=True, kw_only=True)
class Row:
    """One entry."""

    vector: Vectors
    text: str | None = None
    payload: str | None = None


class MemorySnapshot:
    """A `SourceSnapshot` over a dict; `commit` makes the next one and leaves this one as it is."""

    def __init__(
        self,
        rows: Mapping[str, Row],
        *,
        dimension: int,
        metric: Metric = Metric.COSINE,
        collection: str = "tracks",
        epoch: str = "epoch-1",
        generation: int = 1,
        touched: Mapping[str, int] | None = None,
    ) -> None:
        self.rows = dict(rows)
        self.dimension = dimension
        self.metric = metric
        self.collection = collection
        self.epoch = epoch
        self.generation = generation
        # The generation of each id's last change, deleted ids included.
        self.touched = dict.fromkeys(rows, generation) if touched is None else dict(touched)

    @property
    def count(self) -> int:
        return len(self.rows)

    @property
    def ids(self) -> list[str]:
        return sorted(self.rows, key=str.encode)

    @property
    def matrix(self) -> Vectors:
        """All vectors, in the order of `ids`."""
        return self._entries(self.ids).vectors

    def chunks(self, rows: int = CHUNK_ROWS) -> Iterator[Entries]:
        for ids in _slices(self.ids, rows):
            yield self._entries(ids)

    @property
    def left_out(self) -> Mapping[str, int]:
        return {}

    def changes(self, after: int, rows: int = CHUNK_ROWS) -> Iterator[Changes] | None:
        changed = sorted(
            (name for name, generation in self.touched.items() if generation > after),
            key=str.encode,
        )
        return (
            Changes(
                upserts=self._entries([name for name in ids if name in self.rows]),
                deletes=[name for name in ids if name not in self.rows],
            )
            for ids in _slices(changed, rows)
        )

    def commit(
        self, upserts: Mapping[str, Row] | None = None, deletes: Sequence[str] = ()
    ) -> "MemorySnapshot":
        """The same collection one generation later."""
        upserts = upserts or {}
        generation = self.generation + 1
        rows = {name: row for name, row in self.rows.items() if name not in set(deletes)}
        return MemorySnapshot(
            {**rows, **upserts},
            dimension=self.dimension,
            metric=self.metric,
            collection=self.collection,
            epoch=self.epoch,
            generation=generation,
            touched={**self.touched, **dict.fromkeys([*upserts, *deletes], generation)},
        )

    def _entries(self, ids: Sequence[str]) -> Entries:
        rows = [self.rows[name] for name in ids]
        vectors = np.array([row.vector for row in rows], dtype=np.float32)
        return Entries(
            ids=list(ids),
            vectors=vectors.reshape(len(rows), self.dimension),
            texts=[row.text for row in rows],
            payloads=[row.payload for row in rows],
        )


def make_snapshot(
    vectors: Vectors,
    *,
    ids: Sequence[str] | None = None,
    texts: Sequence[str | None] | None = None,
    payloads: Sequence[str | None] | None = None,
    metric: Metric = Metric.COSINE,
    collection: str = "tracks",
) -> MemorySnapshot:
    """A snapshot of these columns; ids default to ``e000000``, ``e000001``, …"""
    count, dimension = vectors.shape
    names = [f"e{row:06d}" for row in range(count)] if ids is None else ids
    return MemorySnapshot(
        {
            name: Row(
                vector=np.asarray(vectors[row], dtype=np.float32),
                text=None if texts is None else texts[row],
                payload=None if payloads is None else payloads[row],
            )
            for row, name in enumerate(names)
        },
        dimension=dimension,
        metric=metric,
        collection=collection,
    )


def clustered(
    count: int, dimension: int, *, clusters: int = 32, spread: float = 0.35, seed: int = 7
) -> Vectors:
    """Vectors in Gaussian clusters, shape ``(count, dimension)``, float32: real data has them."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((clusters, dimension))
    noise = spread * rng.standard_normal((count, dimension))
    return (centres[rng.integers(clusters, size=count)] + noise).astype(np.float32)


def make_job(
    workdir: Path,
    *snapshots: MemorySnapshot,
    component: str = "component",
    components: Mapping[str, ComponentInput] | None = None,
    previous: PreviousVersion | None = None,
    threads: int = 2,
    progress: list[float] | None = None,
) -> Job:
    """A job over these collections; ``workdir`` is made where it is missing."""
    workdir.mkdir(parents=True, exist_ok=True)
    seen = [] if progress is None else progress
    return Job(
        component=component,
        collections={snapshot.collection: snapshot for snapshot in snapshots},
        components=components or {},
        previous=previous,
        workdir=workdir,
        threads=threads,
        progress=seen.append,
    )


@dataclass(frozen=True, kw_only=True)
class Run:
    """What one build and its verification gave."""

    built: Built
    files: dict[str, Path]
    checks: list[Check]

    @property
    def failed(self) -> list[str]:
        """The names of the gates that did not pass."""
        return [check.name for check in self.checks if not check.passed]

    def check(self, name: str) -> Check:
        """The gate of that name."""
        return next(check for check in self.checks if check.name == name)


def run(kind: Kind[Any, Any], job: Job) -> Run:
    """Build and verify, as the rebuilder does."""
    built = kind.build(job)
    files = {name: _place(job, name, file) for name, file in built.files.items()}
    stored = replace(built, files={name: _blob(file) for name, file in files.items()})
    return Run(built=built, files=files, checks=list(kind.verify(job, stored, files)))


def as_previous(job: Job, done: Run) -> PreviousVersion:
    """What the next build of the same component is given."""
    return PreviousVersion(manifest=make_manifest(job, done), files=done.files)


def make_manifest(job: Job, done: Run, *, kind: str = "kind") -> VersionManifest:
    """The manifest that the rebuilder would write."""
    return VersionManifest(
        component=job.component,
        kind=kind,
        definition="0" * 64,
        covers={name: snapshot.generation for name, snapshot in job.collections.items()},
        epochs={name: snapshot.epoch for name, snapshot in job.collections.items()},
        files={name: _blob(file) for name, file in done.files.items()},
        entries=done.built.entries,
        counts=dict(done.built.counts),
        checks=tuple(done.checks),
        details=done.built.details,
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
    )


def _place(job: Job, name: str, file: Path | BlobRef) -> Path:
    if isinstance(file, Path):
        return file
    assert job.previous is not None, f"{name} names a blob, but there is no previous version"
    return job.previous.files[name]


def _blob(file: Path) -> BlobRef:
    raw = file.read_bytes()
    return BlobRef(digest=hashlib.sha256(raw).hexdigest(), size=len(raw))


def _slices(names: Sequence[str], rows: int) -> Iterator[Sequence[str]]:
    for start in range(0, len(names), rows):
        yield names[start : start + rows]
