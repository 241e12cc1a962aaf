"""The one judge: whether all is well, and if not why and what to do, from facts alone.

Every command and process that reports the state of an installation asks `judge`: so no two of them
can disagree. One that is about less (`PLACES`, `BUILDS`) shows those problems and no others.

Three rules hold for all of it. What could not be looked at is a problem of its own and never well.
What a person asked for (held, paused) is reported, since a decision is easily forgotten. And that a
component is being built is reported beside its condition, since a build may fail.
"""

import sys
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Final

from indexrelay.health.components import (
    collection_health,
    collection_problems,
    component_health,
    component_problems,
    left_out_note,
    notes,
)
from indexrelay.health.due import GroupState, find_due, judge_groups
from indexrelay.health.facts import Area, Facts, passed_over
from indexrelay.health.redis import (
    declaration_problems,
    intrusion_problems,
    limited,
    member_problems,
    reader_problems,
    redis_problems,
    refused_settings,
    role_problems,
)
from indexrelay.health.status import Actor, Code, Problem, Verdict
from indexrelay.schemas import commands
from indexrelay.schemas.clock import is_ahead
from indexrelay.schemas.messages import ReaderState
from indexrelay.schemas.settings import Settings
from indexrelay.schemas.versions import Release
from indexrelay.storage.artifacts import ReleaseUnreadableError

_NOTHING_DECLARED = "the settings declare no component: nothing is built, and nothing is served"


def judge(facts: Facts) -> Verdict:
    """Everything that is not well, the problems that explain others first."""
    due = find_due(facts, facts.retry_policy)
    collections = collection_health(facts)
    components = component_health(facts, collections, due)
    groups = judge_groups(facts, due)
    problems = (
        *_unknown(facts, Area.CATALOG, Area.ARTIFACTS),
        *(
            problem
            for name, health in collections.items()
            for problem in collection_problems(name, health, facts)
        ),
        *_unknown(facts, Area.REDIS),
        *limited(_of_releases(facts)),
        *_of_canary(facts),
        *role_problems(facts),
        *limited(declaration_problems(facts)),
        *_of_groups(groups.values(), facts),
        *component_problems(components, facts, due),
        *limited(intrusion_problems(facts)),
        *redis_problems(facts),
        *limited(member_problems(facts)),
        *_of_schedules(facts),
        *_of_backups(facts),
        *_of_dead_letters(facts),
    )
    redis = facts.redis
    return Verdict(
        well=not problems,
        problems=problems,
        notes=(
            *([] if facts.definitions else [_NOTHING_DECLARED]),
            *notes(facts, components, due),
            *map(_open_folder_note, facts.open_folders),
            *filter(None, (left_out_note(*each) for each in collections.items())),
        ),
        release=0 if facts.release is None else facts.release.number,
        announced=None if redis is None else redis.announced,
        collections=collections,
        components=components,
        readers=facts.known_readers,
        rebuilders=facts.known_rebuilders,
        dead_letters=facts.dead_letters,
    )


_AREAS: Final = {
    Area.CATALOG: (Code.CATALOG_UNREADABLE, "the catalog cannot be read"),
    Area.ARTIFACTS: (Code.ARTIFACTS_UNREADABLE, "the artifacts cannot be read"),
    Area.REDIS: (Code.REDIS_UNREADABLE, "Redis cannot be asked"),
}


def judge_reader(
    state: ReaderState,
    newest: Release | None,
    *,
    settings: Settings,
    now: datetime,
    broken: Mapping[int, ReleaseUnreadableError] | None = None,
) -> tuple[Problem, ...]:
    """What is not well with one reader: the same as `judge` finds, for the reader itself.

    Args:
        newest: the newest release that it takes.
        broken: those above it, and why not.
    """
    facts = Facts(
        definitions=settings.components,
        sources={},
        release=newest,
        versions={},
        since=now,
        now=now,
        reader=settings.reader,
        **passed_over(broken or {}),
    )
    refused = refused_settings(state)
    return (*_passed_over(facts), *reader_problems(state, newest, facts), *refused)


def _open_folder_note(folder: str) -> str:
    return f"every user of this host may look into {folder}; keep them out: chmod o= {folder}"


