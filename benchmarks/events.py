"""What does our way of sending and reading events cost, over bare redis-py and beside FastStream?

One event at a time and many at once; then reading as a member of a group, with validation and
acknowledgement. Bare redis-py serialises, validates and acknowledges the same pydantic model.
"""

import secrets
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from redis import Redis

from indexrelay.producers import Producer
from indexrelay.producers.events import EventDraft, EventSender, JobConnection
from indexrelay.rebuilder.inbox import read_event
from indexrelay.schemas.clock import SystemClock
from indexrelay.schemas.messages import FIELD, BatchCompleted, Event
from indexrelay.schemas.settings import Settings
from indexrelay.storage.catalog import Catalog
from indexrelay.streams import Connection, ConsumerGroup, Keys, publish_many
from measuring.companions import Companion, PeerMissingError, peer
from measuring.findings import Figure, Findings, Target, at_least, joined
from measuring.plots import Bars
from measuring.program import Asked, Program, main
from measuring.rounds import Contender, Rounds, interleaved, prepared
from measuring.servers import BenchServer, bench_server

CAVEATS = """\
- An event is emitted after the commit of its batch, and that is not in here: SQLite's fsync takes
  longer than any event. `batches/s` shows both together.
- Bare redis-py takes envelopes that are built already and writes them as JSON; ours puts each event
  into its envelope and draws its id, as it does for a job.
- Ours packs commands and reads replies itself, without redis-py's pipeline, and writes an envelope
  that many events share once; that, and not less work on the server, makes `emit_many` fast.
- Reading is what a rebuilder does before the inbox: group read, envelope and data validated,
  acknowledged in one call for 500. FastStream's handler is called, and acknowledges, one by one;
  that is how its documentation introduces it, and it can also take batches.
- Client, server and FastStream's process share the cores.
"""
BATCH = 500
"""Events read at a time, on both sides; what our rebuilder takes."""


class Envelope(Event):
    """The same model as ours, in the way pydantic reads and writes it in one go."""

    data: BatchCompleted


def said(count: int) -> list[BatchCompleted]:
    return [
        BatchCompleted(
            collection="tracks",
            epoch="5f3a",
            batch_id=f"b{number}",
            generation=number,
            upserts=1000,
        )
        for number in range(1, count + 1)
    ]


def enveloped(data: Sequence[BatchCompleted]) -> list[Envelope]:
    now = datetime.now(UTC)
    return [
        Envelope(
            id=secrets.token_hex(16),
            source="benchmarks/events",
            type=each.TYPE,
            subject=each.collection,
            time=now,
            data=each,
        )
        for each in data
    ]


class Sending:
    """Contenders that add events to an empty stream."""

    def __init__(self, server: BenchServer, count: int) -> None:
        self._client = server.client()
        self._connection = Connection.open(server.url)
        self._keys = Keys("bench")
        self._said = said(count)
        self._models = enveloped(self._said)
        settings = Settings(namespace="bench")
        self._sender = EventSender(
            settings, connection=JobConnection(settings, self._connection), clock=SystemClock()
        )

    def emit(self) -> Contender:
        def work(_: None) -> None:
            for data in self._said:
                self._sender.send([EventDraft(data, data.collection)])

        return prepared(self._empty, work, self._check)

    def emit_many(self) -> Contender:
        def work(_: None) -> None:
            self._sender.send([EventDraft(data, data.collection) for data in self._said])

        return prepared(self._empty, work, self._check)

    def xadd(self) -> Contender:
        def work(_: None) -> None:
            for model in self._models:
                raw = model.model_dump_json(exclude_none=True)
                self._client.xadd(self._keys.events, {FIELD: raw})

        return prepared(self._empty, work, self._check)

    def pipeline(self) -> Contender:
        def work(_: None) -> None:
            for start in range(0, len(self._models), 1000):
                with self._client.pipeline(transaction=False) as pipeline:
                    for model in self._models[start : start + 1000]:
                        raw = model.model_dump_json(exclude_none=True)
                        pipeline.xadd(self._keys.events, {FIELD: raw})
                    pipeline.execute()

        return prepared(self._empty, work, self._check)

    def _empty(self) -> None:
        self._client.delete(self._keys.events)

    def _check(self, _: None) -> None:
        if self._client.xlen(self._keys.events) != len(self._said):
            raise RuntimeError("not everything was added")


