"""A pipeline without threads, and an admin service that looks at it."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import Any

import httpx
import pytest

from indexrelay.admin.service import AdminService
from indexrelay.admin.version_cache import VersionCache
from indexrelay.schemas.settings import Settings
from indexrelay.testing import MakePipeline, Pipeline
from tests.admin.desk import Desk, desk_of
from tests.admin.songs import two_releases

CACHE = {"kind": "embedding_cache", "from": "tracks"}
MakeService = Callable[..., AdminService]


@pytest.fixture
def pipeline(indexrelay_pipeline: MakePipeline) -> Pipeline:
    return indexrelay_pipeline(
        collections={"tracks": {"dimension": 3, "metric": "l2"}},
        components={"cache": CACHE, "other": CACHE},
    )


@pytest.fixture
def make_service(pipeline: Pipeline) -> Iterator[MakeService]:
    """Makes services on free ports; each is stopped at the end."""
    with ExitStack() as stack:

        def make(**changes: Any) -> AdminService:
            return stack.enter_context(closing_service(pipeline, **changes))

        yield make


@contextmanager
def closing_service(pipeline: Pipeline, **changes: Any) -> Iterator[AdminService]:
    """A service on a free port, which is stopped at the end."""
    service = AdminService(
        pipeline.settings,
        catalog=pipeline.catalog,
        store=pipeline.store,
        connection=pipeline.connection,
        clock=pipeline.clock,
        port=0,
        **changes,
    )
    try:
        yield service
    finally:
        service.stop()


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AdminService]:
    """One for all tests of a module that leave it as they found it; nothing is committed there."""
    settings = Settings.model_validate(
        {
            "collections": {"tracks": {"dimension": 3, "metric": "l2"}},
            "components": {"cache": CACHE, "other": CACHE},
        }
    )
    with (
        closing(Pipeline(settings, tmp_path_factory.mktemp("quiet"))) as pipeline,
        closing_service(pipeline) as service,
    ):
        service.start()
        yield service


@pytest.fixture
def client(service: AdminService) -> Iterator[httpx.Client]:
    """Of an operator: nobody is asked who they are."""
    with operator_of(service) as client:
        yield client


@contextmanager
def operator_of(service: AdminService) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"{service.address}/api/admin/", timeout=30) as client:
        client.headers["X-CSRF-Token"] = client.get("me").json()["csrf"]
        yield client


@pytest.fixture(scope="package")
def songs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    """An installation with two releases."""
    yield from two_releases(tmp_path_factory.mktemp("songs"))


@pytest.fixture
def song_versions(songs: Pipeline) -> Iterator[VersionCache]:
    cache = VersionCache(songs.store, definitions=songs.settings.components, clock=songs.clock)
    yield cache
    cache.close()


@pytest.fixture(scope="module")
def song_client(songs: Pipeline) -> Iterator[httpx.Client]:
    """Of an operator of that installation's admin service."""
    with closing_service(songs) as service:
        service.start()
        with operator_of(service) as client:
            yield client


@pytest.fixture
def desk(pipeline: Pipeline) -> Iterator[Desk]:
    with desk_of(pipeline) as desk:
        yield desk


def state_of(desk: Desk) -> Any:
    """The state, looked at anew."""
    desk.look()
    return desk.get("state")


@pytest.fixture
def scheduled_desk(indexrelay_pipeline: MakePipeline) -> Iterator[Desk]:
    """Of two components, one of which a schedule builds every night."""
    pipeline = indexrelay_pipeline(
        collections={"tracks": {"dimension": 3}},
        components={"cache": CACHE, "other": CACHE},
        schedules={"nightly": {"cron": "0 2 * * *", "components": ["ca*"], "full": True}},
    )
    with desk_of(pipeline) as desk:
        yield desk
