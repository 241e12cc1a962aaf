"""SIGHUP, as processes: a role goes on with other settings, or with those it had; nothing fails."""

import json
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from indexrelay.producers.events import open_connection
from indexrelay.schemas.messages import ReaderState, RebuilderState
from indexrelay.schemas.settings_file import load_settings
from indexrelay.service.server import address_of, listening
from indexrelay.storage.artifacts import ArtifactStore
from indexrelay.storage.catalog import Catalog
from indexrelay.streams import Connection, EmbeddedServer, Keys, Presence
from tests.console.conftest import build, commit
from tests.fixtures.warm_process import WarmProcess
from tests.streams.polling import eventually

pytestmark = [pytest.mark.server, pytest.mark.timeout(120)]

CONFIG = """
namespace = "test"
[rebuilder]
quiet_seconds = 0.0
presence_ttl_seconds = 1.5
block_seconds = 0.1
[reader]
presence_ttl_seconds = 1.5
block_seconds = 0.1
start_spread_seconds = 0.0
[collections.tracks]
dimension = 3
[components.similar]
kind = "vector_index"
from = "tracks"
index = "Flat"
"""
CACHE = """
[components.cache]
kind = "embedding_cache"
from = "tracks"
"""
BROKEN = "[rebuilder]\nworkers = 0\n[collections.tracks]\ndimension = 3\n"
SEARCH = "/v1/components/similar/search"


@dataclass(frozen=True)
class Role:
    """A role that runs, and the settings that it reads."""

    process: WarmProcess
    config: Path
    log: Path
    redis: Connection
    store: ArtifactStore

    def read_again(self, text: str) -> None:
        """Write other settings, as an editor does, and have them read."""
        new = self.config.with_suffix(".new")
        new.write_text(text)
        new.replace(self.config)
        self.hang_up()

    def hang_up(self) -> None:
        self.process.send_signal(signal.SIGHUP)

    def logged(self, event: str) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in self.log.read_text().splitlines() if line[:1] == "{"]
        return [line for line in lines if line["event"] == event]

    def await_logged(self, event: str, times: int = 1) -> None:
        eventually(lambda: len(self.logged(event)) == times, seconds=60)

    def rebuilder(self, *, other_than: str = "") -> RebuilderState:
        """Once one is present, and is not this instance."""
        found: list[RebuilderState] = []

        def is_present() -> bool:
            present = Presence(self.redis, Keys("test"), "rebuilder").all().values()
            found[:] = [RebuilderState.model_validate_json(each) for each in present]
            return len(found) == 1 and found[0].instance != other_than

        eventually(is_present, seconds=60)
        return found[0]

    def readers(self) -> list[ReaderState]:
        present = Presence(self.redis, Keys("test"), "reader").all().values()
        return [ReaderState.model_validate_json(each) for each in present]

    @property
    def released(self) -> set[str]:
        release = self.store.newest_release()
        return set() if release is None else set(release.components)


@contextmanager
def running(folder: Path, *arguments: str, text: str = CONFIG) -> Iterator[Role]:
    """A role beside a server, until it ends as SIGTERM has it end."""
    config, log = folder / "indexrelay.toml", folder / "log"
    config.write_text(text)
    with (
        EmbeddedServer(folder / "indexrelay-data"),
        open_connection(load_settings(config, environ={})) as redis,
        log.open("wb") as said,
    ):
        commit(config, "first", 20)
        build(config)
        process = WarmProcess(
            ["indexrelay.console.main", *arguments, "--config", str(config)], log=said, cwd=folder
        )
        try:
            store = ArtifactStore.of(load_settings(config, environ={}))
            yield Role(process, config, log, redis, store)
            process.terminate()
            assert process.wait(30) == os.EX_OK, log.read_text()
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
            process.close()


def test_a_rebuilder_goes_on_with_what_it_had_and_then_with_what_is_right(tmp_path: Path) -> None:
    with running(tmp_path, "rebuilder", "--id", "one") as role:
        role.await_logged("rebuilder.started")
        first = role.rebuilder()
        role.read_again(BROKEN)
        eventually(lambda: role.rebuilder().settings_refused, seconds=60)
        assert "line 2: rebuilder.workers = 0" in str(role.rebuilder().settings_refused)
        role.config.unlink()
        role.hang_up()
        role.await_logged("settings.refused", 2)
        assert "there is no such file" in role.logged("settings.refused")[1]["error"]
        role.read_again(CONFIG.replace('namespace = "test"', 'data_dir = "other"'))
        role.await_logged("settings.refused", 3)
        assert "the embedded server cannot move" in role.logged("settings.refused")[2]["error"]
        assert role.rebuilder().instance == first.instance  # it never stopped
        role.read_again(CONFIG + CACHE)
        role.hang_up()
        eventually(lambda: role.released == {"similar", "cache"}, seconds=60)
        role.read_again(CONFIG + CACHE + "priority = 3\n")
        role.await_logged("settings.taken_up", 2)
        role.await_logged("rebuilder.started", 3)
        last = role.rebuilder(other_than=first.instance)
        assert (last.rebuilder, last.settings_refused) == ("one", None)
        taken = [line["changed"] for line in role.logged("settings.taken_up")]
        assert "components.cache.kind" in taken[0]
        assert taken[1] == ["components.cache.priority"]