class Reading:
    """Contenders that read a whole stream as members of a group, validate and acknowledge."""

    def __init__(self, server: BenchServer, count: int) -> None:
        self._client = server.client()
        self._connection = Connection.open(server.url)
        self._key = Keys("bench").events
        self._raws = [model.to_bytes() for model in enveloped(said(count))]

    def ours(self) -> Contender:
        def work(_: None) -> None:
            group = ConsumerGroup(self._connection, self._key, group="readers", consumer="one")
            while deliveries := group.read(count=BATCH, block_seconds=0):
                now = datetime.now(UTC)
                for delivery in deliveries:
                    if delivery.raw is not None:
                        read_event(delivery.raw, received_at=now)
                group.acknowledge([delivery.entry_id for delivery in deliveries])

        return prepared(self._fill, work, self._check)

    def bare(self) -> Contender:
        client: Redis = self._client

        def work(_: None) -> None:
            while reply := client.xreadgroup("readers", "one", {self._key: ">"}, count=BATCH):
                entries: list[Any] = _entries(reply)
                for _id, fields in entries:
                    Envelope.model_validate_json(fields[FIELD])
                client.xack(self._key, "readers", *(entry_id for entry_id, _ in entries))

        return prepared(self._fill, work, self._check)

    def _fill(self) -> None:
        self._client.delete(self._key)
        publish_many(self._connection, self._key, self._raws)
        self._client.xgroup_create(self._key, "readers", id="0")

    def _check(self, _: None) -> None:
        pending: Any = self._client.xpending(self._key, "readers")
        (group,) = self._client.xinfo_groups(self._key)
        last: Any = self._client.xinfo_stream(self._key)["last-generated-id"]
        if pending["pending"] or group["last-delivered-id"] != last:
            raise RuntimeError("not everything was read and acknowledged")


def _entries(reply: Any) -> list[Any]:
    """In both shapes that redis-py gives, by the protocol that it chose."""
    if isinstance(reply, dict):
        ((chunks,),) = reply.values()
        return list(chunks)
    return list(reply[0][1])


class Committing:
    """Contenders that commit small batches as a job does: a row, its batch, its event."""

    def __init__(self, server: BenchServer, folder: Path, count: int) -> None:
        settings = Settings.model_validate(
            {
                "namespace": "jobs",
                "data_dir": folder,
                "redis": {"url": server.url},
                "producer": {"max_backlog": None},
                "collections": {"tracks": {"dimension": 128}},
            }
        )
        self._catalog = Catalog.open(settings.catalog_url)
        self._producer = Producer(settings, catalog=self._catalog)
        self._rows = np.random.default_rng(5).normal(size=(count, 1, 128)).astype(np.float32)

    def one_by_one(self) -> Contender:
        def work(_: None) -> None:
            for number, row in enumerate(self._rows):
                with self._producer.batch("tracks") as batch:
                    batch.upsert([f"id{number}"], row)

        return prepared(lambda: None, work)

    def together(self) -> Contender:
        def work(_: None) -> None:
            with self._producer.batches() as batches:
                for number, row in enumerate(self._rows):
                    with batches.batch("tracks") as batch:
                        batch.upsert([f"id{number}"], row)

        return prepared(lambda: None, work)

    def close(self) -> None:
        self._producer.close()
        self._catalog.close()


@contextmanager
def faststream(url: str) -> Iterator[Companion | None]:
    """The peer, if it is installed."""
    try:
        with peer("faststream_events", url) as companion:
            yield companion
    except PeerMissingError:
        yield None


