"""One build, from the source to a version in the store: what a child process does.

The source is read in one snapshot, which stays open until the gates have decided, so that both see
the same entries, and longer where the next build has to read the same. The version covers the
generation that was read inside the snapshot, whatever was asked for.

Components of one group are released together, so they have to contain the same generation of what
they share. A snapshot cannot be opened again once somebody has committed, and two processes cannot
share one. So what has to agree is built one after another from the very same snapshot.

Then come the gates that every kind shares, the kind's own (`run_gates`), and those of the
component's table (`indexrelay.rebuilder.builds.gates`). They look at the files on disk, in handles
of their own. A gate that raises has failed, and so has a `verify` that yields no check: a version
that was not checked is never released.
"""

import hashlib
import shutil
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from indexrelay.components.errors import NotContinuedError
from indexrelay.components.kind import (
    UNLIMITED,
    BuildMemory,
    Built,
    ComponentInput,
    Goal,
    Job,
    Kind,
    PreviousVersion,
)
from indexrelay.components.registry import (
    checked_build,
    checks_of,
    kind_class,
    kind_of,
    loads,
    served,
)
from indexrelay.components.served import Served
from indexrelay.rebuilder.builds import (
    BuildRequest,
    BuildSession,
    GateFailedError,
    NoRoomError,
    Progress,
)
from indexrelay.rebuilder.builds.gates import check_room, function_checks, growth_check
from indexrelay.schemas import commands
from indexrelay.schemas.clock import Clock
from indexrelay.schemas.diagnostics import describe_error
from indexrelay.schemas.failpoints import failpoint
from indexrelay.schemas.gates import is_quality
from indexrelay.schemas.loggers import get_logger
from indexrelay.schemas.messages import BuildMode, BuildOutcome, ComponentResult
from indexrelay.schemas.names import shortened
from indexrelay.schemas.parameter_files import recorded
from indexrelay.schemas.progress import BuildStep
from indexrelay.schemas.settings import CollectionSettings
from indexrelay.schemas.versions import BlobRef, Check, VersionManifest
from indexrelay.storage.artifacts import ArtifactStore, StagedBlob, VersionUnreadableError
from indexrelay.storage.catalog import Catalog
from indexrelay.storage.entries import SourceSnapshot
from indexrelay.storage.errors import UnknownCollectionError, is_transient
from indexrelay.storage.sources import open_source

_FILES_AT_ONCE: Final = 4
"""Threads that hash, read back and force to disk what was built; never more than the build has."""
_REASON: Final = 1000
"""Characters of a build's reason: a gate's detail is a user's text."""
_log = get_logger(__name__)


class Snapshots:
    """Opens each collection once, when a build first reads it; for use by one thread."""

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog
        self._stack = ExitStack()
        self._open: dict[str, SourceSnapshot] = {}

    def of(self, collection: str, settings: CollectionSettings) -> SourceSnapshot:
        """The collection at the moment when it was first read.

        Raises:
            SourceError: it cannot be read.
        """
        if collection not in self._open:
            source = open_source(collection, settings, self.catalog)
            self._open[collection] = self._stack.enter_context(source.snapshot())
        return self._open[collection]

    def close(self) -> None:
        """Close all; what is read after that is opened again. Safe twice."""
        self._open.clear()
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def build_component(
    request: BuildRequest,
    *,
    snapshots: Snapshots,
    store: ArtifactStore,
    clock: Clock,
    progress: Progress,
    memory: BuildMemory = UNLIMITED,
) -> ComponentResult:
    """Build, verify and store one component; a build that fails is a result, not an error.

    Args:
        snapshots: what it reads its collections from. They are closed where the build fails for a
            transient cause, since they may be the cause.
    """
    started_at, started = clock.now(), clock.monotonic()
    try:
        with ExitStack() as stack:
            build = _VersionBuild(
                request, snapshots=snapshots, store=store, clock=clock, stack=stack
            )
            manifest, mode = build.run(progress, memory)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - the component fails, nothing else
        transient = isinstance(error, NoRoomError) or is_transient(error, memory=False)
        if transient:
            snapshots.close()
        return ComponentResult(
            outcome=BuildOutcome.FAILED,
            version=request.previous,
            started_at=started_at,
            seconds=clock.monotonic() - started,
            checks=error.checks if isinstance(error, GateFailedError) else (),
            error=_sentence(error),
            transient=transient,
        )
    return ComponentResult(
        outcome=BuildOutcome.REBUILT,
        version=manifest.id,
        covers=manifest.covers,
        entries=manifest.entries,
        bytes=manifest.size,
        mode=mode,
        started_at=started_at,
        seconds=clock.monotonic() - started,
        build_seconds=manifest.build_seconds,
        verify_seconds=manifest.verify_seconds,
        checks=manifest.checks,
    )