def test_a_build_that_runs_is_released_before_other_settings_are_taken_up(tmp_path: Path) -> None:
    (tmp_path / "slow_when_asked.py").write_text(
        "import time\nfrom pathlib import Path\n"
        f"FOLDER = Path({str(tmp_path)!r})\n"
        "def document(inputs):\n"
        "    with (FOLDER / 'begun').open('a') as file:\n        file.write('x')\n"
        "    while not (FOLDER / 'go').exists():\n        time.sleep(0.02)\n"
        "    return {'whole': True}\n"
    )
    with running(tmp_path, "rebuilder") as role:
        role.await_logged("rebuilder.started")
        slow = CACHE.replace('"embedding_cache"', '"json_cache"')
        slow += 'function = "slow_when_asked:document"\n'
        role.read_again(CONFIG + slow)
        eventually((tmp_path / "begun").exists, seconds=60)
        role.read_again(CONFIG + slow + CACHE.replace("cache]", "other]"))
        role.await_logged("settings.wait_for_builds")
        role.read_again(BROKEN)
        role.await_logged("settings.refused")
        assert len(role.logged("settings.taken_up")) == 1
        (tmp_path / "go").touch()
        eventually(lambda: role.released == {"similar", "cache", "other"}, seconds=60)
        assert (tmp_path / "begun").read_text() == "x"  # its build was neither ended nor repeated
        assert len(role.logged("settings.taken_up")) == 2


def test_no_search_fails_and_no_connection_ends_while_a_reader_changes_over(
    tmp_path: Path,
) -> None:
    with listening("127.0.0.1", 0, None) as free:
        url = address_of(free)
    arguments = ["reader", "--id", "web", "--port", url.rpartition(":")[2]]
    with running(tmp_path, *arguments) as role:
        eventually(lambda: any(state.ready for state in role.readers()), seconds=60)
        [first] = role.readers()
        done, answers, ports = threading.Event(), list[int](), set[int]()

        def search() -> None:
            with httpx.Client(base_url=url, trust_env=False, timeout=30) as client:
                while not done.is_set():
                    answer = client.post(SEARCH, json={"id": "t1", "k": 3})
                    answers.append(answer.status_code)
                    stream = answer.extensions["network_stream"]
                    ports.add(stream.get_extra_info("client_addr")[1])
                    assert len(answer.json()["hits"]) == 3

        with httpx.Client(base_url=url, trust_env=False, timeout=30) as client:
            asking = threading.Thread(target=search)
            asking.start()
            role.read_again(BROKEN)
            role.await_logged("settings.refused")
            eventually(lambda: not client.get("/health").json()["well"], seconds=60)
            [problem] = client.get("/health").json()["problems"]
            assert problem["code"] == "settings_refused"
            assert "/v1/collections/{collection}/entries" not in paths(client)
            for times, text in enumerate(("http.writes = true\n", "http.writes = false\n"), 1):
                role.read_again(text + CONFIG)
                role.hang_up()
                role.await_logged("settings.taken_up", times)
                written = "put" in paths(client).get("/v1/collections/{collection}/entries", {})
                assert written is (times == 1)
            assert client.get("/health").json()["well"]
            eventually(lambda: len(role.readers()) == 1, seconds=60)
            [last] = role.readers()
            assert (last.pid, last.address) == (first.pid, first.address)
            assert last.instance != first.instance
            done.set()
            asking.join()
            token = f'[http.tokens.shop]\nsha256 = "{"0" * 64}"\n'
            role.read_again(CONFIG + token)
            eventually(lambda: client.get("/v1/state").status_code == 401, seconds=60)
        assert set(answers) == {200}
        assert len(ports) == 1


def paths(client: httpx.Client) -> dict[str, Any]:
    found: dict[str, Any] = client.get("/openapi.json").json()["paths"]
    return found


def test_an_operator_takes_up_another_schedule_and_says_why_it_does_not(tmp_path: Path) -> None:
    with listening("127.0.0.1", 0, None) as free:
        url = address_of(free)
    address = url.removeprefix("http://")
    text = CONFIG + f'[monitoring]\noperator = "{address}"\nlook_seconds = 1\n'
    schedule = '[schedules.weekly]\ncron = "0 2 * * 0"\n'
    with running(tmp_path, "operator", text=text) as role:
        role.await_logged("monitoring.listening")
        role.read_again(BROKEN)
        role.await_logged("settings.refused")
        health = httpx.get(f"{url}/health", trust_env=False).json()
        assert "SettingsRefused" in {each["name"] for each in health["active_alerts"]}
        role.read_again(text + schedule)
        role.hang_up()
        role.await_logged("settings.taken_up")
        role.await_logged("monitoring.listening", 2)
        with closing(Catalog.open(load_settings(role.config, environ={}).catalog_url)) as catalog:
            eventually(lambda: "weekly" in catalog.schedules.all(), seconds=60)
        health = httpx.get(f"{url}/health", trust_env=False).json()
        assert "SettingsRefused" not in {each["name"] for each in health["active_alerts"]}
        assert not role.logged("monitoring.not_listening")


def test_the_admin_page_says_what_it_refuses_and_ends_sessions_whose_key_is_another_one(
    tmp_path: Path,
) -> None:
    with listening("127.0.0.1", 0, None) as free:
        url = address_of(free)
    key = tmp_path / "key"
    key.touch(mode=0o600)
    key.write_text("a" * 64)
    text = CONFIG + '[admin]\ncookie_key_file = "key"\n'
    arguments = ["admin", "--port", url.rpartition(":")[2]]
    with running(tmp_path, *arguments, text=text) as role:
        role.await_logged("admin.listening")
        with httpx.Client(base_url=f"{url}/api/admin/", trust_env=False, timeout=30) as client:

            def refused() -> bool:
                problems = client.get("state").json()["problems"]
                return "settings_refused" in {each["code"] for each in problems}

            role.read_again(BROKEN)
            eventually(refused, seconds=60)
            key.write_text("short")
            role.read_again(text)
            role.await_logged("settings.refused", 2)
            key.write_text("b" * 64)
            role.hang_up()
            role.await_logged("settings.taken_up")
            role.await_logged("admin.listening", 2)
            eventually(lambda: not refused(), seconds=60)
