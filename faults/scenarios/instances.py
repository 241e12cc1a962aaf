"""Instances of a reader service that take writes over HTTP, while what they need fails.

F27: SIGKILL at every step of a write, with three writers at a time. When the instance is back, what
was acknowledged is there; what was not is there whole or not at all. The same request again,
through the other instance, is one write.

F28: by turns Redis comes back empty, or stalls; the catalog is locked; one instance is cut off from
Redis, or from a catalog in PostgreSQL. Two clients write and search through both instances
meanwhile. An instance that is not cut off answers, and answers to sessions have what their client
has written or seen (I9) and are not older than one before (I10), whichever instance gives them.
What the fault kept from being written is written when it is over.
"""

import hashlib
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
import sqlalchemy as sa

from faults.bench import Bench
from faults.history import Answered, Told, content_digest
from faults.links import Link
from faults.recorder import COLLECTION
from faults.rows import Row
from faults.scenarios import live
from indexrelay.schemas.failpoints import FAILPOINTS
from indexrelay.schemas.session import SessionToken
from indexrelay.service.client import (
    Client,
    ReaderBusyError,
    ReaderError,
    ReaderUnreachableError,
    WriteResult,
)
from indexrelay.storage.urls import driver_url
from tests.fixtures.postgresql import MISSING, postgresql_programs, running_postgresql

STEPS = tuple(point for point in FAILPOINTS if point.startswith("producer."))
"""What an instance passes from a request to the last message about it."""
NORTH, SOUTH = "reader-north", "reader-south"
"""South is the one that is cut off."""
_TABLES = f'persistence = "periodic"\nsave_interval_seconds = 2\n{live.LIVE}[http]\nwrites = true\n'
_COMPONENTS: Mapping[str, Mapping[str, Any]] = {"similar": live.SIMILAR}
_WRITERS = 3
_AGAIN_SECONDS = 0.2
_DEADLINE_SECONDS = 10.0
_BACK_SECONDS = 6.0
"""A new interpreter that imports all of a service, and a busy machine."""
_SETTLED_SECONDS = 120.0
"""Nobody waits for that: only at the end is everything released."""
_HEALED_SECONDS = 15.0
"""A client of the catalog finds out in ten that it was cut off; and the longest pause of others."""


@dataclass(frozen=True)
class _Write:
    """One request that may be repeated: two entries under a key."""

    key: str
    ids: tuple[str, ...]

    @classmethod
    def drawn(cls, bench: Bench) -> "_Write":
        """A new one, of which the recorder knows."""
        name, ids = bench.new_batch()
        write = cls(key=name, ids=ids[:2])
        # An instance names the batch after the key, of clients without a token under no name.
        batch_id = f"http-{hashlib.sha256(f'{chr(10)}{name}'.encode()).hexdigest()}"
        bench.recorder.committed[batch_id] = write.ids
        return write

    def send(self, client: Client) -> WriteResult | None:
        """What it came to; ``None``: that is not known."""
        vectors = np.ones((len(self.ids), 2), dtype=np.float32)
        try:
            return client.upsert(COLLECTION, self.ids, vectors, key=self.key)
        except (ReaderUnreachableError, ReaderBusyError):
            return None


class _Visitor:
    """A client of all instances with one session, which records what it is told and answered."""

    def __init__(self, bench: Bench, name: str) -> None:
        self._bench = bench
        self._name = name
        self._clients = {
            instance: Client(_address(bench, instance), deadline_seconds=_DEADLINE_SECONDS)
            for instance in (NORTH, SOUTH)
        }
        self.session = SessionToken()

    def close(self) -> None:
        for client in self._clients.values():
            client.close()

    def write(self, instance: str, write: _Write) -> WriteResult | None:
        """Write through an instance; ``None``: nobody knows whether it was."""
        result = write.send(self._clients[instance])
        if result is not None:
            self.learn(SessionToken.from_text(result.session))
        return result

    def learn(self, session: SessionToken) -> None:
        """It has written that, or another client has handed it over."""
        self.session = self.session.merge(session)
        newest = max(life.generation for life in self.session)
        self._bench.recorder.clients.append(Told(client=self._name, generation=newest))

    def ask(self, instance: str, level: Any, *, committed: int) -> bool:
        """Ask an instance for all entries; whether it answers."""
        client = self._clients[instance]
        client.merge_session(self.session)
        try:
            page = client.scroll(
                "similar", limit=1000, **({} if level == "session" else {"consistency": level})
            )
        except (ReaderBusyError, ReaderUnreachableError):
            return False
        assert page.after is None, "more entries than fit on a page"
        self._bench.recorder.clients.append(
            Answered(
                client=self._name,
                reader=instance,
                level=level,
                generation=page.generations[COLLECTION],
                content=content_digest([each.id for each in page.entries]),
                committed=committed,
            )
        )
        self.session = client.session
        return True