def _unknown(facts: Facts, *areas: Area) -> Iterator[Problem]:
    """The areas that could not be looked at."""
    for area in areas:
        if (unknown := facts.unknown.get(area)) is not None:
            code, what = _AREAS[area]
            yield Problem(
                code=code,
                what=f"{what}: {unknown.reason}",
                advice=unknown.advice,
                acts=Actor.PERSON,
            )


def _passed_over(facts: Facts) -> Iterator[Problem]:
    """Releases above the newest that is taken."""
    for number, error in facts.broken_releases.items():
        yield Problem(
            code=Code.RELEASE_CORRUPT,
            subject=None,
            what=f"release {number} is corrupt and is passed over: {error}",
            advice="restore its file, or its copy, from a backup; the newest intact one serves, "
            "and what a rebuild releases next replaces it",
            acts=Actor.PERSON,
        )
    for number, reason in facts.untrusted_releases.items():
        yield Problem(
            code=Code.RELEASE_UNTRUSTED,
            what=f"release {number} is passed over: {reason}",
            advice="see who wrote it, and who may write to the artifacts; if it was right, sign it "
            f"where the signing key is: {commands.sign_release(number)}",
            acts=Actor.PERSON,
        )


def _of_releases(facts: Facts) -> Iterator[Problem]:
    yield from _passed_over(facts)
    if facts.redis is None or Area.ARTIFACTS in facts.unknown:
        return
    newest = 0 if facts.release is None else facts.release.number
    announced = facts.redis.announced
    # Before the catalog has noted any, every number is possible.
    known = max(facts.known_release or sys.maxsize, facts.highest_release)
    for state in facts.known_readers.values():
        if state.release > known:
            yield Problem(
                code=Code.RELEASE_MADE_UP,
                subject=state.member,
                what=f"reader {state.process} says that it serves release {state.release}, and "
                f"none above {known} was ever committed here",
                advice="see who has its password for Redis; only where catalog and artifacts both "
                f"came from a backup is it right: {commands.reconcile_above(state.release)}",
                acts=Actor.PERSON,
            )
    served = max(
        (each.release for each in facts.known_readers.values() if each.release <= known), default=0
    )
    if announced > known:
        yield Problem(
            code=Code.RELEASE_MADE_UP,
            what=f"Redis was told of release {announced}, and none above {known} was ever "
            "committed here",
            advice="a rebuilder puts it right at its next comparison unless readers say that they "
            f"serve it; at once: {commands.RECONCILE}",
            acts=Actor.PROCESS if facts.has_rebuilder else Actor.PERSON,
        )
    elif max(announced, served) > max(facts.highest_release, newest):
        who = f"release {max(announced, served)} was announced or is served"
        yield Problem(
            code=Code.RELEASES_LOST,
            what=f"{who}, and the newest of the artifacts is {facts.highest_release or newest}",
            advice="see that artifacts.dir is the right one, and mounted; if it has lost releases, "
            "a running rebuilder goes on above their numbers within minutes",
            acts=Actor.PERSON,
        )
    elif announced < newest and not any(
        each.key.endswith("}:release") for each in facts.redis.wrong_keys
    ):
        yield Problem(
            code=Code.RELEASE_UNANNOUNCED,
            what=f"release {newest} is committed, and Redis was told of {announced or 'none'}",
            advice="nothing to do: readers look at the artifacts by themselves, "
            "and a rebuilder announces it at its next comparison",
            acts=Actor.PROCESS,
        )


def _of_canary(facts: Facts) -> Iterator[Problem]:
    canary = None if facts.release is None else facts.release.canary
    if facts.release is None or canary is None:
        return
    limits = facts.releases
    longest = limits.canary_load_seconds + limits.canary_seconds + facts.reader.presence_ttl_seconds
    if facts.now - canary.since > timedelta(seconds=longest):
        yield Problem(
            code=Code.CANARY_WAITS,
            what=f"release {facts.release.number} is tried by {', '.join(canary.readers)} since "
            f"{canary.since:%Y-%m-%d %H:%M} UTC, and nobody decided on it: the other readers stay "
            "where they are, and nothing is built",
            advice="see that a rebuilder runs and reaches Redis; what each reader serves: "
            f"{commands.READERS}",
            acts=Actor.PERSON,
        )


