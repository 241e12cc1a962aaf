"""Several workers of one reader, as processes: they share an address and die one by one."""

import http.client
import json
import os
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from indexrelay.producers.events import open_connection
from indexrelay.schemas.messages import ReaderState
from indexrelay.schemas.settings_file import load_settings
from indexrelay.service.server import address_of, listening
from indexrelay.streams import Connection, EmbeddedServer, Keys, Presence
from tests.console.conftest import build, commit
from tests.fixtures.warm_process import WarmProcess
from tests.streams.polling import eventually

pytestmark = [pytest.mark.server, pytest.mark.timeout(120)]

CONFIG = """
namespace = "test"
[http]
writes = true
[live]
keys = ["{key}"]
[collections.tracks]
dimension = 3
live = true
[components.similar]
kind = "vector_index"
from = "tracks"
index = "Flat"
"""
SEARCH = "/v1/components/similar/search"
THREADS = 4


@dataclass(frozen=True)
class Service:
    """What was started."""

    parent: WarmProcess
    url: str
    redis: Connection
    log: Path

    @contextmanager
    def client(self) -> Iterator[httpx.Client]:
        with httpx.Client(base_url=self.url, trust_env=False, timeout=30) as client:
            yield client

    @contextmanager
    def clients(self) -> Iterator[tuple[httpx.Client, httpx.Client]]:
        """A client of each of the two workers: a connection stays with whoever took it."""
        with self.client() as one, self.client() as other:
            taken_by = one.get("/v1/state").json()["pid"]
            os.kill(taken_by, signal.SIGSTOP)  # so that the other takes the next
            try:
                assert other.get("/v1/state").json()["pid"] != taken_by
            finally:
                os.kill(taken_by, signal.SIGCONT)
            yield one, other

    def states(self) -> list[ReaderState]:
        present = Presence(self.redis, Keys("test"), "reader").all().values()
        return [ReaderState.model_validate_json(each) for each in present]

    def logged(self, event: str) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in self.log.read_text().splitlines() if line[:1] == "{"]
        return [line for line in lines if line["event"] == event]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("workers")
    config, log, temporary = folder / "indexrelay.toml", folder / "log", folder / "tmp"
    config.write_text(CONFIG.format(key="k" * 40))
    temporary.mkdir()
    with listening("127.0.0.1", 0, None) as free:
        url = address_of(free)
    with (
        EmbeddedServer(folder / "indexrelay-data"),
        open_connection(load_settings(config, environ={})) as redis,
        log.open("wb") as said,
    ):
        commit(config, "first", 20)
        build(config)
        arguments = ["--id", "web", "--port", url.rpartition(":")[2], "--workers", "2"]
        parent = WarmProcess(
            ["indexrelay.console.main", "reader", *arguments, "--config", str(config)],
            log=said,
            env={**os.environ, "TMPDIR": str(temporary)},
        )
        started = Service(parent, url, redis, log)
        try:
            eventually(lambda: started.logged("workers.ready"), seconds=60)
            yield started
        finally:
            if parent.poll() is None:
                parent.terminate()
                parent.wait(30)
            parent.close()


def test_each_worker_is_present_by_itself_under_one_id_and_one_address(service: Service) -> None:
    with service.clients() as (one, other):
        asked = {client.get("/v1/state").json()["pid"] for client in (one, other)}
        assert all(client.get("/ready").json() == {"ready": True} for client in (one, other))
    eventually(lambda: len([state for state in service.states() if state.ready]) == 2)
    assert {state.pid for state in service.states()} == asked
    assert {(state.reader, state.address) for state in service.states()} == {("web", service.url)}


def test_connections_that_are_opened_one_by_one_are_spread_over_the_workers(
    service: Service,
) -> None:
    with ExitStack() as stack:
        clients = [stack.enter_context(service.client()) for _ in range(12)]
        taken = Counter(client.get("/v1/state").json()["pid"] for client in clients)
    assert len(taken) == 2
    assert min(taken.values()) >= 3, taken


