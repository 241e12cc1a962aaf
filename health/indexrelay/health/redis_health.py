"""What Redis shows: who is there and how they stand, and what waits there for somebody.

Nothing of it is the truth about anything, and most of it ends by itself: a lease by its TTL, an
event that a dead consumer took by being claimed, a reader's delay by its next poll. Seen here it
explains why something waits, and what never ends by itself is told.
"""

from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Final

from indexrelay.health.advice import START_ONE
from indexrelay.health.facts import Facts, RedisFacts
from indexrelay.health.verdict import Actor, Code, Problem
from indexrelay.schemas import commands
from indexrelay.schemas.names import member_id
from indexrelay.schemas.results import LoadOutcome, ReaderState, RebuilderState
from indexrelay.schemas.versions import Release
from indexrelay.streams.connection import NO_EVICTION
from indexrelay.streams.leases import HeldLease

OF_ITS_OWN: Final = (
    f"end all of them but one, and start each of the others again: {commands.REBUILDER}"
)
"""For rebuilders under one id: without one, each draws one that no other has."""
_POLLS = 3
"""A reader that has not followed within so many of its polls is behind, and not just on its way."""
LONGEST_LEASES = 10
"""A lease that lasts for longer than so many of ours was not taken by a rebuilder with nearly our
settings."""
_LONGEST_WAIT_SECONDS = 30.0
"""An event that waits for longer is not on its way: a rebuilder reads several times a second."""


def role_problems(facts: Facts) -> Iterator[Problem]:
    """Roles that nobody has."""
    if facts.redis is None:
        return
    if facts.has_rebuilder is False:
        yield Problem(
            code=Code.NO_REBUILDER,
            what="no rebuilder is running, so nothing new is built",
            advice=START_ONE,
            acts=Actor.PERSON,
        )
    if not facts.redis.readers and "reader" not in facts.redis.unseen:
        yield Problem(
            code=Code.NO_READER,
            what="no reader is running, so nothing is served",
            advice=f"start one: {commands.READER}",
            acts=Actor.PERSON,
        )


def reader_problems(state: ReaderState, newest: Release | None, facts: Facts) -> Iterator[Problem]:
    """What keeps one reader from serving the newest release, whole."""
    failed = {
        name: component
        for name, component in state.components.items()
        if component.outcome is LoadOutcome.FAILED
    }
    for name, component in failed.items():
        serves = "it serves the last good version" if component.version else "it serves none"
        yield Problem(
            code=Code.READER_LOAD_FAILED,
            subject=state.reader,
            what=f"reader {state.process} could not load {name}, {serves}: {component.error}",
            advice="a transient error is tried again by itself; "
            f"a damaged file needs a new version: {commands.rebuild(name)}",
            acts=Actor.PERSON,
        )
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
    elif not state.ready and not failed:
        yield _not_ready(state, newest, facts)


def _not_ready(state: ReaderState, newest: Release | None, facts: Facts) -> Problem:
    """It serves the newest release, whole, and that lacks something that the reader requires."""
    released = {} if newest is None else newest.components
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
    """Whether the process that took the lease lives (`LABEL:PID:INSTANCE` is its owner)."""
    label, *life = lease.owner.rsplit(":", 2)
    pid, instance = life if len(life) == 2 else ("", "")
    # One of schema 1.0 is present by its label alone, and its leases end in another random part.
    for member in (member_id(label, instance), label):
        if member in alive:
            state = alive[member]
            return state is None or pid == str(state.pid)
    return False


def member_problems(facts: Facts) -> Iterator[Problem]:
    """What is not well with the readers and rebuilders that run."""
    if facts.redis is None:
        return
    for name, state in facts.redis.readers.items():
        if state is None:
            yield _not_understood("reader", name, Code.READER_UNREADABLE)
        else:
            yield from reader_problems(state, facts.release, facts)
    for name, rebuilder in facts.redis.rebuilders.items():
        if rebuilder is None:
            yield _not_understood("rebuilder", name, Code.REBUILDER_UNREADABLE)
            continue
        yield from _lock_waits(rebuilder)
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


def _silent(redis: RedisFacts, facts: Facts) -> Iterator[Problem]:
    """Whoever missed two of its own heartbeats, and counts as gone soon."""
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
            if left is not None and left < ttl_seconds / 4:
                yield Problem(
                    code=code,
                    subject=name,
                    what=f"{kind} {who} was last heard of {ttl_seconds - left:.0f} s ago",
                    advice=f"if it does not come back, it counts as gone in {left:.0f} s: "
                    "see whether its process runs, and its log",
                    acts=Actor.PERSON,
                )
