"""What Redis shows: who is there, how they stand, what waits there, and what is not ours.

Nothing of it is the truth about anything, and most of it ends by itself: a lease by its TTL, an
event that a dead consumer took by being claimed, a reader's delay by its next poll. It explains why
something waits; what never ends by itself is a problem.

Each process says in its presence which settings it runs with; of one of an earlier version, which
does not, nothing is concluded. Whose state it is follows from its key, which only one user may
write where each has one of its own. So what somebody writes there who should not is reported by
label.
"""

from collections.abc import Iterable, Iterator, Mapping
from datetime import timedelta
from itertools import islice
from typing import Final

from indexrelay.health.advice import START_A_REBUILDER
from indexrelay.health.facts import Facts, RedisFacts
from indexrelay.health.status import Actor, Code, Problem
from indexrelay.schemas import commands
from indexrelay.schemas.declarations import Declaration, declared_to_build, declared_to_serve
from indexrelay.schemas.messages import (
    ForeignWrites,
    LiveState,
    LiveStatus,
    LoadOutcome,
    ProcessState,
    ReaderState,
    RebuilderState,
    Role,
)
from indexrelay.schemas.names import member_id, split_member_id
from indexrelay.schemas.settings import CollectionSettings
from indexrelay.schemas.versions import (
    Definitions,
    Release,
    ancestors_of,
    mates_of,
    root_collections,
)
from indexrelay.streams.connection import NO_EVICTION
from indexrelay.streams.keys import SCAN_SECONDS
from indexrelay.streams.leases import HeldLease, LeaseOwner
from indexrelay.streams.presence import MAX_PROCESSES
from indexrelay.streams.repair import WrongKey


def role_problems(facts: Facts) -> Iterator[Problem]:
    """Roles that no process has."""
    if facts.redis is None:
        return
    if facts.has_rebuilder is False:
        yield Problem(
            code=Code.NO_REBUILDER,
            what="no rebuilder is running, so nothing new is built",
            advice=START_A_REBUILDER,
            acts=Actor.PERSON,
        )
    if not facts.redis.readers and "reader" not in facts.redis.unseen:
        yield Problem(
            code=Code.NO_READER,
            what="no reader is running, so nothing is served",
            advice=f"start one: {commands.READER}",
            acts=Actor.PERSON,
        )


OF_ITS_OWN: Final = (
    f"end all of them but one, and start each of the others again: {commands.REBUILDER}"
)
"""For rebuilders under one id: without one, each draws one that no other has."""


def member_problems(facts: Facts) -> Iterator[Problem]:
    """What is not well with the readers and rebuilders that run."""
    if facts.redis is None:
        return
    for name, state in facts.redis.readers.items():
        if state is None:
            yield _not_understood("reader", name, Code.READER_UNREADABLE)
        else:
            yield from reader_problems(state, facts.release, facts)
            yield from refused_settings(state)
    for name, rebuilder in facts.redis.rebuilders.items():
        if rebuilder is None:
            yield _not_understood("rebuilder", name, Code.REBUILDER_UNREADABLE)
            continue
        yield from _lock_waits(rebuilder)
        yield from refused_settings(rebuilder)
        if rebuilder.namesakes:
            yield Problem(
                code=Code.REBUILDER_NOT_ALONE,
                subject=rebuilder.rebuilder,
                what=f"rebuilder {rebuilder.process} has its id in common with "
                f"{', '.join(rebuilder.namesakes)}, and each takes events that another began with",
                advice=OF_ITS_OWN,
                acts=Actor.PERSON,
            )
    yield from _silent(facts.redis, facts)


def refused_settings(state: ProcessState) -> Iterator[Problem]:
    """That a process could not go on with the settings that it was to read again."""
    if state.settings_refused is not None:
        yield Problem(
            code=Code.SETTINGS_REFUSED,
            subject=state.label,
            what=f"{state.ROLE} {state.process} keeps the settings that it had: "
            f"{state.settings_refused}",
            advice="correct them on its host, and have it read them again (SIGHUP): "
            f"{commands.CHECK_SETTINGS}",
            acts=Actor.PERSON,
        )


