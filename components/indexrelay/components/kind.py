"""The contract of a kind: one class that builds, verifies and loads a component.

`build` and `verify` run in a child process of the rebuilder, inside one snapshot of the source;
`load` runs in every reader. They meet only in files. A kind keeps no state besides its parameters,
and imports what is heavy (FAISS, scikit-learn) inside its methods, so that settings can be checked
where those are not installed. A gate of `verify` is a function that gives a `Verdict`, of which
`judge` makes a `Check`.

Memory: a limit is on what a build needs besides what it makes. Before a kind makes something large
it calls `BuildMemory.hold` with its size, and the limit rises by that much; a build that takes more
still meets the limit. Mapped files do not count: the kernel may drop their pages.
"""

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from time import monotonic, perf_counter, process_time
from typing import Any, ClassVar, Final, Generic, TypeVar, get_args, get_origin

from pydantic import BaseModel, ConfigDict, model_validator

from indexrelay.components.errors import CorruptFileError, UnusableInputError
from indexrelay.components.served import Served
from indexrelay.schemas.gates import GateSettings
from indexrelay.schemas.names import truths_as_text
from indexrelay.schemas.settings import CollectionSettings
from indexrelay.schemas.versions import BlobRef, Check, VersionManifest
from indexrelay.storage.entries import SourceSnapshot


def _no_limit(_bytes: int) -> None:
    """There is no limit to raise."""


@dataclass(frozen=True, slots=True)
class BuildMemory:
    """What one build may hold in memory of its own."""

    working_bytes: int | None = None
    """Beside what it makes; ``None``: no limit."""
    raise_limit: Callable[[int], None] = _no_limit
    """Lets the process hold so many bytes more."""

    def hold(self, bytes_: int) -> None:
        """Raise the limit by so many bytes; call it before something of this size is made."""
        self.raise_limit(bytes_)

    def share(self, part: float, *, at_most: int) -> int:
        """Bytes for one purpose: ``part`` of the working memory, but at most ``at_most``."""
        if self.working_bytes is None:
            return at_most
        return min(int(part * self.working_bytes), at_most)


UNLIMITED: Final = BuildMemory()
"""For builds in the caller's own process."""


_SHORTEST_LOOK: Final = 0.25
"""Seconds: the kernel counts a processor's time in hundredths of one."""