def _sentence(error: BaseException) -> str:
    """The error in one line, and where in the user's own code it was raised."""
    if isinstance(error, MemoryError):
        return f"ran out of memory: {error}" if str(error) else "ran out of memory"
    return str(error) if isinstance(error, GateFailedError) else describe_error(error)


@dataclass(frozen=True, kw_only=True)
class _Verified:
    """What was built, and what the gates found."""

    built: Built
    blobs: Mapping[str, BlobRef]
    staged: Sequence[StagedBlob]
    """Those that are new."""
    checks: tuple[Check, ...]
    build_seconds: float
    verify_seconds: float

    @property
    def passed(self) -> bool:
        return not any(check.refuses for check in self.checks)


class _VersionBuild:
    """The steps of one build; everything that it opens itself is on ``stack``."""

    def __init__(
        self,
        request: BuildRequest,
        *,
        snapshots: Snapshots,
        store: ArtifactStore,
        clock: Clock,
        stack: ExitStack,
    ) -> None:
        self._request = request
        self._snapshots = snapshots
        self._catalog = snapshots.catalog
        self._store = store
        self._clock = clock
        self._stack = stack

    def run(self, progress: Progress, memory: BuildMemory) -> tuple[VersionManifest, BuildMode]:
        """Build, verify, store, and write the manifest.

        Raises:
            GateFailedError: the version does not pass its gates; nothing was stored.
            NotContinuedError: an improvement cannot be continued.
        """
        kind = kind_of(self._request.definition)
        progress(BuildStep.READING, None)
        job = self._job(progress, memory)
        if job.previous is None or job.from_scratch:
            check_room(job, self._store, serving=self._serving())
        verified = self._build_and_verify(kind, job, progress)
        continues_only = job.goal is Goal.CATCH_UP
        if continues_only and not verified.built.extends:
            raise NotContinuedError("it was to be continued, and was built in full")
        if not verified.passed and verified.built.extends and not continues_only:
            failed = verified.checks
            _empty(job.workdir)
            reason = shortened(f"the incremental build failed: {GateFailedError(failed)}", _REASON)
            verified = self._build_and_verify(
                kind, replace(job, from_scratch=True, full_reason=reason), progress
            )
            verified = replace(verified, built=_after_failed_gates(verified.built, failed, reason))
        if not verified.passed:
            raise GateFailedError(verified.checks)
        progress(BuildStep.STORING, None)
        for staged in verified.staged:
            failpoint("build.before_blob")
            self._store.put_blob(staged)
            failpoint("build.after_blob")
        for label in kind.sandboxed & verified.blobs.keys():  # the gates opened them in here
            self._store.remember_opened(verified.blobs[label])
        manifest = self._manifest(job, verified)
        failpoint("build.before_manifest")
        self._store.put_version(manifest)
        failpoint("build.after_manifest")
        return manifest, BuildMode.INCREMENTAL if verified.built.extends else BuildMode.FULL

    def _job(self, progress: Progress, memory: BuildMemory) -> Job:
        """What the kind is given: its inputs, and the version that it may continue."""
        request = self._request
        collections: dict[str, SourceSnapshot] = {}
        components: dict[str, ComponentInput] = {}
        for name in request.definition.inputs:
            if name in request.parents:
                components[name] = self._parent(name, request.parents[name])
            else:
                collections[name] = self._snapshots.of(name, request.collections[name])
        previous, full_reason = self._previous(collections)
        if previous is not None and self._has_other_history(previous.manifest):
            full_reason = "the catalog has another history than the last version"
        elif previous is not None and request.full:
            full_reason = "a full build was asked for"
        elif previous is not None and request.goal is Goal.IMPROVEMENT:
            full_reason = "it improves the version that serves"
        return Job(
            component=request.component,
            collections=collections,
            components=components,
            previous=previous,
            workdir=request.workdir,
            threads=request.threads,
            progress=partial(progress, BuildStep.BUILDING),
            from_scratch=request.full or (previous is not None and bool(full_reason)),
            full_reason=full_reason,
            memory=memory,
            goal=request.goal,
            gates=request.definition.gates,
        )

    def _serving(self) -> VersionManifest | None:
        """The version that serves, whatever its definition; ``None``: there is none to be read."""
        request = self._request
        if request.previous is None:
            return None
        with suppress(VersionUnreadableError):
            return self._store.version(request.component, request.previous)
        return None

    def _parent(self, name: str, version_id: str) -> ComponentInput:
        opened = self._store.open_version(name, version_id)
        kind_type = kind_class(opened.manifest.kind)
        kind = kind_type(kind_type.Parameters.model_validate(opened.manifest.parameters))
        value = served(kind, kind.load(opened.files))
        self._stack.callback(value.close)
        return ComponentInput(manifest=opened.manifest, value=value)

    def _previous(
        self, collections: Mapping[str, SourceSnapshot]
    ) -> tuple[PreviousVersion | None, str]:
        """The served version, or the one that improves it, if the new one may continue it: same
        definition, same epochs.

        Where it may not, the reason stands beside it.
        """
        version_id = self._request.improvement or self._request.previous
        if version_id is None:
            return None, ""
        opened = self._store.open_version(self._request.component, version_id)
        manifest = opened.manifest
        if not self._is_built_alike(manifest):
            return None, "its definition changed"
        for name, snapshot in collections.items():
            if manifest.epochs.get(name) != snapshot.epoch:
                return None, f"{name} was created again"
        return PreviousVersion(manifest=manifest, files=opened.files), ""

    def _is_built_alike(self, manifest: VersionManifest) -> bool:
        """Whether a version has our definition, or one that differs in what gates read only."""
        definition = self._request.definition
        if manifest.definition == definition.digest:
            return True
        was = definition.model_copy(update={"parameters": manifest.parameters})
        if was.digest != manifest.definition:  # of another kind, or of other inputs
            return False
        gates = kind_class(definition.kind).gate_parameters
        return _without(was.parameters, gates) == _without(definition.parameters, gates)

    def _has_other_history(self, previous: VersionManifest) -> bool:
        """Whether a version covers what is not committed under that number here.

        The catalog was restored from a backup then, and what changed since would be added to
        entries that it never had.
        """
        for name, covered in previous.covers.items():
            try:
                log = self._catalog.collections.log(name, [covered])
            except UnknownCollectionError:
                continue
            if log.epoch == previous.epochs.get(name) and not log.knows(
                covered, previous.stamps.get(name)
            ):
                _log.info("component.history_differs", component=previous.component, source=name)
                return True
        return False

    def _build_and_verify(self, kind: Kind[Any, Any], job: Job, progress: Progress) -> _Verified:
        """Build once, and run the gates while the disk takes the files."""
        started = self._clock.monotonic()
        progress(BuildStep.BUILDING, None)
        built = checked_build(kind, job)
        progress(BuildStep.VERIFYING, None)
        new = {name: file for name, file in built.files.items() if isinstance(file, Path)}
        with ThreadPoolExecutor(min(job.threads, _FILES_AT_ONCE)) as pool:
            stage = pool.map(lambda file: self._store.stage_blob(file, pool), new.values())
            staged = dict(zip(new, stage, strict=True))
            blobs = {
                name: file if isinstance(file, BlobRef) else staged[name].ref
                for name, file in built.files.items()
            }
            files = {
                name: staged[name].file if name in staged else self._store.blob(blob)
                for name, blob in blobs.items()
            }
            all_staged = self._clock.monotonic()
            checks = run_gates(
                kind,
                job,
                replace(built, files=blobs),
                files=files,
                full=self._request.full,
                min_kept=0.0 if self._request.force else 1 - self._request.definition.max_shrink,
                pool=pool,
            )
            verified = self._clock.monotonic()
        return _Verified(
            built=built,
            blobs=blobs,
            staged=list(staged.values()),
            checks=checks,
            build_seconds=all_staged - started,
            verify_seconds=verified - all_staged,
        )

    def _manifest(self, job: Job, verified: _Verified) -> VersionManifest:
        definition = self._request.definition
        covers, epochs = _coverage(job)
        return VersionManifest(
            component=self._request.component,
            kind=definition.kind,
            definition=definition.digest,
            parameters=(
                recorded(definition.parameters) if definition.names_files else definition.parameters
            ),
            covers=covers,
            epochs=epochs,
            stamps=self._stamps(covers, job),
            parents=self._request.parents,
            files=verified.blobs,
            entries=verified.built.entries,
            counts=dict(verified.built.counts),
            left_out={
                name: dict(snapshot.left_out)
                for name, snapshot in job.collections.items()
                if snapshot.left_out
            },
            checks=verified.checks,
            details=verified.built.details,
            created_at=self._clock.now(),
            build_seconds=verified.build_seconds,
            verify_seconds=verified.verify_seconds,
        )

    def _stamps(self, covers: Mapping[str, int], job: Job) -> dict[str, str]:
        """Which commits made the covered generations, as far as that is known."""
        found: dict[str, str] = {}
        for parent in job.components.values():
            found |= {
                name: stamp
                for name, stamp in parent.manifest.stamps.items()
                if parent.manifest.covers[name] == covers.get(name)
            }
        for name, snapshot in job.collections.items():
            if covers[name] == snapshot.generation:
                stamps = self._catalog.collections.log(name, [covers[name]]).stamps
                if covers[name] in stamps:
                    found[name] = stamps[covers[name]]
        return found