_SHOWN: Final = 5
"""Problems of one kind of one reader, and under one label."""
_POLLS: Final = 3
"""A reader that has not followed within so many of its polls is behind, and not just on its way."""


def reader_problems(state: ReaderState, newest: Release | None, facts: Facts) -> Iterator[Problem]:
    """What keeps one reader from serving the newest release, whole."""
    if state.service_silent_since is not None:
        yield Problem(
            code=Code.READER_SERVICE_SILENT,
            subject=state.reader,
            what=f"reader {state.process} answers nobody: the event loop of its service stands "
            f"still since {state.service_silent_since:%Y-%m-%d %H:%M:%S} UTC",
            advice="its log names the call that does not return (service.silent); it is ready "
            "again once that returns, and otherwise has to be started again",
            acts=Actor.PERSON,
        )
    failed = {
        name: component
        for name, component in state.components.items()
        if component.outcome is LoadOutcome.FAILED
    }
    for name, component in islice(failed.items(), _SHOWN):
        serves = "it serves the last good version" if component.version else "it serves none"
        yield Problem(
            code=Code.READER_LOAD_FAILED,
            subject=state.reader,
            what=f"reader {state.process} could not load {name}, {serves}: {component.error}",
            advice="a transient error is tried again by itself; "
            f"a corrupt file needs a new version: {commands.rebuild(name)}",
            acts=Actor.PERSON,
        )
    if len(failed) > _SHOWN:
        yield Problem(
            code=Code.READER_LOAD_FAILED,
            subject=state.reader,
            what=f"reader {state.process} could not load {len(failed) - _SHOWN:,} more components",
            advice=f"they may have one cause; what each reader serves: {commands.READERS}",
            acts=Actor.PERSON,
        )
    for collection, live in state.live.items():
        if live.status in (LiveStatus.WAITING, LiveStatus.FULL):
            yield _live_behind(state, collection, live)
    if newest is not None and state.release < newest.number:
        late = _is_late(state, newest, facts)
        yield Problem(
            code=Code.READER_BEHIND,
            subject=state.reader,
            what=f"reader {state.process} is at release {state.release}, "
            f"{newest.number} is the newest",
            advice="see its log; restarted, it begins with the newest release"
            if late
            else f"it follows within {facts.reader.poll_seconds:g} s",
            acts=Actor.PERSON if late else Actor.PROCESS,
        )
    elif not state.ready and not failed and state.service_silent_since is None:
        yield _not_ready(state, newest, facts)


def _live_behind(state: ReaderState, collection: str, live: LiveState) -> Problem:
    advice = (
        "the next release has them; with access to the catalog (catalog.url) it need not wait"
        if live.status is LiveStatus.WAITING
        else "the next release takes them over; if it comes too late each time, let rebuilds be "
        "faster or raise live.max_entries"
    )
    return Problem(
        code=Code.READER_LIVE_BEHIND,
        subject=state.reader,
        what=f"reader {state.process} is at generation {live.generation} of {collection}: "
        f"{live.reason}",
        advice=advice,
        acts=Actor.PROCESS,
    )


def _not_ready(state: ReaderState, newest: Release | None, facts: Facts) -> Problem:
    """It serves the newest release, whole, and that lacks something that the reader requires."""
    released = {} if newest is None else newest.for_reader(state.reader).components
    chosen = facts.reader.components
    lacking = [
        name
        for name, definition in sorted(facts.definitions.items())
        if definition.required and name not in released and (chosen is None or name in chosen)
    ]
    if lacking:
        what = f"it requires {', '.join(lacking)}, of which nothing is released yet"
        advice = "it is ready when each required component has a released version"
        acts = Actor.PROCESS
    else:
        what = "its own settings require a component that is not released"
        advice = "these do not, so it was started with others: start it again"
        acts = Actor.PERSON
    return Problem(
        code=Code.READER_NOT_READY,
        subject=state.reader,
        what=f"reader {state.process} is not ready: {what}",
        advice=advice,
        acts=acts,
    )


