"""Every field of every message, and its bytes, other than they should be: nothing comes of it.

What is hostile goes into every stream, into presence, leases and the release key, between the
batches of an honest job. Beside it a twin of the installation gets the batches alone. Whatever was
added, no step raises, what is released is the same as in the twin (I11), every message is a look or
a dead letter, and nothing grows beyond its limit.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any, Final

import pytest

from indexrelay.console.demo.job import results_in
from indexrelay.health.judge import judge
from indexrelay.health.survey import Survey
from indexrelay.producers import NotServedError, Producer
from indexrelay.reloaders import Reloader
from indexrelay.schemas.clock import SystemClock
from indexrelay.schemas.errors import UnreadableEventError
from indexrelay.schemas.messages import MAX_EVENT_BYTES, Event
from indexrelay.storage.catalog.dead_letters import MAX_KEPT_BYTES
from indexrelay.streams.consumer import Delivery, deliveries_of
from tests.rebuilder.conftest import Bench, behaving, bench_in
from tests.schemas.sample_events import SAID
from tests.security.fuzzing import MINUTES, seeds
from tests.security.messages import drawn_id, hostile, messages, states
from tests.security.mutations import mutated, paths_of, replaced, without, written

ENTRIES: Final = 1000
ROUNDS: Final = 2
"""In CI: 2,000 entries."""
_A_TIME: Final = 200
_LETTERS: Final = 300


MESSAGES: Final = messages("index", "child")
STATES: Final = states("index", "child")


def test_every_field_of_every_message_is_reached() -> None:
    """Of envelopes, of what they say, and of the states of processes."""
    paths = {path for message in MESSAGES for path in paths_of(message)}
    for field in Event.model_fields:
        assert (field,) in paths
    for data in SAID:
        for field in type(data).model_fields.keys() - {"omitted"}:
            assert ("data", field) in paths, field
    base, seen = MESSAGES[0], Random(0)
    assert len({json.dumps(mutated(base, seen), default=str) for _ in range(500)}) > 200
    assert without(base, ("data", "epoch"))["data"].keys() == base["data"].keys() - {"epoch"}
    assert replaced(base, ("data", "epoch"), 1)["data"] == {**base["data"], "epoch": 1}
    assert MESSAGES[0]["data"]["epoch"] == "5f3a"


@pytest.mark.timeout(120 + 90 * MINUTES)
def test_whatever_is_added_to_the_streams_what_is_released_is_the_same(tmp_path: Path) -> None:
    for number, seed in enumerate(seeds(ROUNDS)):
        try:
            _round(tmp_path / str(number), Random(seed))
        except Exception as error:
            raise AssertionError(f"seed {seed}: {type(error).__name__}: {error}") from error


def _round(folder: Path, random: Random) -> None:
    components = {"index": behaving("tracks"), "child": behaving("index")}
    with (
        bench_in(folder / "attacked", **components) as attacked,
        bench_in(folder / "twin", **components) as twin,
    ):
        attacked.rebuilder = attacked.another(rebuilder={"max_dead_letters": _LETTERS})
        added: list[bytes] = []
        for step, batch in enumerate(_batches(random)):
            added += _attack(attacked, random)
            while attacked.rebuilder._intake.take(block_seconds=0):
                pass  # fewer at a time where they are large
            for bench in (attacked, twin):
                ids, deletes = batch
                bench.commit(*ids, deletes=deletes)
                for _ in range(2):  # the second look finds that nothing is left to do
                    bench.rebuilder.step()
            assert _released(attacked) == _released(twin), f"after batch {step}"
            _look_at_everything(attacked)
        _bounded(attacked, added)


def _batches(random: Random) -> Iterator[tuple[tuple[str, ...], tuple[str, ...]]]:
    """An honest job: entries that come, and in turn more that go than a gate lets pass."""
    present: list[str] = []
    for number in range(ENTRIES // _A_TIME):
        ids = tuple(f"e{number}-{each}" for each in range(1 if number % 2 else 20))
        gone = round(len(present) * random.uniform(0.6, 1)) if number % 2 else 0
        deletes = tuple(present[:gone])
        present = [*present[gone:], *ids]
        yield ids, deletes


def _attack(bench: Bench, random: Random) -> list[bytes]:
    """Add messages everywhere, some of them untouched; those that went into the events."""
    commands: Any = bench.connection.commands
    keys = bench.keys
    events: list[bytes] = []
    added = [written({**each, "id": drawn_id(random)}, Random(0)) for each in MESSAGES]
    added += [hostile(random, MESSAGES) for _ in range(_A_TIME - len(added))]
    for message in added:
        field = "event" if random.random() < 0.95 else random.choice(["", "Event", "\ud800", "x"])
        stream = random.choice(
            [keys.events] * 6 + [keys.results, keys.reloads, keys.reports("web"), keys.reports("é")]
        )
        entry = {field.encode(errors="surrogatepass"): message}
        commands.xadd(stream, entry)
        if stream == keys.events:
            events += [each.raw or b"" for each in deliveries_of([(b"1-0", entry)])]
    for _ in range(5):
        state = written(mutated(random.choice(STATES), random), random)[:MAX_EVENT_BYTES]
        member = random.choice(["web:0a", "reader-a", "rebuilder-a", "builder:00", "é", "x" * 300])
        key = random.choice([keys.reader, keys.rebuilder])(member)
        commands.set(key, state, px=random.choice([1, 15_000, 10**12]))
    commands.set(keys.lease(random.choice(["index", "other"])), b"a:b:c", px=1)
    commands.set(keys.release, random.choice([b"", b"-1", b"x", b"9" * 30, b"\xff", b"1"]))
    return events


def _released(bench: Bench) -> dict[str, tuple[object, ...]]:
    """What is released of each component, apart from names and times."""
    release = bench.store.newest_release()
    found: dict[str, tuple[object, ...]] = {}
    for name, version in ({} if release is None else release.components).items():
        manifest = bench.store.version(name, version)
        files = {label: ref.digest for label, ref in manifest.files.items()}
        found[name] = (manifest.covers, manifest.entries, manifest.definition, files)
    assert release is None or release.holds == {}
    return found


def _look_at_everything(bench: Bench) -> None:
    """Whoever reads what was added: the judge, a job, a reader, people."""
    survey = Survey(
        bench.settings,
        catalog=lambda: bench.catalog,
        store=lambda: bench.store,
        connection=lambda: bench.connection,
        clock=SystemClock(),
    )
    verdict = judge(survey.whole())
    assert len(verdict.model_dump_json()) < 8 * MAX_EVENT_BYTES
    rebuilder = bench.rebuilder
    rebuilder._check_readers()
    rebuilder._trim()
    rebuilder._collect_garbage()
    entries: Any = bench.connection.commands.xrange(bench.keys.results)
    results_in([Delivery(entry_id=key, raw=next(iter(of.values()))) for key, of in entries])
    reader = Reloader(
        bench.settings, store=bench.store, connection=bench.connection, reader_id="honest"
    )
    try:
        reader.step()
        newest = bench.store.newest_release()
        assert reader.state.release == (0 if newest is None else newest.number)
    finally:
        reader.stop()


def _bounded(bench: Bench, added: list[bytes]) -> None:
    """Each message is a row or a letter, and none of them counts for more than a look."""
    letters = bench.catalog.dead_letters
    kept = letters.all()
    dropped = letters.dropped()
    assert len(kept) <= _LETTERS
    assert all(len(letter.raw) <= MAX_KEPT_BYTES for letter in kept)
    beginnings = {raw[:MAX_KEPT_BYTES] for raw in added}
    assert {letter.raw for letter in kept} <= beginnings
    unreadable = sum(not _is_read(raw) for raw in added)
    assert len(kept) + (dropped.count if dropped else 0) >= min(unreadable, _LETTERS)
    assert bench.catalog.inbox.open() == []
    assert bench.connection.commands.xpending(bench.keys.events, "rebuilder")["pending"] == 0
    assert bench.catalog.attempts.paused() == {}
    with bench.catalog._database.read() as connection:
        rows = connection.exec_driver_sql(
            "SELECT count(*), max(length(body)), sum(requested) FROM indexrelay_inbox"
        ).one()
    assert rows[0] <= len(added)
    assert (rows[1] or 0) <= 32_768
    assert not rows[2]


def _is_read(raw: bytes) -> bool:
    try:
        return Event.from_bytes(raw).type in {"batch.completed.v1", "rebuild.requested.v1"}
    except UnreadableEventError:
        return False


def test_no_state_that_somebody_writes_makes_a_job_wait_for_another_or_fail(tmp_path: Path) -> None:
    """Presence alone: an honest reader serves, and what others write changes nothing for it."""
    random = Random(0)
    with bench_in(tmp_path, index=behaving("tracks")) as bench:
        commit = bench.commit("a")
        bench.rebuild()
        reader = Reloader(
            bench.settings, store=bench.store, connection=bench.connection, reader_id="honest"
        )
        reader.step()
        producer = Producer(bench.settings, catalog=bench.catalog, connection=bench.connection)
        for _ in range(100):
            state = json.loads(reader.state.model_dump_json())
            raw = written(mutated(state, random), random)[:MAX_EVENT_BYTES]
            bench.connection.commands.set(bench.keys.reader("evil:0b"), raw, px=60_000)
            served = producer.wait_served(commit, timeout_seconds=0, readers=["honest"])
            assert served.readers == ("honest",)
            with pytest.raises(NotServedError):
                producer.wait_served(commit, timeout_seconds=0, readers=["other"])
        reader.stop()