def against(name: str, rounds: Rounds, other: str, target: Target) -> Figure:
    """Our speed ÷ the other's; without a value where the other did not take part."""
    if other not in rounds.seconds:
        return Figure(name=f"{name} ÷ {other}", value=None, target=target, note=MISSING)
    return Figure(name=f"{name} ÷ {other}", value=rounds.speed(name, other), target=target)


MISSING = str(PeerMissingError())


def sending(asked: Asked, server: BenchServer, companion: Companion | None) -> Findings:
    """One event at a time, then many at once."""
    count = 500 if asked.quick else 4_000
    many = 2_000 if asked.quick else 40_000
    one, lots = Sending(server, count), Sending(server, many)
    contenders = {"emit": one.emit(), "bare xadd": one.xadd()}
    if companion is not None:
        contenders["FastStream publish"] = lambda: companion.seconds(do="publish", count=count)
    single = interleaved(contenders, rounds=asked.rounds, say=asked.say)
    piped = interleaved(
        {"emit_many": lots.emit_many(), "bare pipeline": lots.pipeline()},
        rounds=asked.rounds,
        say=asked.say,
    )
    return Findings(
        figures=(
            against("emit", single, "bare xadd", at_least(0.8)),
            against("emit_many", piped, "bare pipeline", at_least(0.8)),
            against("emit", single, "FastStream publish", at_least(1)),
        ),
        measured=(
            *(single.rates(name, count, "events/s") for name in single.seconds),
            *(piped.rates(name, many, "events/s") for name in piped.seconds),
        ),
    )


def reading(asked: Asked, server: BenchServer, companion: Companion | None) -> Findings:
    """As a member of a group."""
    count = 2_000 if asked.quick else 20_000
    few = count // 5  # FastStream takes its time
    many, less = Reading(server, count), Reading(server, few)
    contenders = {"read": many.ours(), "bare read": many.bare()}
    rounds = interleaved(contenders, rounds=asked.rounds, say=asked.say)
    beside = {"read": less.ours()}
    if companion is not None:
        beside["FastStream consume"] = lambda: companion.seconds(do="consume", count=few)
    peers = interleaved(beside, rounds=asked.rounds, say=asked.say)
    return Findings(
        figures=(
            against("read", rounds, "bare read", at_least(0.6)),
            against("read", peers, "FastStream consume", at_least(10)),
        ),
        measured=(
            *(rounds.rates(name, count, "events/s") for name in rounds.seconds),
            *(peers.rates(name, few, "events/s") for name in peers.seconds if name != "read"),
        ),
    )


def committing(asked: Asked, server: BenchServer) -> Findings:
    """A job's small batches, commit and event together."""
    count = 50 if asked.quick else 500
    with tempfile.TemporaryDirectory(prefix="ir-") as folder:
        jobs = Committing(server, Path(folder), count)
        contenders = {"one by one": jobs.one_by_one(), "in batches()": jobs.together()}
        rounds = interleaved(contenders, rounds=asked.rounds, say=asked.say)
        jobs.close()
    return Findings(
        figures=(
            Figure(
                name="small batches in batches() ÷ one by one",
                value=rounds.speed("in batches()", "one by one"),
            ),
        ),
        measured=tuple(rounds.rates(name, count, "batches/s") for name in rounds.seconds),
    )


def measure(asked: Asked) -> Findings:
    with bench_server() as server, faststream(server.url) as companion:
        found = joined(
            [
                sending(asked, server, companion),
                reading(asked, server, companion),
                committing(asked, server),
            ]
        )
        bars = tuple((each.name, each.median) for each in found.measured if each.unit == "events/s")
        plot = Bars(name="events", title="Events a second", unit="events/s", bars=bars)
        return joined([found, Findings(figures=(), plots=(plot,), servers=server.versions)])


PROGRAM = Program(name="events", question=__doc__, caveats=CAVEATS, measure=measure)

if __name__ == "__main__":
    sys.exit(main(PROGRAM))