def _is_late(state: ReaderState, newest: Release, facts: Facts) -> bool:
    grace = timedelta(seconds=_POLLS * facts.reader.poll_seconds)
    # One that starts late has its own time, too.
    return facts.now - max(newest.created_at, state.started_at) > grace


def _lock_waits(rebuilder: RebuilderState) -> Iterator[Problem]:
    for wait in rebuilder.lock_waits:
        yield Problem(
            code=Code.LOCK_WAITS,
            subject=rebuilder.rebuilder,
            what=f"rebuilder {rebuilder.process} waits for {wait.lock} since "
            f"{wait.since:%Y-%m-%d %H:%M:%S} UTC, which {wait.holder or 'another process'} holds",
            advice="see what that process does, and end it if it does nothing: what waits goes on "
            "by itself then",
            acts=Actor.PERSON,
        )


def _not_understood(kind: str, name: str, code: Code) -> Problem:
    return Problem(
        code=code,
        subject=name,
        what=f"{kind} {name} reports in a form that is not understood here",
        advice="bring it and this process to the same major version",
        acts=Actor.PERSON,
    )


def is_silent(state: ReaderState, member: str, facts: Facts) -> bool:
    """Whether a reader that is present answers nobody: its service hangs, or it missed two
    heartbeats and soon counts as gone."""
    redis = facts.redis
    left = None if redis is None else redis.seconds_left.get(f"reader:{member}")
    return state.service_silent_since is not None or _is_ending(
        left, facts.reader.presence_ttl_seconds
    )


def _is_ending(left: float | None, ttl_seconds: float) -> bool:
    return left is not None and left < ttl_seconds / 4


def _silent(redis: RedisFacts, facts: Facts) -> Iterator[Problem]:
    """Processes that missed two heartbeats, and soon count as gone."""
    for kind, code, members, ttl_seconds in (
        (
            "rebuilder",
            Code.REBUILDER_SILENT,
            redis.rebuilders,
            facts.rebuilder.presence_ttl_seconds,
        ),
        ("reader", Code.READER_SILENT, redis.readers, facts.reader.presence_ttl_seconds),
    ):
        for name, state in members.items():
            left = redis.seconds_left.get(f"{kind}:{name}")
            who = name if state is None else state.process
            if left is not None and _is_ending(left, ttl_seconds):
                yield Problem(
                    code=code,
                    subject=name,
                    what=f"{kind} {who} was last heard of {ttl_seconds - left:.0f} s ago",
                    advice=f"if it does not come back, it counts as gone in {left:.0f} s: "
                    "see whether its process runs, and its log",
                    acts=Actor.PERSON,
                )


_CODES: Final[Mapping[Role, Code]] = {
    "rebuilder": Code.REBUILDER_OTHER_SETTINGS,
    "reader": Code.READER_OTHER_SETTINGS,
}


def declaration_problems(facts: Facts) -> Iterator[Problem]:
    """The processes that run with other settings than these."""
    return differing_processes(
        facts.definitions,
        facts.collections,
        facts.known_rebuilders.values(),
        facts.known_readers.values(),
        host=facts.host,
    )


def differing_processes(
    definitions: Definitions,
    collections: Mapping[str, CollectionSettings] | None,
    rebuilders: Iterable[RebuilderState],
    readers: Iterable[ReaderState],
    *,
    host: str = "",
) -> Iterator[Problem]:
    """The same, from these facts alone.

    Args:
        collections: ``None``: they are not compared.
        host: the machine that these settings were read on.
    """
    building = declared_to_build(definitions, collections or {})
    serving = declared_to_serve(definitions)
    for rebuilder in rebuilders:
        theirs = rebuilder.declares
        if theirs is not None and collections is None:
            theirs = Declaration(components=theirs.components)
        yield from _otherwise("rebuilder", rebuilder, theirs, building, host)
    for reader in readers:
        yield from _otherwise("reader", reader, reader.declares, serving, host)