def _without(parameters: Mapping[str, Any], names: Collection[str]) -> dict[str, Any]:
    return {name: value for name, value in parameters.items() if name not in names}


def _coverage(job: Job) -> tuple[dict[str, int], dict[str, str]]:
    """What the version covers: of each collection the least that any of its inputs covers."""
    covers: dict[str, int] = {}
    epochs: dict[str, str] = {}
    for name, snapshot in job.collections.items():
        covers[name] = snapshot.generation
        epochs[name] = snapshot.epoch
    for parent in job.components.values():
        for name, generation in parent.manifest.covers.items():
            covers[name] = min(generation, covers.get(name, generation))
            epochs.setdefault(name, parent.manifest.epochs[name])
    return covers, epochs


def _after_failed_gates(built: Built, failed: Sequence[Check], reason: str) -> Built:
    """A full build that an incremental one led to: its details name the gates that failed."""
    details = built.details.get("build", {})
    if not isinstance(details, dict):  # of a user's kind, which means something else by it
        return built
    gates = [check.name for check in failed if check.refuses]
    build = {**details, "mode": "full", "reason": reason, "failed_gates": gates}
    return replace(built, details={**built.details, "build": build})


class InlineRunner:
    """A `BuildRunner` in the calling process, without limits; for tests and single passes."""

    parallel = False

    def __init__(self, *, catalog: Catalog, store: ArtifactStore, clock: Clock) -> None:
        self._catalog = catalog
        self._store = store
        self._clock = clock

    def start(self) -> None:
        """Nothing to get ready."""

    @contextmanager
    def session(self, components: Sequence[str]) -> Iterator[BuildSession]:  # noqa: ARG002 - the snapshots end with the session
        """Builds in this thread."""
        with Snapshots(self._catalog) as snapshots:
            yield _InlineSession(snapshots, self._store, self._clock)

    def stop(self) -> None:
        """Nothing runs in the background."""


