"""docker-compose.yml brings one batch to both readers, and stops when it is told to.

Every service is started by its own command, with its own environment, in the order that the file
asks for, and each health check is the file's own command (`tests.deploy.compose`).
"""

import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np
import pytest
from redis.exceptions import NoPermissionError

from deploy import make_passwords
from indexrelay.producers import Producer
from indexrelay.schemas.settings import Settings
from indexrelay.schemas.settings_file import load_settings
from indexrelay.streams import Connection, Keys, current_release
from tests.deploy.compose import LOOPBACK, ROOT, Service, free_port, services
from tests.fixtures.servers import program_or_skip

START_SECONDS = 60.0
READERS = ("reader_a", "reader_b")


@dataclass
class Installation:
    """The services of the file, started here."""

    folder: Path
    variables: dict[str, str]
    running: dict[str, "subprocess.Popen[bytes]"] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.services = {service.name: service for service in services(self.variables, self.folder)}

    def start(self) -> None:
        """Start each service after those that it waits for."""
        while waiting := [name for name in self.services if name not in self.running]:
            name = next(
                name for name in waiting if set(self.services[name].after) <= set(self.running)
            )
            self._start(self.services[name])

    def _start(self, service: Service) -> None:
        process = self.running[service.name] = service.start(self.folder)
        if service.health is None:
            assert process.wait(START_SECONDS) == 0, self.said(service.name)
            return
        self.wait(
            lambda: service.is_healthy(self.folder),
            alive=service.name,
            what=f"{service.name} to be healthy",
        )

    def wait(self, condition: Callable[[], bool], *, alive: str, what: str) -> None:
        """Wait until ``condition`` holds; the service ``alive`` must not end meanwhile."""
        deadline = time.monotonic() + START_SECONDS
        while not condition():
            try:
                self.running[alive].wait(0.05)
            except subprocess.TimeoutExpired:
                assert time.monotonic() < deadline, f"waited for {what}\n{self.said(alive)}"
            else:
                pytest.fail(f"waited for {what}, and {alive} ended\n{self.said(alive)}")

    def execute(self, name: str, command: list[str]) -> "subprocess.CompletedProcess[str]":
        """Run a command where the service runs, as ``docker compose exec`` or ``run`` does."""
        others = {each.name: each for each in services(self.variables, self.folder, profile=name)}
        return {**self.services, **others}[name].execute(command, self.folder)

    def stop(self, name: str) -> tuple[int, float]:
        """SIGTERM, as ``docker stop`` says it; the exit code, and the seconds it took."""
        started = time.monotonic()
        self.running[name].terminate()
        code = self.running[name].wait(self.services[name].grace_seconds)
        return code, time.monotonic() - started

    def kill(self) -> None:
        """Whatever still runs, at the end of a test that failed."""
        for process in self.running.values():
            if process.poll() is None:
                process.kill()
                process.wait()

    def said(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(errors="replace")[-4000:]

    def reader(self, name: str) -> httpx.Client:
        port = self.variables[f"{name.upper()}_PORT"]
        return httpx.Client(base_url=f"http://{LOOPBACK}:{port}", timeout=10)

    def job_settings(self) -> Settings:
        """What a job on this host is set to: the rebuilder's catalog, the producer's password."""
        environment = self.services["rebuilder"].environment
        password, port = self.variables["PRODUCER_PASSWORD"], self.variables["REDIS_PORT"]
        url = f"redis://producer:{password}@{LOOPBACK}:{port}"
        return load_settings(environ={**environment, "INDEXRELAY_REDIS__URL": url})


@pytest.fixture
def installation() -> Iterator[Installation]:
    program_or_skip("redis")
    variables = {name: f"{name.lower()}-0123456789abcdef" for name in make_passwords.variables()}
    variables |= {name: free_port() for name in ("REDIS_PORT", "READER_A_PORT", "READER_B_PORT")}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="compose-")))
        installation = Installation(folder, variables)
        stack.callback(installation.kill)
        yield installation


def test_a_batch_of_the_producer_is_served_by_both_readers(installation: Installation) -> None:
    installation.start()
    for name in READERS:
        with installation.reader(name) as reader:
            assert reader.get("/health").status_code == 200
            assert reader.get("/ready").status_code == 503, "there is nothing to serve yet"

    ids = [f"track-{i}" for i in range(50)]
    vectors = np.random.default_rng(7).normal(size=(50, 64)).astype(np.float32)
    settings = installation.job_settings()
    with Producer.open(settings) as producer:
        with producer.batch("tracks") as batch:
            batch.upsert(ids, vectors, texts=[f"song number {i}" for i in range(50)])
        served = producer.wait_served(batch.commit, timeout_seconds=60, readers=READERS)
    assert set(served.readers) == set(READERS)

    answers = []
    for name in READERS:
        with installation.reader(name) as reader:
            assert reader.get("/ready").status_code == 200
            hits = reader.post(
                "/v1/components/similar/search", json={"vector": vectors[7].tolist(), "k": 3}
            ).raise_for_status()
            found = reader.post(
                "/v1/components/words/search", json={"text": "number 7", "k": 1}
            ).raise_for_status()
            answers.append((hits.json(), found.json()))
    assert answers[0] == answers[1]
    assert "track-7" in str(answers[0][0])
    assert "track-7" in str(answers[0][1])

    # The job's own user cannot look at what it does not need.
    assert settings.redis_url is not None
    with Connection.open(settings.redis_url) as connection, pytest.raises(NoPermissionError):
        current_release(connection, Keys(settings.namespace))

    # What a person does, in the rebuilder's container and in the console's.
    for name in ("rebuilder", "console"):
        for command in (
            ["status"],
            ["rebuild", "similar", "--wait", "--timeout", "60"],
            ["hold", "similar"],
            ["lift", "similar"],
            ["reconcile"],
        ):
            done = installation.execute(name, ["indexrelay", *command])
            assert done.returncode == 0, (name, command, done.stdout, done.stderr)

    for name in ("rebuilder", *READERS):
        assert "permission" not in installation.said(name).lower()

    # In the order in which compose stops them: who waits for others goes first.
    for name in ("reader_a", "reader_b", "rebuilder", "redis"):
        code, seconds = installation.stop(name)
        assert code == 0, installation.said(name)
        assert seconds < installation.services[name].grace_seconds / 2


def test_the_containers_settings_are_right(installation: Installation) -> None:
    check = installation.execute("reader_a", ["indexrelay", "check"])
    assert "✓ the settings are right" in check.stdout, check.stderr
    assert "1 needs a person" in check.stdout  # Redis, which does not run
    environment = installation.services["reader_a"].environment
    assert environment["INDEXRELAY_CONFIG"] == str(ROOT / "deploy" / "indexrelay.toml")