def _otherwise(
    role: Role, state: ProcessState, theirs: Declaration | None, ours: Declaration, host: str
) -> Iterator[Problem]:
    if theirs is None:
        return
    differences = theirs.differences(ours, same_host=state.host == host)
    if differences:
        yield Problem(
            code=_CODES[role],
            subject=state.label,
            what=f"{role} {state.process} runs with other settings than these: "
            f"{', '.join(differences)}",
            advice="have it read its settings again (SIGHUP), or start it again, with these",
            acts=Actor.PERSON,
        )


def builders_of(name: str, facts: Facts) -> dict[str, bool | None]:
    """Who runs, and whether it builds ``name`` as it is declared here; ``None``: it does not say.

    By presence. One that cannot be read here is among them.
    """
    found = {} if facts.redis is None else facts.redis.rebuilders
    return {
        member: None
        if state is None or state.declares is None
        else not any(_kept_from(name, state, state.declares, facts))
        for member, state in found.items()
    }


def why_none_builds(name: str, facts: Facts) -> str | None:
    """What to do where rebuilders run, and none of them builds ``name`` as it is declared here."""
    runs = builders_of(name, facts)
    if not runs or any(each is not False for each in runs.values()):
        return None
    states = [facts.known_rebuilders[member] for member in runs]
    reasons = [
        reason
        for state in states
        if state.declares is not None
        for reason in _kept_from(name, state, state.declares, facts)
    ]
    who = ", ".join(state.process for state in states)
    return f"start rebuilder {who} again with these settings: {', '.join(dict.fromkeys(reasons))}"


def _kept_from(
    name: str, state: RebuilderState, theirs: Declaration, facts: Facts
) -> Iterator[str]:
    """Why a rebuilder does not build ``name`` as it is declared here, a clause each.

    It is built from its ancestors, and released with its group: what keeps one of them keeps it.
    What was built with other settings after a rebuilder started is left alone by that one.
    """
    definitions = facts.definitions
    if name not in definitions:
        yield f"{name} is not declared here"
        return
    group = (name, *mates_of(name, definitions))
    kin = {*group, *(each for member in group for each in ancestors_of(member, definitions))}
    roots = {root for each in kin for root in root_collections(each, definitions)}
    ours = declared_to_build(
        {each: definitions[each] for each in kin},
        {root: facts.collections[root] for root in roots & facts.collections.keys()},
    )
    yield from theirs.part(kin, ours.collections.keys()).differences(
        ours, same_host=state.host == facts.host
    )
    for each in sorted(kin & facts.versions.keys()):
        version = facts.versions[each]
        other = version.definition != definitions[each].digest
        if other and version.created_at > state.started_at:
            yield f"it leaves {each}, which was built with other settings after it had started"


def declaring(name: str, rebuilders: Mapping[str, RebuilderState | None]) -> list[str]:
    """The processes of the rebuilders that declare a component, for a sentence."""
    return [
        state.process
        for state in rebuilders.values()
        if state is not None and state.declares is not None and name in state.declares.components
    ]


LONGEST_LEASES: Final = 10
"""No rebuilder takes a lease for longer than so many of `rebuilder.lease_ttl_seconds`."""
_LONGEST_WAIT_SECONDS: Final = 30.0
"""An event that waits for longer is not on its way: a rebuilder reads several times a second."""