@dataclass(frozen=True)
class _InlineSession:
    snapshots: Snapshots
    store: ArtifactStore
    clock: Clock

    def run(
        self,
        request: BuildRequest,
        *,
        timeout_seconds: float,  # noqa: ARG002 - nothing here could be stopped half-way
        memory_bytes: int | None,  # noqa: ARG002 - the process is the caller's own
        progress: Progress,
    ) -> ComponentResult:
        """Build here and now."""
        return build_component(
            request,
            snapshots=self.snapshots,
            store=self.store,
            clock=self.clock,
            progress=progress,
        )


def _empty(folder: Path) -> None:
    """Empty a work folder, for another build in it."""
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def run_gates(
    kind: Kind[Any, Served],
    job: Job,
    built: Built,
    *,
    files: Mapping[str, Path],
    full: bool,
    min_kept: float,
    pool: Executor,
) -> tuple[Check, ...]:
    """Every check of one new version: of its bytes, its counts, those of its kind and of its table.

    Args:
        built: with its files by content (`BlobRef`).
        files: the same files on disk.
        full: somebody asked for a build from scratch, and wants every check again. Otherwise checks
            of blobs that the previous version names hold for this one as well.
        min_kept: the share of the previous version's entries that must still be there; 0: any
            number will do.
        pool: reads files back, several at once.
    """
    previous = job.previous.manifest if job.previous else None
    known = {} if full or previous is None else _checks_of_blobs(previous)
    blobs = {name: file for name, file in built.files.items() if isinstance(file, BlobRef)}

    def read_back(name: str) -> Check:
        blob = blobs[name]
        return known.get(("bytes", blob.digest)) or _check_bytes(name, blob, files[name])

    bytes_checks = pool.map(read_back, sorted(blobs))  # beside the gates of the kind
    counts: list[Check] = []
    if previous is not None:
        counts.append(
            _check_count(job.component, "entries", built.entries, previous.entries, min_kept)
        )
        counts.extend(
            _check_count(job.component, what, built.counts[what], before, min_kept)
            for what, before in previous.counts.items()
            if what in built.counts  # a kind may come to count other things
        )
        if job.gates.max_growth is not None:
            counts.append(growth_check(built.entries, previous.entries, job.gates.max_growth))
    of_kind = [*checks_of(kind, job, built, files)]
    checks = [*bytes_checks, *counts, *of_kind]
    if not any(_refuses(check, job) for check in checks):
        loaded = loads(kind, files)
        checks += [loaded] if loaded is not None else []
        if job.gates.functions and (loaded is None or loaded.passed):
            checks += function_checks(kind, job, files)
    if not job.gates.require_validation_pass:
        checks = [
            check.model_copy(update={"required": False}) if is_quality(check.name) else check
            for check in checks
        ]
    return tuple(checks)


