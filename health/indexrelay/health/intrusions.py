"""What somebody does in Redis who should not: in the wrong place, too much, or as somebody else.

Whose place it is follows from the key, which only one user may write where each has one of its own.
So a label can be named, whoever it is that has its password.
"""

from collections.abc import Iterable, Iterator

from indexrelay.health.facts import Facts, RedisFacts
from indexrelay.health.verdict import Actor, Code, Problem
from indexrelay.schemas import commands
from indexrelay.schemas.names import split_member_id
from indexrelay.schemas.results import ForeignWrites
from indexrelay.streams.presence import MAX_PROCESSES
from indexrelay.streams.wrong_keys import WrongKey

_CHANGE_IT = "see who has its password for Redis, and change it (docs/security.md)"
_MOST_TOLD = 5
_MUCH = 10
"""Whoever holds more than one in so many of a server's bytes is named when they become short."""


def few(problems: Iterable[Problem]) -> Iterator[Problem]:
    """The same, of each kind no more than `_MOST_TOLD` under one label, and then how many more.

    A label may stand for a thousand processes, whoever they are.
    """
    told: dict[tuple[Code, str], list[Problem]] = {}
    for problem in problems:
        label, _ = split_member_id(problem.subject or "")
        some = told.setdefault((problem.code, label), [])
        some.append(problem)
        if not label or len(some) <= _MOST_TOLD:
            yield problem
    for (_, label), some in told.items():
        if label and len(some) > _MOST_TOLD:
            latest = some[-1]
            more = f"the same of {len(some) - _MOST_TOLD:,} more under the id {label}"
            yield latest.model_copy(update={"subject": label, "what": f"{more}; {latest.what}"})


def intrusion_problems(facts: Facts) -> Iterator[Problem]:
    """What stands in the place of something of ours, and who may have written it."""
    redis = facts.redis
    if redis is None:
        return
    for wrong in redis.wrong_keys:
        yield _wrong_key(wrong, facts)
    yield from _memory(redis)
    yield from _places(redis)
    yield from _foreign_writes(facts)


def _places(redis: RedisFacts) -> Iterator[Problem]:
    """What counts for nobody, or is too much to be looked at."""
    told = {wrong.key.partition(":")[2] for wrong in redis.wrong_keys}
    for key, why in redis.dropped.items():
        if key in told:
            continue
        yield Problem(
            code=Code.MEMBER_DROPPED,
            subject=key.partition(":")[2],
            what=f"the presence of {key.replace(':', ' ', 1)} counts for nobody: {why}",
            advice="somebody writes there who is not that process, and the key ends by itself: "
            f"{_CHANGE_IT}",
            acts=Actor.PERSON,
        )
    for crowd in sorted(redis.crowded):
        if f"{crowd}:*" in told:
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


def _wrong_key(wrong: WrongKey, facts: Facts) -> Problem:
    mended = (
        f"a rebuilder mends it at its next look; at once: {commands.RECONCILE}"
        if facts.has_rebuilder
        else f"it is mended, and nothing is lost by it, with: {commands.RECONCILE}"
    )
    return Problem(
        code=Code.REDIS_KEY,
        subject=wrong.label or wrong.key,
        what=f"{wrong}; {wrong.writers}",
        advice=f"{mended}; if it comes again, {_CHANGE_IT}",
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
            advice=f"what was found is mended; {_CHANGE_IT}",
            acts=Actor.PERSON,
        )
