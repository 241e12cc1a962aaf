"""Messages: too many of them, unreadable ones, forged ones, and a reader's password in wrong hands.

F12: poison in the stream and in builds: a dead letter, or given up after exactly three attempts.

F16: 10,000 events in a few seconds: all that arrive while one build runs make one more build.

F23: somebody has the password of a reader and uses it for a minute, behind the shipped access list:
whatever a reader may do, in a harmful way, and whatever it may not do. Meanwhile jobs commit, the
other readers serve it and go on being seen, and `status` names the label under which somebody does
harm. Then the password is taken away, and all is well again without a hand.

F24: a client that may add to the streams adds anything: what is released is the same. Entries are
deleted, more of them than a version may lose, so that the built version waits for a person.
Meanwhile every message that there is claims the opposite: force it, build it from scratch, it is
released, it is served. Only what a person asks for in the catalog moves the release.
"""

import json
import secrets
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from random import Random
from typing import Any

from faults.bench import RECONCILE_SECONDS, Bench, event_of, knows_access_lists
from faults.recorder import COLLECTION
from faults.rows import Row
from indexrelay.health.judge import judge
from indexrelay.health.status import Problem
from indexrelay.health.survey import Survey
from indexrelay.producers import NotServedError
from indexrelay.producers.errors import EventRefusedError
from indexrelay.schemas.clock import SystemClock
from indexrelay.schemas.messages import (
    FIELD,
    BatchCompleted,
    Event,
    EventData,
    RebuildFinished,
    RebuildRequested,
    RebuildStatus,
    ReleaseApplied,
    ReleasePublished,
)
from indexrelay.storage.catalog import Commit
from indexrelay.streams import Presence, publish_many
from tests.security.messages import hostile, messages

_BAD: Mapping[str, Mapping[str, Any]] = {
    "raises": {"behaviour": "gate_raises"},
    "exits": {"behaviour": "exits"},
    "eats": {"behaviour": "eats", "build_memory_bytes": 200_000_000},
    "hangs": {"behaviour": "hangs", "build_timeout_seconds": 0.3},
}
_HEALTHY_SECONDS = 10.0
"""Where it has to wait for a worker, it is one of the bad ones that it waits for."""


def poisoned(program: Path, row: Row, runs: int) -> None:
    """Four bad components beside a good one, and bad events before a good one."""
    components = {
        "healthy": {"from": [COLLECTION]},
        **{name: {"from": [COLLECTION], **keys} for name, keys in _BAD.items()},
    }
    for number in range(runs):
        with row.run(f"run {number}"), Bench(program, components=components) as bench:
            _poison_once(bench, row)


def _poison_once(bench: Bench, row: Row) -> None:
    rebuilder = bench.start("rebuilder", "rebuilder-1")
    bench.start("reader", "reader-1")
    poison = [
        secrets.token_bytes(64),
        json.dumps({"type": "batch.completed.v1", "data": {"generation": "many"}}).encode(),
        json.dumps({"type": "batch.completed.v9", "id": "1"}).encode(),
    ]
    for raw in poison:
        bench.connection.commands.xadd(bench.keys.events, {FIELD: raw})
    committed_at = time.monotonic()
    generation = bench.commit().generation
    bench.wait(lambda: _served_by_reader(bench) == generation)
    row.recovered(time.monotonic() - committed_at, within=_HEALTHY_SECONDS)
    bench.wait(lambda: bench.catalog.dead_letters.count() == len(poison))
    assert {letter.raw for letter in bench.catalog.dead_letters.all()} == set(poison)
    most = bench.settings.rebuilder.max_consecutive_failures
    bench.wait(
        lambda: (
            {name: each.failures for name, each in bench.catalog.attempts.all().items()}
            == dict.fromkeys(_BAD, most)
        )
    )
    # Two more reconciles, and there is no retry.
    given_up_at = time.monotonic()
    bench.wait(lambda: time.monotonic() - given_up_at > 2 * RECONCILE_SECONDS)
    lines = [
        json.loads(line)
        for line in rebuilder.log.read_text(encoding="utf-8").splitlines()
        if line.startswith("{")
    ]
    building = [line["component"] for line in lines if line["event"] == "component.building"]
    tried = {name: building.count(name) for name in _BAD}
    assert tried == dict.fromkeys(_BAD, most), f"tried {tried}"
    row.broke(bench.violations(given_up=len(_BAD)))