def _refuses(check: Check, job: Job) -> bool:
    return not check.passed and (job.gates.require_validation_pass or not is_quality(check.name))


def _checks_of_blobs(previous: VersionManifest) -> dict[tuple[str, str], Check]:
    """Checks that concern only a blob hold for every version that names it."""
    return {
        (check.name, check.blob): check
        for check in previous.checks
        if check.blob is not None and check.passed
    }


def _check_bytes(name: str, blob: BlobRef, file: Path) -> Check:
    """Read a file back: what is on disk must be what was hashed when it was written."""
    started = time.perf_counter()
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    passed = digest == blob.digest
    return Check(
        name="bytes",
        passed=passed,
        detail="" if passed else f"{name} reads back as {digest}, not as {blob.digest}",
        measured=file.stat().st_size,
        seconds=time.perf_counter() - started,
        blob=blob.digest,
    )


def _check_count(component: str, what: str, count: int, before: int, min_kept: float) -> Check:
    """A collection that lost most of its entries, texts or payloads mostly has a broken source."""
    kept = count / before if before else 1.0
    passed = kept >= min_kept
    return Check(
        name="count_kept" if what == "entries" else f"{what}_kept",
        passed=passed,
        detail=""
        if passed
        else f"{count:,} {what} where the last version has {before:,}; "
        f"if that is right: {commands.rebuild(component, force=True)}",
        measured=kept,
        limit=min_kept,
    )