def killed(program: Path, row: Row, runs: int) -> None:
    """Kill an instance at one step of a write after the other."""
    with Bench(program, components=_COMPONENTS, tables=_TABLES) as bench, ExitStack() as closing:
        _start(bench)
        visitor = _Visitor(bench, "visitor")
        closing.callback(visitor.close)
        for number, step in zip(range(runs), cycle(STEPS), strict=False):
            with row.run(f"{step}, run {number}"):
                _kill_at(bench, row, step, visitor)
        bench.settle(_SETTLED_SECONDS)
        row.broke(_violations(bench))


def _kill_at(bench: Bench, row: Row, step: str, visitor: _Visitor) -> None:
    token = bench.token(step)
    token.touch()
    writes = [_Write.drawn(bench) for _ in range(_WRITERS)]
    with (
        Client(_address(bench, NORTH), deadline_seconds=_DEADLINE_SECONDS) as north,
        ThreadPoolExecutor(_WRITERS) as threads,
    ):
        answers = list(threads.map(lambda write: write.send(north), writes))
    victim = bench.processes[NORTH]
    assert victim.wait() == -signal.SIGKILL
    assert not token.exists()
    began = time.monotonic()
    victim.start()
    _await_answers(bench, NORTH)
    back = time.monotonic() - began
    there = _in_catalog(bench)
    for write, answer in zip(writes, answers, strict=True):
        found = there.intersection(write.ids)
        assert found in (set(), {*write.ids}), f"a write is there in part: {found}"
        assert found or answer is None, f"{write.ids} was acknowledged, and is lost"
        again = visitor.write(SOUTH, write)
        assert again is not None, "the other instance does not answer"
        assert again.repeated is bool(found), "a repeat was another write"
        assert answer is None or answer.generation == again.generation
    committed = bench.catalog.collections.get(COLLECTION).generation
    for instance in (NORTH, SOUTH):
        for level in ("session", "strong"):
            assert visitor.ask(instance, level, committed=committed), f"{instance}: {level}"
    row.recovered(back, within=_BACK_SECONDS)


def limited(program: Path, row: Row, runs: int) -> None:
    """One fault after the other, on an installation with the catalog that it is about."""
    turns = [*islice(cycle(FAULTS), runs)]
    if on_sqlite := [each for each in turns if each in _SQLITE_FAULTS]:
        _limit(program, row, on_sqlite, None)
    on_postgresql = [each for each in turns if each in _POSTGRESQL_FAULTS]
    programs = postgresql_programs()
    if on_postgresql and programs is None:
        with row.run("PostgreSQL"):
            raise FileNotFoundError(MISSING)
    if on_postgresql and programs is not None:
        with running_postgresql(programs) as url:
            _limit(program, row, on_postgresql, url)


def _limit(program: Path, row: Row, turns: Sequence[str], url: sa.URL | None) -> None:
    tables = _TABLES
    with ExitStack() as closing:
        catalog_link: Link | None = None
        if url is not None:
            catalog_link = Link(Path(str(url.query["host"])) / ".s.PGSQL.5432")
            closing.callback(catalog_link.close)
            tables += f'[catalog]\nurl = "{url.render_as_string()}"\n'
        bench = closing.enter_context(
            Bench(program, components=_COMPONENTS, tables=tables, linked=("instance",))
        )
        if catalog_link is not None:
            bench.links["catalog"] = catalog_link
        _start(bench, url)
        visitors = [_Visitor(bench, "first"), _Visitor(bench, "second")]
        for visitor in visitors:
            closing.callback(visitor.close)
        for number, what in enumerate(turns):
            with row.run(f"{what}, run {number}"):
                _limit_once(bench, row, FAULTS[what], visitors)
        bench.settle(_SETTLED_SECONDS)
        row.broke(_violations(bench))


def _limit_once(bench: Bench, row: Row, fault: "_Fault", visitors: list[_Visitor]) -> None:
    late: list[Future[WriteResult]] = []
    with ThreadPoolExecutor(len(visitors)) as threads:
        with fault.lasts(bench):
            for instance, writer, other in zip(
                (NORTH, SOUTH), visitors, visitors[::-1], strict=True
            ):
                write = _Write.drawn(bench)
                if instance in fault.writing:
                    assert writer.write(instance, write), f"{instance} does not write"
                else:
                    sending = Client(_address(bench, instance), deadline_seconds=60)
                    late.append(threads.submit(_sent_until_known, write, sending))
                _ask_all(bench, fault, writer, other)
        ended = time.monotonic()
        for each in late:
            visitors[0].learn(SessionToken.from_text(each.result().session))
    _await_answers(bench, SOUTH, level="strong")
    healed = time.monotonic() - ended
    _ask_all(bench, _NOTHING, *visitors)
    row.recovered(healed, within=_HEALED_SECONDS)