def _of_groups(groups: Iterable[GroupState], facts: Facts) -> Iterator[Problem]:
    for group in groups:
        if group.waiting:
            asked = all(
                name in facts.paused or (name in facts.holds and facts.holds[name].refused is None)
                for name in group.held_back_by
            )
            yield Problem(
                code=Code.GROUP_WAITS,
                subject=group.group,
                what=f"{group.sentence}, and keeps {', '.join(group.waiting)} where they are"
                if len(group.waiting) > 1
                else f"{group.sentence}, and keeps {group.waiting[0]} where it is",
                advice="the group moves as a whole once that one does: see "
                f"{', '.join(sorted(group.held_back_by))}",
                acts=Actor.PERSON,
                asked=asked,
            )
        if not group.whole:
            yield Problem(
                code=Code.GROUP_SPLIT,
                subject=group.group,
                what=f"group {group.group} is not at one state: {'; '.join(group.disagreements)}",
                advice="readers keep the last release in which it was; "
                f"the next build brings it together: {commands.rebuild(*group.members)}",
                acts=Actor.PERSON,
            )


def _of_schedules(facts: Facts) -> Iterator[Problem]:
    """The schedules at which no operator looks."""
    if Area.CATALOG in facts.unknown:
        return
    for name, schedule in facts.schedules.items():
        state = facts.schedule_states.get(name)
        if state is None or state.definition != schedule.definition:
            what = f"no operator looks at schedule {name}, as it is declared"
        elif (facts.now - state.next_at).total_seconds() > schedule.late_seconds:
            what = (
                f"schedule {name} should have started a rebuild at "
                f"{state.next_at:%Y-%m-%d %H:%M} UTC, and no operator has"
            )
        elif is_ahead(state.decided, facts.now):
            what = (
                f"schedule {name} was decided on up to {state.decided:%Y-%m-%d %H:%M} UTC, "
                "which is still to come: the clock of an operator was wrong"
            )
        else:
            continue
        yield Problem(
            code=Code.SCHEDULE_OVERDUE,
            subject=name,
            what=what,
            advice=f"start an operator, or start it again with these settings: {commands.OPERATOR}",
            acts=Actor.PERSON,
        )


def _of_backups(facts: Facts) -> Iterator[Problem]:
    """That there is no backup that is young enough; where nothing is released, nothing is lost."""
    backups = facts.backups
    if backups is not None and backups.ahead:
        yield Problem(
            code=Code.BACKUP_AHEAD,
            what=f"{len(backups.ahead)} backup(s) in {backups.folder} bear a time that is still to "
            f"come: {', '.join(backups.ahead[:3])}{', …' if backups.ahead[3:] else ''}",
            advice="set the clock of the host that made them; they count for no schedule and are "
            "never removed, so delete what is not wanted",
            acts=Actor.PERSON,
        )
    if backups is None or facts.release is None:
        return
    days = backups.max_age_seconds / 86_400
    if backups.unreadable is not None:
        what = f"it is not known whether there is a backup: {backups.unreadable}"
    elif backups.newest_at is None:
        what = f"there is no backup in {backups.folder}, and they are scheduled"
    elif (age := (facts.now - backups.newest_at).total_seconds()) > backups.max_age_seconds:
        what = (
            f"the newest backup in {backups.folder} is {age / 86_400:.1f} days old, "
            f"and is to be younger than {days:.3g}"
        )
    else:
        return
    yield Problem(
        code=Code.BACKUP_OVERDUE,
        what=what,
        advice=f"see that an operator runs, and what its log says of backups; "
        f"make one now: {commands.CREATE_BACKUP}",
        acts=Actor.PERSON,
    )


def _of_dead_letters(facts: Facts) -> Iterator[Problem]:
    if facts.dead_letters:
        dropped = facts.dropped_letters
        more = f"; {dropped.count:,} more were not kept" if dropped is not None else ""
        yield Problem(
            code=Code.DEAD_LETTERS,
            what=f"{facts.dead_letters} event(s) could not be read and are dead letters{more}",
            advice=f"retry or drop them; which they are: {commands.DEAD_LETTERS}",
            acts=Actor.PERSON,
        )