def test_what_one_worker_wrote_the_other_answers_with_by_its_session(service: Service) -> None:
    with service.clients() as (one, other):
        for number in range(10):
            entry = {"id": f"new-{number}", "vector": [number, 1, 1]}
            wrote = one.put("/v1/collections/tracks/entries", json={"entries": [entry]})
            session = {"Indexrelay-Session": wrote.json()["session"]}
            found = other.post(SEARCH, json={"id": entry["id"], "k": 1}, headers=session)
            assert found.status_code == 200, found.text
            assert found.json()["generations"]["tracks"] >= wrote.json()["generation"]


def test_the_page_of_metrics_of_either_worker_counts_what_both_answered(service: Service) -> None:
    with service.clients() as (one, other):
        before = answered(other, one)
        for client, times in ((one, 3), (other, 4)):
            for _ in range(times):
                assert client.post(SEARCH, json={"vector": [1, 0, 0]}).status_code == 200
        assert answered(one, other) == answered(other, one) == before + 7


def test_settings_that_are_wrong_when_they_are_read_again_leave_the_workers_as_they_are(
    service: Service,
) -> None:
    config = service.log.with_name("indexrelay.toml")
    right, workers = config.read_text(), {state.pid for state in service.states()}
    try:
        config.write_text("[rebuilder]\nworkers = 0\n")
        service.parent.send_signal(signal.SIGHUP)
        eventually(lambda: service.logged("settings.refused"), seconds=60)
    finally:
        config.write_text(right)
    assert "line 2: rebuilder.workers = 0" in service.logged("settings.refused")[0]["error"]
    assert not service.logged("worker.restarting")
    assert {state.pid for state in service.states()} == workers


def test_a_killed_worker_takes_only_requests_in_flight_along_and_is_replaced(
    service: Service,
) -> None:
    with service.clients() as (one, other):
        killed = one.get("/v1/state").json()["pid"]
        counted = answered(one, other)
        outcomes, over = Counter[str](), threading.Event()
        threads = [
            threading.Thread(target=ask, args=(service.url, outcomes, over)) for _ in range(THREADS)
        ]
        for thread in threads:
            thread.start()
        eventually(lambda: outcomes["answered"] >= 50)
        os.kill(killed, signal.SIGKILL)
        at_kill = outcomes["answered"]
        eventually(lambda: outcomes["answered"] >= at_kill + 50)
        over.set()
        for thread in threads:
            thread.join()
        assert outcomes["lost"] <= THREADS
        eventually(lambda: service.logged("process.ended"))
        [ended] = service.logged("process.ended")
        assert ended["exit_code"] == -signal.SIGKILL
        assert ended["process"].startswith("web, worker ")
        eventually(lambda: len({s.pid for s in service.states() if s.ready} - {killed}) == 2)
        eventually(lambda: metrics(other)["indexrelay_worker_restarts_total"] == 1)
        assert counted < answered(other) <= counted + outcomes.total()
    folder = service.log.parent / "tmp"
    assert list(folder.iterdir()) != []
    service.parent.terminate()
    assert service.parent.wait(30) == os.EX_OK
    assert list(folder.iterdir()) == []
    assert {state.pid for state in service.states()} <= {killed}  # until its time is over
    with pytest.raises(httpx.ConnectError), service.client() as client:
        client.get("/health")


def ask(url: str, outcomes: "Counter[str]", over: threading.Event) -> None:
    """Search until it is over, each time by another connection."""
    body = json.dumps({"vector": [1, 0, 0]})
    while not over.is_set():
        connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=30)
        try:
            connection.request("POST", SEARCH, body, {"Content-Type": "application/json"})
            status = connection.getresponse().status
        except (OSError, http.client.HTTPException):
            outcomes["lost"] += 1
        else:
            outcomes["answered" if status == 200 else str(status)] += 1
        finally:
            connection.close()


def metrics(client: httpx.Client) -> dict[str, float]:
    """The samples, by name; of those with labels the sum."""
    found = Counter[str]()
    for family in text_string_to_metric_families(client.get("/metrics").text):
        for sample in family.samples:
            found[sample.name] += sample.value  # type: ignore[assignment] # they are numbers
    return dict(found)


def answered(*clients: httpx.Client) -> float:
    """As the last one says, once those before it have written down what they counted."""
    name = (
        "indexrelay_index_search_latency_seconds_count"  # it is there once something was answered
    )
    return [metrics(client).get(name, 0.0) for client in clients][-1]