def redis_problems(facts: Facts) -> Iterator[Problem]:
    """What is not well with the server, its streams and its leases."""
    redis = facts.redis
    if redis is None:
        return
    if redis.eviction not in (None, NO_EVICTION):
        yield Problem(
            code=Code.REDIS_EVICTS,
            what=f"with maxmemory-policy {redis.eviction} Redis may drop events and leases "
            "silently when its memory is full",
            advice=f"set maxmemory-policy {NO_EVICTION} in its configuration: it then refuses "
            "what does not fit, and jobs are told",
            acts=Actor.PERSON,
        )
    yield from _untaken(redis, facts)
    for name, lease in redis.leases.items():
        longest = LONGEST_LEASES * facts.rebuilder.lease_ttl_seconds
        if lease.seconds_left is None or lease.seconds_left > longest:
            end = "no end" if lease.seconds_left is None else f"{lease.seconds_left:.0f} s left"
            yield Problem(
                code=Code.LEASE_ENDLESS,
                subject=name,
                what=f"the lease of {name} has {end}, as no rebuilder takes it, and keeps it from "
                "being built",
                advice="a rebuilder gives it an end at its next comparison; at once: "
                f"{commands.RECONCILE}",
                acts=Actor.PROCESS if facts.has_rebuilder else Actor.PERSON,
            )
        elif not _is_alive(lease, redis.rebuilders):
            yield Problem(
                code=Code.LEASE_ORPHANED,
                subject=name,
                what=f"{name} is leased by a rebuilder that is gone",
                advice=f"the lease ends by itself in {lease.seconds_left:.0f} s",
                acts=Actor.NOBODY,
            )


def _untaken(redis: RedisFacts, facts: Facts) -> Iterator[Problem]:
    alive = facts.has_rebuilder is not False
    for waiting in redis.untaken:
        if waiting.consumer is None and waiting.seconds > _LONGEST_WAIT_SECONDS:
            what = f"{waiting.count} event(s) wait for a rebuilder, for {waiting.seconds:.0f} s"
            advice = "see the rebuilders' logs: they run, and read nothing"
        elif waiting.consumer and waiting.seconds > facts.rebuilder.claim_idle_seconds:
            what = (
                f"{waiting.count} event(s) were taken by rebuilder {waiting.consumer}, "
                f"which has been silent for {waiting.seconds:.0f} s"
            )
            advice = "the next read of a running rebuilder takes them"
        else:
            continue
        yield Problem(
            code=Code.EVENTS_UNTAKEN,
            subject=waiting.consumer,
            what=what,
            advice=advice if alive else f"start a rebuilder: {commands.REBUILDER}",
            acts=Actor.PROCESS if alive and waiting.consumer else Actor.PERSON,
        )


def _is_alive(lease: HeldLease, alive: Mapping[str, RebuilderState | None]) -> bool:
    """Whether the process that took the lease lives."""
    owner = LeaseOwner.parse(lease.owner)
    # One of schema 1.0 is present by its label alone, and its leases end in another random part.
    for member in (member_id(owner.label, owner.instance), owner.label):
        if member in alive:
            state = alive[member]
            return state is None or owner.pid == str(state.pid)
    return False


_CHANGE_IT: Final = "see who has its password for Redis, and change it (docs/security.md)"
_MUCH: Final = 10
"""A label that holds more than one in so many of a server's bytes is named when they are short."""


def intrusion_problems(facts: Facts) -> Iterator[Problem]:
    """What is under our keys and is not ours, and who may have written it."""
    redis = facts.redis
    if redis is None:
        return
    for wrong in redis.wrong_keys:
        yield _wrong_key(wrong, facts)
    yield from _memory(redis)
    yield from _places(redis)
    yield from _foreign_writes(facts)


def _wrong_key(wrong: WrongKey, facts: Facts) -> Problem:
    repair = (
        f"a rebuilder repairs it at its next look; at once: {commands.RECONCILE}"
        if facts.has_rebuilder
        else f"it is repaired, and nothing is lost by it, with: {commands.RECONCILE}"
    )
    return Problem(
        code=Code.REDIS_KEY,
        subject=wrong.label or wrong.key,
        what=f"{wrong}; {wrong.writers}",
        advice=f"{repair}; if it comes again, {_CHANGE_IT}",
        acts=Actor.PROCESS if facts.has_rebuilder else Actor.PERSON,
    )