def _ask_all(bench: Bench, fault: "_Fault", writer: _Visitor, other: _Visitor) -> None:
    """Both clients ask both instances; the other one with what the writer knows."""
    committed = bench.catalog.collections.get(COLLECTION).generation
    if writer.session:
        other.learn(writer.session)
    for client in (writer, other):
        for level in ("session", "eventual", "strong"):
            for instance in (SOUTH, NORTH):
                answered = client.ask(instance, level, committed=committed)
                assert answered or instance in fault.refusing, f"{instance} refused: {level}"


def _sent_until_known(write: _Write, client: Client) -> WriteResult:
    with client:
        while True:
            result = write.send(client)
            if result is not None:
                return result
            time.sleep(_AGAIN_SECONDS)


def _start(bench: Bench, catalog: sa.URL | None = None) -> None:
    """Both instances, of which only the south one reaches anything over links."""
    bench.start("instance", NORTH, config=bench.config)
    links = bench.links
    if "instance" not in links:
        bench.start("instance", SOUTH, config=bench.config)
    elif catalog is None:
        bench.start("instance", SOUTH)
    else:
        file = bench.folder / "instance.toml"
        port = int(links["catalog"].url.rpartition(":")[2])
        linked = sa.URL.create("postgresql", "indexrelay", None, "127.0.0.1", port, "postgres")
        before, after = catalog.render_as_string(), linked.render_as_string()
        file.write_text(file.read_text(encoding="utf-8").replace(before, after), encoding="utf-8")
        bench.start("instance", SOUTH, config=file)
    bench.bring_up(readers=0, seconds=_SETTLED_SECONDS)
    for instance in (NORTH, SOUTH):
        _await_answers(bench, instance)


def _address(bench: Bench, instance: str) -> str:
    return f"unix:{bench.socket(instance)}"


def _await_answers(bench: Bench, instance: str, *, level: Any = "eventual") -> None:
    with Client(_address(bench, instance), deadline_seconds=_DEADLINE_SECONDS) as client:

        def answers() -> bool:
            try:
                client.count("similar", consistency=level)
            except ReaderError:
                return False
            return True

        bench.wait(answers)


def _in_catalog(bench: Bench) -> set[str]:
    with bench.catalog.entries.snapshot(COLLECTION) as snapshot:
        return {entry_id for chunk in snapshot.chunks() for entry_id in chunk.ids}


def _violations(bench: Bench) -> list[str]:
    """The files of a real index do not say what it holds; the answers of instances do."""
    return [each for each in bench.violations() if "similar" not in each]


@contextmanager
def _emptied(bench: Bench) -> Iterator[None]:
    bench.recorder.watch()
    bench.connection.commands.flushall()
    yield


@contextmanager
def _stalled(bench: Bench) -> Iterator[None]:
    bench.server.stall()
    try:
        yield
    finally:
        bench.server.go_on()


@contextmanager
def _cut_off(bench: Bench, link: str) -> Iterator[None]:
    bench.links[link].become("cut")
    try:
        yield
    finally:
        bench.links[link].become("open")


@contextmanager
def _locked(bench: Bench, *statements: str) -> Iterator[None]:
    """Somebody else's transaction, which does not end."""
    url = driver_url(bench.settings.catalog_url)
    engine = sa.create_engine(url, isolation_level="AUTOCOMMIT")
    try:
        with engine.connect() as connection:
            for statement in statements:
                connection.exec_driver_sql(statement)
            try:
                yield
            finally:
                connection.exec_driver_sql("ROLLBACK")
    finally:
        engine.dispose()


@dataclass(frozen=True, kw_only=True)
class _Fault:
    """What fails, and what need not go on meanwhile."""

    lasts: Callable[[Bench], AbstractContextManager[None]]
    writing: Sequence[str] = (NORTH, SOUTH)
    """The instances that take writes; what others were given is written when it is over."""
    refusing: Sequence[str] = ()
    """The instances that may refuse to be as fresh as asked."""


_SQLITE_FAULTS: Mapping[str, _Fault] = {
    "SQLite locked": _Fault(lasts=lambda bench: _locked(bench, "BEGIN IMMEDIATE"), writing=()),
    "Redis emptied": _Fault(lasts=_emptied),
    "Redis stalled": _Fault(lasts=_stalled),
    "cut off from Redis": _Fault(lasts=lambda bench: _cut_off(bench, "instance")),
}
_POSTGRESQL_FAULTS: Mapping[str, _Fault] = {
    "PostgreSQL locked": _Fault(
        lasts=lambda bench: _locked(
            bench, "BEGIN", "SELECT generation FROM indexrelay_collections FOR UPDATE"
        ),
        writing=(),
    ),
    "cut off from PostgreSQL": _Fault(
        lasts=lambda bench: _cut_off(bench, "catalog"), writing=(NORTH,), refusing=(SOUTH,)
    ),
}
FAULTS = {**_SQLITE_FAULTS, **_POSTGRESQL_FAULTS}
_NOTHING = _Fault(lasts=lambda _: nullcontext())
