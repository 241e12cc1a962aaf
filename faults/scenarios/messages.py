"""F24: whoever may add to the streams adds what it likes: what is released is the same.

Entries are deleted, more of them than a version may lose, so that the built version waits for a
person. Meanwhile every message that there is says the opposite: force it, build it from scratch, it
is released, it is served, the catalog is at another generation; and hundreds more of them say
anything at all. Only what a person asks for in the catalog moves the release.
"""

import time
from pathlib import Path
from random import Random

from faults.bench import RECONCILE_SECONDS, Bench
from faults.recorder import COLLECTION
from faults.rows import Row
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
from indexrelay.streams import Presence
from tests.security.messages import hostile, messages

_COMPONENTS = ("left", "right")
_HOSTILE = 300
_RELEASED_SECONDS = 5.0


def run(program: Path, row: Row, runs: int) -> None:
    """Each run is an installation of its own."""
    for number in range(runs):
        with row.run(f"run {number}"), Bench(program) as bench:
            _once(bench, row, Random(number))


def _once(bench: Bench, row: Row, random: Random) -> None:
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

    for said in _claims(bench, newest.number, newest.components):
        _add(bench, Event.of(said, source="hostile", time=SystemClock().now()).to_bytes())
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
    """Everything that would move something if anybody believed it."""
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
