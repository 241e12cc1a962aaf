"""Section D, as far as it is about processes: 16, 17, 18, 20 and 21."""
# ruff: noqa: INP001 - a script: nothing is installed from this folder

import json
import os
import subprocess
import sys
from pathlib import Path

from indexrelay.health.judge import judge
from indexrelay.health.status import PLACES
from indexrelay.health.survey import Survey
from indexrelay.producers import Producer
from indexrelay.producers.events import open_connection
from indexrelay.reloaders import Reloader
from indexrelay.schemas.clock import SystemClock
from indexrelay.schemas.settings import Settings
from indexrelay.schemas.settings_file import load_settings
from indexrelay.storage.artifacts import ArtifactStore
from indexrelay.storage.catalog import Catalog
from scripts.reports.report import Attempt, reports
from tests.fixtures.refusing import RefusingServer

CONFIG = """
[collections.tracks]
dimension = 2

[components.cache]
kind = "embedding_cache"
from = "tracks"
"""
FUNCTION = """
[components.page]
kind = "json_cache"
from = "tracks"
function = "mine:page"
"""
LOUD = "print('LOUD')\ndef page(inputs):\n    print('LOUD')\n    return [1]\n"
OWN_KIND = CONFIG.replace("embedding_cache", "mine:Mine")
MINE = """
from indexrelay.components.embedding_cache import EmbeddingCache
class Mine(EmbeddingCache):
    pass
"""
BUILD_AND_READ = """
from contextlib import closing
from indexrelay.health.judge import judge
from indexrelay.health.survey import Survey
from indexrelay.health.status import PLACES
from indexrelay.producers import Producer
from indexrelay.rebuilder import InlineRunner, Rebuilder
from indexrelay.reloaders import Reloader
from indexrelay.schemas.clock import SystemClock
from indexrelay.schemas.settings_file import load_settings
from indexrelay.storage.artifacts import ArtifactStore
from indexrelay.storage.catalog import Catalog
from indexrelay.streams import Connection, EmbeddedServer

settings = load_settings()
store, clock = ArtifactStore(settings.artifacts_dir), SystemClock()
with (
    EmbeddedServer(settings.data_dir) as server,
    closing(Catalog.open(settings.catalog_url)) as catalog,
    Connection.open(server.start()) as connection,
    Producer(settings, catalog=catalog, connection=connection) as producer,
):
    with producer.batch("tracks") as batch:
        batch.upsert(["a"], [[1, 2]])
    runner = InlineRunner(catalog=catalog, store=store, clock=clock)
    rebuilder = Rebuilder(
        settings, catalog=catalog, store=store, connection=connection, runner=runner
    )
    rebuilder.step()
    rebuilder.stop()
    reader = Reloader(settings)
    reader.step()
    with reader.acquire() as snapshot:
        print("served:", *snapshot["cache"].ids)
    reader.stop()
"""


def installed(folder: Path, config: str, module: str = "") -> Path:
    """Settings, and the module beside them."""
    home = folder / "home"
    home.mkdir()
    (home / "mine.py").write_text(module)
    (home / "indexrelay.toml").write_text(config)
    return home / "indexrelay.toml"


def run(folder: Path, config: Path, *arguments: str, **variables: str) -> str:
    """What a process in another folder says, and how it ends."""
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir(exist_ok=True)
    ended = subprocess.run(
        [sys.executable, *arguments],
        cwd=elsewhere,
        env={**os.environ, "INDEXRELAY_CONFIG": str(config), **variables},
        capture_output=True,
        timeout=50,
        check=False,
    )
    if ended.returncode not in (0, 3):
        raise RuntimeError(ended.stderr.decode(errors="replace")[-300:])
    return ended.stdout.decode(errors="replace")


COMMAND = ("-m", "indexrelay.console.main")


def check(**variables: str) -> Attempt:
    """``indexrelay check`` on a terminal of its own."""
    return lambda folder: run(folder, installed(folder, CONFIG), *COMMAND, "check", **variables)


def loud_build(folder: Path) -> str:
    """What a program reads of ``rebuild --json`` while the build prints."""
    config = installed(folder, CONFIG + FUNCTION, LOUD)
    with (
        Producer.open(load_settings(config, environ={})) as producer,
        producer.batch("tracks") as batch,
    ):
        batch.upsert(["a"], [[1, 2]])
    said = run(folder, config, *COMMAND, "rebuild", "--here", "--json")
    return f"{json.loads(said)['result']['status']}, {said.count('LOUD')} times loud"


def unreadable_socket(folder: Path) -> str:
    """A reader whose embedded server's folder cannot be entered."""
    data = folder / "data"
    data.mkdir()
    (data / "redis").symlink_to("redis")  # a loop: nobody enters it, not even root
    reader = Reloader(Settings.model_validate({"data_dir": data}), reader_id="web")
    reader.step()
    reader.stop()
    return f"it went on at release {reader.state.release}"


def own_kind(folder: Path) -> str:
    """A kind beside the settings, built and read by a process in another folder."""
    return run(folder, installed(folder, OWN_KIND, MINE), "-c", BUILD_AND_READ)


def cluster(refusal: str) -> Attempt:
    """What ``check`` and ``status`` say of a server that answers like this."""

    def attempt(folder: Path) -> str:
        tables = {"data_dir": folder, "collections": {"tracks": {"dimension": 2}}}
        server = RefusingServer(refusal)
        server.start()
        try:
            settings = Settings.model_validate({**tables, "redis": {"url": server.url}})
            with open_connection(settings, warn=False) as connection:
                survey = Survey(
                    settings,
                    catalog=lambda: Catalog.open(settings.catalog_url),
                    store=lambda: ArtifactStore(settings.artifacts_dir),
                    connection=lambda: connection,
                    clock=SystemClock(),
                )
                problems = judge(survey.of_places()).within(PLACES).problems
        finally:
            server.stop()
        return "; ".join(f"{each.what}; {each.advice}" for each in problems)

    return attempt


RIGHT = "the settings are right"
NODE = "Redis cannot be asked: the server is a node of a Redis Cluster"
REPORTS = (
    *reports(
        "D16",
        ("check, in latin-1", f"ok {RIGHT}", check(PYTHONIOENCODING="latin-1")),
        ("check, in ASCII", f"ok {RIGHT}", check(PYTHONIOENCODING="ascii", LC_ALL="C")),
        processes=True,
    ),
    *reports(
        "D17", ("a build that prints under --json", "SUCCESS, 0 times", loud_build), processes=True
    ),
    *reports("D18", ("a socket's folder closed to the reader", "it went on at", unreadable_socket)),
    *reports(
        "D20", ("a kind beside the settings, from elsewhere", "served: a", own_kind), processes=True
    ),
    *reports(
        "D21",
        ("a node that has another slot", NODE, cluster("MOVED 8384 127.0.0.1:7001")),
        ("a node that moves the slot", NODE, cluster("ASK 8384 127.0.0.1:7001")),
        ("a cluster that is down", f"{NODE} that is down", cluster("CLUSTERDOWN no slot served")),
    ),
)
