"""The bench of the readers' tests, and a service over kinds of every sort, for every test here."""

from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest

from indexrelay.reloaders import Reloader
from indexrelay.schemas.settings import ComponentDefinition, HttpSettings
from indexrelay.service.app import create_app
from tests.reloaders.bench import Bench
from tests.reloaders.conftest import bench
from tests.service.app_server import running
from tests.service.search_kinds import MODULE

__all__ = ["bench", "client", "empty", "reader"]

KINDS = {
    "points": f"{MODULE}:Points",
    "lines": f"{MODULE}:Lines",
    "page": f"{MODULE}:Document",
    "songs": f"{MODULE}:Songs",
}
CONTENTS = {
    "points": "0 0\n1 0\n5 5\n",
    "lines": "read a csv file\nsplit a path\n",
    "page": '{"points":[1,2,3]}',
    "songs": "calm 0 0 jazz\ncold 0 1 jazz\nfast 4 0 rock\nloud 4 1 rock\nslow 1 0 jazz\n",
}


@pytest.fixture
def reader(bench: Bench) -> Reloader:
    declared = {name: ComponentDefinition.of(kind, "tracks") for name, kind in KINDS.items()}
    bench.settings = bench.settings.model_copy(update={"components": declared})
    return bench.reader()


@pytest.fixture
def empty(reader: Reloader) -> Iterator[httpx.Client]:
    with running(create_app(reader)) as client:
        yield client


@pytest.fixture
def client(bench: Bench, reader: Reloader, empty: httpx.Client) -> httpx.Client:
    publish_all(bench)
    reader.step()
    return empty


def publish_all(bench: Bench) -> None:
    for name, content in CONTENTS.items():
        bench.publish_texts({name: content}, kind=KINDS[name])


@contextmanager
def served(
    bench: Bench, reader: Reloader, http: HttpSettings, *, slow_query_ms: float | None = None
) -> Iterator[httpx.Client]:
    """A client of a service with settings of its own, over everything."""
    publish_all(bench)
    reader.step()
    with running(create_app(reader, http, slow_query_ms=slow_query_ms)) as client:
        yield client