def _served_by_reader(bench: Bench) -> int | None:
    state = bench.states().get("reader-1")
    healthy = state.components.get("healthy") if state is not None else None
    return healthy.covers.get(COLLECTION) if healthy is not None else None


_EVENTS = 10_000
_COMMITS = 50
"""Each is announced by so many events that they add up to the number."""
_BUILD_SECONDS = 0.5


def flooded(program: Path, row: Row, runs: int) -> None:
    """Flood a rebuilder whose builds take half a second."""
    slow = {
        name: {"from": ["tracks"], "group": "pair", "seconds": _BUILD_SECONDS}
        for name in ("left", "right")
    }
    with Bench(program, components=slow) as bench:
        bench.bring_up(readers=1)
        for number in range(runs):
            with row.run(f"run {number}"):
                _flood_once(bench, row)
        row.broke(bench.violations())


def _flood_once(bench: Bench, row: Row) -> None:
    built = len(bench.recorder.manifests())
    started = time.monotonic()
    for _ in range(_COMMITS):
        commit = bench.commit()
        raws = [event_of(commit) for _ in range(_EVENTS // _COMMITS)]
        publish_many(bench.connection, bench.keys.events, raws)
    flooded_in = time.monotonic() - started
    row.recovered(bench.settle(), within=10)
    seconds = time.monotonic() - started
    per_component = (len(bench.recorder.manifests()) - built) / len(bench.settings.components)
    allowed = seconds / _BUILD_SECONDS + 2
    row.figures.append(
        f"{_EVENTS} events in {flooded_in:.1f} s: {per_component:.0f} builds of each component, "
        f"{allowed:.0f} allowed"
    )
    assert per_component <= allowed, f"{per_component} builds of each component"


_COMPONENTS = ("left", "right")
_HOSTILE = 300
_RELEASED_SECONDS = 5.0


def forged(program: Path, row: Row, runs: int) -> None:
    """Each run is an installation of its own."""
    for number in range(runs):
        with row.run(f"run {number}"), Bench(program) as bench:
            _forge_once(bench, row, Random(number))


def _forge_once(bench: Bench, row: Row, random: Random) -> None:
    bench.start("rebuilder", "rebuilder-1")
    bench.start("reader", "reader-1")
    batches = [bench.new_batch() for _ in range(4)]
    for batch in batches:
        bench.commit(batch)
    bench.settle()
    newest = bench.store.newest_release()
    assert newest is not None
    _delete(bench, [name for _, ids in batches[:3] for name in ids])
    bench.wait(lambda: bench.catalog.attempts.all().keys() == set(_COMPONENTS))

    for claim in _claims(bench, newest.number, newest.components):
        _add(bench, Event.of(claim, source="hostile", time=SystemClock().now()).to_bytes())
    kinds = messages(*_COMPONENTS)
    for _ in range(_HOSTILE):
        _add(bench, hostile(random, kinds))
    _appear(bench)
    bench.wait(lambda: not bench.recorder.left().unread and not bench.recorder.left().inbox)
    read_at = time.monotonic()
    bench.wait(lambda: time.monotonic() - read_at > 2 * RECONCILE_SECONDS)
    now = bench.store.newest_release()
    assert now == newest, f"{now} instead of {newest}"

    asked_at = time.monotonic()
    bench.producer.request_rebuild(_COMPONENTS, force=True, reason="they are gone for good")
    bench.settle()
    row.recovered(time.monotonic() - asked_at, within=_RELEASED_SECONDS)
    row.broke(bench.violations())


def _delete(bench: Bench, ids: list[str]) -> None:
    name, _ = bench.new_batch()
    bench.recorder.committed[name] = ()
    bench.recorder.deleted[name] = tuple(ids)
    with bench.producer.batch(COLLECTION, name) as changes:
        changes.delete(ids)


def _claims(bench: Bench, number: int, components: dict[str, str]) -> list[EventData]:
    """Every message that would change something if it were believed."""
    epoch = bench.catalog.collections.get(COLLECTION).epoch
    now = SystemClock().now()
    wishes = [{"force": True}, {"full": True}, {"force": True, "full": True}]
    return [
        *(
            RebuildRequested.model_validate({"request_id": "r", "components": names, **wish})
            for names in ((), _COMPONENTS)
            for wish in wishes
        ),
        BatchCompleted(collection=COLLECTION, epoch=epoch, batch_id="b", generation=2**62),
        BatchCompleted(collection=COLLECTION, epoch="other", batch_id="b", generation=1),
        ReleasePublished(release=number + 1, digest="0" * 64, components=components),
        ReleasePublished(release=1, digest="0" * 64),
        RebuildFinished(
            status=RebuildStatus.SUCCESS,
            message="forged",
            indexes_rebuilt=_COMPONENTS,
            release=number + 1,
            started_at=now,
            finished_at=now,
        ),
        ReleaseApplied(reader="reader-1", release=number + 1, ready=True, seconds=0, components={}),
    ]


def _add(bench: Bench, raw: bytes) -> None:
    """To every stream there is."""
    bench.recorder.forged.add(raw)
    keys = bench.keys
    for key in (keys.events, keys.results, keys.reloads, keys.reports("reader-1")):
        bench.connection.commands.xadd(key, {FIELD: raw})


def _appear(bench: Bench) -> None:
    """Say under a key of its own to be the honest reader, and the rebuilder."""
    for kind, name in (("reader", "reader-1"), ("rebuilder", "rebuilder-1")):
        presence = Presence(bench.connection, bench.keys, kind)  # type: ignore[arg-type] # a kind
        for member, state in presence.all().items():
            if member.startswith(name):
                presence.publish("evil:0b", state, ttl_seconds=60)


LABEL, VICTIM = "reader_a", "reader_b"
_INTRUSION_SECONDS = 60.0
_BRIEF_SECONDS = 2.0
"""Among other tests, where each second counts."""
_SERVED_SECONDS = 10.0
"""A commit whose event is refused for want of memory is found by the next comparison (1 s); while
the memory is full, a build waits for the rebuilder to make room."""


def intruded(program: Path, row: Row, runs: int) -> None:
    """An installation of its own for each run, since the password is lost with it."""
    for number in range(runs):
        if not knows_access_lists(program):
            row.figures.append("this server has no such access lists")
            return
        with Bench(program, guarded=True) as bench:
            bench.recorder.distrusted.add(LABEL)
            with row.run(f"run {number}"):
                _intrude_once(bench, row)
            row.broke(bench.violations())


def _intrude_once(bench: Bench, row: Row) -> None:
    bench.start("rebuilder", "rebuilder-1")
    for name in (LABEL, VICTIM):
        bench.start("reader", name)
    bench.commit()
    bench.settle()
    intruder = bench.intrude(LABEL, victim=VICTIM)
    end = time.monotonic() + (_INTRUSION_SECONDS if row.timed else _BRIEF_SECONDS)
    served: list[float] = []
    named: Problem | None = None
    while time.monotonic() < end or named is None:
        served.append(_serve_one(bench))
        named = named or _named(bench)
        assert time.monotonic() < end + _SERVED_SECONDS, "status does not say who does harm"
    assert intruder.ended is None, "the intruder has ended"
    intruder.send(signal.SIGTERM)
    assert intruder.wait() == 0
    done = json.loads(bench.intruder_log.read_text(encoding="utf-8"))
    assert done["forbidden_and_done"] == []
    assert bench.guard is not None
    bench.guard.forbid(LABEL)
    bench.processes.pop(LABEL).kill()
    row.recovered(bench.settle(), within=8)
    row.figures.append(
        f"{sum(done['done'].values())} deeds, {sum(done['refused'].values())} refused; "
        f"{len(served)} commits served, the slowest after {max(served):.1f} s"
    )


def _serve_one(bench: Bench) -> float:
    """Commit, and wait until the victim serves it; how long that took."""
    started = time.monotonic()
    try:
        commit: Commit = bench.commit()
    except EventRefusedError as error:  # the memory is full; the commit is valid
        commit = error.commit
    try:
        bench.producer.wait_served(commit, timeout_seconds=_SERVED_SECONDS, readers=[VICTIM])
    except NotServedError as error:
        raise AssertionError(f"{VICTIM} does not serve what was committed: {error}") from error
    return time.monotonic() - started


def _named(bench: Bench) -> Problem | None:
    """The judge's problem about the label."""
    facts = Survey(
        bench.settings,
        catalog=lambda: bench.catalog,
        store=lambda: bench.store,
        connection=lambda: bench.connection,
        clock=SystemClock(),
    ).whole()
    return next((each for each in judge(facts).problems if each.subject == LABEL), None)