class HostLoad:
    """How many processors other processes use, seen from one look to the next.

    A build with a thread for each processor takes time from queries on the same host, and gains
    little: its threads wait for the one that shares a processor with them.
    """

    def __init__(self) -> None:
        self._last = _Look.now()
        self._used = 0.0

    def free_threads(self, most: int) -> int:
        """``most``, or as many as others left processors idle since the last look; one at least."""
        last, now = self._last, _Look.now()
        if last is None or now is None:  # no Linux
            return most
        if now.at - last.at >= _SHORTEST_LOOK:
            self._used = (now.busy - last.busy - (now.own - last.own)) / (now.at - last.at)
            self._last = now
        return max(min(round(now.processors - self._used), most), 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Look:
    """What the kernel counted, in seconds."""

    at: float
    processors: int
    """That this process may use."""
    busy: float
    """Of these, by anybody."""
    own: float
    """By this process, wherever it ran."""

    @classmethod
    def now(cls) -> "_Look | None":
        """A new one; ``None``: this kernel does not say."""
        try:
            lines = Path("/proc/stat").read_text(encoding="ascii").splitlines()
            allowed = os.sched_getaffinity(0)
        except (OSError, AttributeError):
            return None
        ticks, processors = 0, 0
        for line in lines:
            name, *counts = line.split()
            if name[3:].isdigit() and name.startswith("cpu") and int(name[3:]) in allowed:
                user, nice, system, _idle, _iowait, *interrupts = map(int, counts)
                ticks += user + nice + system + sum(interrupts[:3])
                processors += 1
        if not processors:
            return None
        return cls(
            at=monotonic(),
            processors=processors,
            busy=ticks / os.sysconf("SC_CLK_TCK"),
            own=process_time(),
        )


Files = Mapping[str, Path]
"""The files of a version by name, as they lie on disk."""


READ_FILES: Final = "read_files"
"""Key of the context with which parameters are validated where settings are checked: files that
they name are read then, and only then."""


class KindParameters(BaseModel):
    """The kind's own keys in ``[components.NAME]``; an unknown key is a mistake."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _truths_are_no_numbers(cls, table: Any) -> Any:
        return truths_as_text(cls, table)


@dataclass(frozen=True, kw_only=True)
class ComponentInput:
    """Another component, as a build sees it."""

    manifest: VersionManifest
    value: Any
    """What its kind's `load` gave; closed by the caller of `build`."""


@dataclass(frozen=True, kw_only=True)
class PreviousVersion:
    """The version that is served today, with its files opened in place."""

    manifest: VersionManifest
    files: Mapping[str, Path]


class Goal(StrEnum):
    """What a build is to make."""

    BEST = "best"
    """The best version, however long it takes."""
    QUICK = "quick"
    """What is ready soonest and passes the gates: a rebuilder improves it later. Only kinds with
    `Kind.has_quick_versions` are asked for it."""
    IMPROVEMENT = "improvement"
    """The best version, from scratch, behind one that serves: `Job.previous` is that one, and the
    gates compare with it."""
    CATCH_UP = "catch_up"
    """What an improvement does not contain yet, since it was built beside newer batches:
    `Job.previous` is the improvement, and it is continued or nothing is built."""


@dataclass(frozen=True, kw_only=True)
class Improvable:
    """What a better version than the one that serves would have."""

    reason: str
    """What is to be improved, as a sentence without its full stop."""
    since: Mapping[str, int]
    """For each collection: the generation at which the version was last built in full. An
    improvement may be on its way from there, and needs what changed since."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """Everything that a build and its verification may use."""

    component: str
    collections: Mapping[str, SourceSnapshot]
    """The inputs that are collections, in the order of the definition."""
    components: Mapping[str, ComponentInput]
    """The inputs that are components, in the order of the definition."""
    previous: PreviousVersion | None
    """``None`` for the first version, in another epoch, or where the definition changed by more
    than `Kind.gate_parameters`."""
    workdir: Path
    """An empty folder for new files; removed afterwards, whatever happens."""
    threads: int
    """At most this many threads, and better only `free_threads` for what takes long."""
    progress: Callable[[float], None]
    """Call it now and then with the share done, 0 to 1."""
    from_scratch: bool = False
    """Whether `previous` must not be continued: someone asked for a full build, or what continued
    it failed its gates. A map may still be laid out like the last one."""
    full_reason: str = ""
    """Why there is no `previous`, or why it must not be continued; empty: this is not so, or it is
    the first version."""
    memory: BuildMemory = UNLIMITED
    """What it may hold; call `BuildMemory.hold` before making something large."""
    goal: Goal = Goal.BEST
    """What it is to make."""
    gates: GateSettings = field(default_factory=GateSettings)
    """What it has to show, beside the limits of its kind."""
    load: HostLoad = field(default_factory=HostLoad, compare=False, repr=False)
    """Of the host, since this was made or since it was asked last."""

    @property
    def free_threads(self) -> int:
        """Of `threads` as many as other processes leave processors for, but one at least."""
        return self.load.free_threads(self.threads)

    @property
    def collection(self) -> SourceSnapshot:
        """The one collection that the component is made from.

        Raises:
            UnusableInputError: there are several, or a component is among them.
        """
        if len(self.collections) != 1 or self.components:
            given = ", ".join([*self.collections, *self.components])
            raise UnusableInputError(
                f"components.{self.component}.from must name exactly one collection, not: {given}"
            )
        return next(iter(self.collections.values()))


@dataclass(frozen=True, kw_only=True)
class Built:
    """What `Kind.build` made."""

    files: Mapping[str, Path | BlobRef]
    """A new file in the work folder, or a blob of the previous version that stays as it is."""
    entries: int
    """How many entries it contains."""
    counts: Mapping[str, int] = field(default_factory=dict)
    """How many of them have what some have and others not (``texts``, ``payloads``). As with
    ``entries``, none of these may lose more than the definition's ``max_shrink`` at once."""
    extends: bool = False
    """Whether it continues the previous version; it is built in full if it then fails a gate."""
    details: dict[str, Any] = field(default_factory=dict)
    """JSON for the manifest."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What came of trying parameters out; a sentence each."""

    wrong: tuple[str, ...] = ()
    """What can never be built."""
    notes: tuple[str, ...] = ()
    """What may surprise, and is right."""


ParametersT = TypeVar("ParametersT", bound=KindParameters)
ServedT_co = TypeVar("ServedT_co", bound=Served, covariant=True)


class Kind(ABC, Generic[ParametersT, ServedT_co]):
    """One kind of component: ``class Thing(Kind[ThingParameters, ServedThing])``.

    To add one: derive, name the model of its parameters and what it serves, write the three
    methods, and name the class in ``kind = "module:Class"`` or in an entry point of the group
    ``indexrelay.kinds``. docs/kinds.md shows how.
    """

    Parameters: ClassVar[type[KindParameters]] = KindParameters
    """The model of the kind's own keys; taken from ``Kind[ThingParameters, …]``."""
    preload: ClassVar[tuple[str, ...]] = ()
    """Modules that `build` imports; the rebuilder imports them once, before it forks children."""
    sandboxed: ClassVar[frozenset[str]] = frozenset()
    """Names of the files that a library reads as if it had written them: what is in them may make
    it crash, loop, or take all memory. Before a reader opens one that its host has not seen yet, a
    process of its own calls `load` and then `inspect`, under limits of time and memory."""
    gate_parameters: ClassVar[frozenset[str]] = frozenset()
    """Names of the parameters that only the gates read. Where no others changed, a build continues
    the last version, whose files may stay as they are, and judges it again."""
    max_inputs: ClassVar[int | None] = None
    """How many inputs a component of this kind may have; ``None``: any number."""
    takes_components: ClassVar[bool] = True
    """Whether other components may be among them; collections always may."""
    has_quick_versions: ClassVar[bool] = False
    """Whether `build` honours `Goal.QUICK` and the goals that follow from it, and `improvable` and
    `improves` are written."""

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        for base in cls.__dict__.get("__orig_bases__", ()):
            if not issubclass(get_origin(base) or object, Kind):
                continue
            model = get_args(base)[0]
            model = model.__bound__ if isinstance(model, TypeVar) else model
            if isinstance(model, type) and model is not Any:
                if not issubclass(model, KindParameters):
                    raise TypeError(
                        f"{cls.__name__}: write Kind[PARAMETERS, SERVED]; {model.__name__} is not "
                        "derived from KindParameters"
                    )
                cls.Parameters = cls.__dict__.get("Parameters", model)

    def __init__(self, parameters: ParametersT) -> None:
        self.parameters = parameters

    def lacks(self) -> Iterator[str]:
        """What a build needs and does not find on this host, a sentence each; for `check`."""
        return iter(())

    @classmethod
    def outdated(cls, manifest: VersionManifest) -> str | None:  # noqa: ARG003 - for kinds that ask
        """Why a version should be built again although its input and its definition are the same:
        because the kind itself has changed. ``None``: it is what a build would make today."""
        return None

    @classmethod
    def improvable(cls, manifest: VersionManifest) -> Improvable | None:  # noqa: ARG003 - for kinds with quick versions
        """What a better version of the same entries would have; ``None``: nothing.

        A rebuilder that has nothing else to do builds it then (`Goal.IMPROVEMENT`), and releases it
        as the next version of the same generations.
        """
        return None

    @classmethod
    def improves(cls, built: VersionManifest, served: VersionManifest) -> bool:  # noqa: ARG003 - for kinds with quick versions
        """Whether ``built``, which was never released, is what makes ``served`` better.

        Not once ``served`` was itself built in full after it.
        """
        return False

    def trial(self, collections: Mapping[str, CollectionSettings]) -> Trial:  # noqa: ARG002 - for kinds that can
        """Try the parameters out for inputs like these, in a second or so; for `check`."""
        return Trial()

    @abstractmethod
    def build(self, job: Job) -> Built:
        """Write the files of a new version into ``job.workdir``, one at least.

        Whatever it raises fails this component only. What it prints goes to the rebuilder's log.
        """

    @abstractmethod
    def verify(self, job: Job, built: Built, files: Mapping[str, Path]) -> Iterable[Check]:
        """Judge what lies on disk, from ``files``, in handles of its own.

        An exception is a failed check, and so is no check at all; one `Check` with
        ``passed=False`` keeps the version from being released. ``built.files`` are blobs by now: a
        check that concerns only one of them names its digest, and holds for every later version
        with the same blob.
        """

    @abstractmethod
    def load(self, files: Mapping[str, Path]) -> ServedT_co:
        """Open a version for serving: mapped rather than read, and warm when this returns.

        Each new version of a user's own kind is loaded and closed once before it is released.
        """

    def validate(
        self,
        files: Mapping[str, Path],
        manifest: VersionManifest,
        asked: GateSettings,  # noqa: ARG002 - for kinds that measure
    ) -> Iterable[Check]:
        """Judge a released version by itself, as it lies on disk, without its source.

        Here it is opened and inspected as in a reader. A kind that measures its answers measures
        them again, by the limits of today.

        Args:
            files: its files; their digests are for the caller to check.
            manifest: what was built.
            asked: the limits of the component's table.
        """

        def opens() -> Verdict:
            value = self.load(files)
            try:
                self.inspect(value)
            finally:
                value.close()
            return Verdict(passed=True, measured=manifest.entries)

        yield judge("opens", opens)

    def inspect(self, value: Any) -> None:
        """Check all of what `load` gave for what would fail only in a query; runs in a sandbox.

        Raises:
            CorruptFileError: a file is not what a build writes.
        """

    def reload(self, files: Mapping[str, Path], previous: Any) -> ServedT_co:  # noqa: ARG002 - for kinds that share
        """`load`, where a reader serves ``previous``, an earlier version of the same kind.

        A kind whose versions share files takes over what is open already. ``previous`` stays open
        until this returns, and is closed some time later.
        """
        return self.load(files)

    @classmethod
    def overlap(cls, new: Any, before: Any) -> float | None:  # noqa: ARG003 - for kinds that are searched
        """Of the best answers to the last queries that ``before`` was asked, the share that ``new``
        gives as well; ``None``: it was asked none, or the kind does not compare.

        A canary asks it when it has loaded ``new``; both are as `load` gave them.
        """
        return None


OpenedT = TypeVar("OpenedT")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one gate found."""

    passed: bool
    detail: str = ""
    """What is wrong and what can be done; empty where nothing is."""
    measured: float | None = None
    limit: float | None = None


def judge(name: str, gate: Callable[[], Verdict]) -> Check:
    """Run one gate. A corrupt file is a failed check; anything else that it raises goes through."""
    started = perf_counter()
    try:
        verdict = gate()
    except CorruptFileError as error:
        verdict = Verdict(passed=False, detail=str(error))
    return Check(
        name=name,
        passed=verdict.passed,
        detail=verdict.detail,
        measured=verdict.measured,
        limit=verdict.limit,
        seconds=perf_counter() - started,
    )


def concerning(check: Check, built: Built, file: str) -> Check:
    """The check as one of ``file`` alone: versions that name the same blob may take it over."""
    blob = built.files[file]
    digest = blob.digest if isinstance(blob, BlobRef) else None
    return check.model_copy(update={"blob": digest})


def equal(measured: float, expected: float, otherwise: str) -> Verdict:
    """A gate on two counts that must agree; ``otherwise``: what it means if they do not."""
    same = measured == expected
    return Verdict(same, "" if same else otherwise, measured=measured, limit=expected)


def reads_back(open_: Callable[[], OpenedT]) -> tuple[Check, OpenedT | None]:
    """Open what was built; ``None`` where a file is corrupt, and there is nothing else to judge."""
    started = perf_counter()
    try:
        opened = open_()
    except CorruptFileError as error:
        return Check(name="reads_back", passed=False, detail=str(error)), None
    return Check(name="reads_back", passed=True, seconds=perf_counter() - started), opened


def count_gate(held: int, source: SourceSnapshot, built: Built) -> Verdict:
    """The build and the files (``held``) have as many entries as the collection."""
    if built.entries != source.count:
        return equal(built.entries, source.count, "the build counted other entries than there are")
    return equal(held, source.count, "the files hold another number of entries")