def _memory(redis: RedisFacts) -> Iterator[Problem]:
    memory = redis.memory
    if memory is None or not memory.short:
        return
    what = (
        f"Redis has {memory.used / 1e6:,.0f} of {memory.limit / 1e6:,.0f} MB in use, and refuses "
        "what is new at that limit"
    )
    label, size = max(redis.held.items(), key=lambda held: held[1], default=("", 0))
    advice = f"see what takes it, and remove what is none of ours: {commands.REPAIR_REDIS}; "
    if size * _MUCH > memory.limit:
        what += f"; readers that are called {label} take {size / 1e6:,.0f} MB of it"
        advice += f"{_CHANGE_IT}"
    else:
        advice += "or raise maxmemory"
    yield Problem(
        code=Code.REDIS_FULL, subject=label or None, what=what, advice=advice, acts=Actor.PERSON
    )


def _places(redis: RedisFacts) -> Iterator[Problem]:
    """States that do not count, and labels with too many of them."""
    named = {wrong.key.partition(":")[2] for wrong in redis.wrong_keys}
    for key, why in redis.dropped.items():
        if key in named:
            continue
        yield Problem(
            code=Code.MEMBER_DROPPED,
            subject=key.partition(":")[2],
            what=f"the presence of {key.replace(':', ' ', 1)} counts for nobody: {why}",
            advice="somebody writes there who is not that process, and the key ends by itself: "
            f"{_CHANGE_IT}",
            acts=Actor.PERSON,
        )
    for cut in sorted(redis.cut):
        yield Problem(
            code=Code.MEMBERS_CROWDED,
            what=f"there are more keys of {cut}s, or of others, than can be gone through in "
            f"{SCAN_SECONDS:g} s, so that not all {cut}s are seen",
            advice=f"see whose they are, and remove what is none of ours: {commands.REPAIR_REDIS}",
            acts=Actor.PERSON,
        )
    for crowd in sorted(redis.crowded):
        if f"{crowd}:*" in named:
            continue
        role, _, label = crowd.partition(":")
        yield Problem(
            code=Code.MEMBERS_CROWDED,
            subject=label,
            what=f"more than {MAX_PROCESSES:,} {role}s are present under the id {label}, and no "
            "more are looked at",
            advice=f"give the processes several ids, if they are yours; if not, {_CHANGE_IT}",
            acts=Actor.PERSON,
        )


def _foreign_writes(facts: Facts) -> Iterator[Problem]:
    by_label: dict[str, list[ForeignWrites]] = {}
    for state in facts.known_rebuilders.values():
        for found in state.foreign_writes:
            by_label.setdefault(found.label, []).append(found)
    for label, some in sorted(by_label.items()):
        latest = max(some, key=lambda found: found.last_at)
        first = min(found.first_at for found in some)
        times = max(found.times for found in some)
        yield Problem(
            code=Code.FOREIGN_WRITES,
            subject=label,
            what=f"somebody wrote as reader {label} what no reader writes, {times} times since "
            f"{first:%Y-%m-%d %H:%M} UTC; at {latest.last_at:%H:%M:%S} it was: {latest.last}",
            advice=f"what was found is repaired; {_CHANGE_IT}",
            acts=Actor.PERSON,
        )


def limited(problems: Iterable[Problem]) -> Iterator[Problem]:
    """The same, of each kind no more than `_SHOWN` under one label, and then how many more.

    A label may stand for a thousand processes.
    """
    yielded: dict[tuple[Code, str], list[Problem]] = {}
    for problem in problems:
        label, _ = split_member_id(problem.subject or "")
        some = yielded.setdefault((problem.code, label), [])
        some.append(problem)
        if not label or len(some) <= _SHOWN:
            yield problem
    for (_, label), some in yielded.items():
        if label and len(some) > _SHOWN:
            latest = some[-1]
            more = f"the same of {len(some) - _SHOWN:,} more under the id {label}"
            yield latest.model_copy(update={"subject": label, "what": f"{more}; {latest.what}"})
