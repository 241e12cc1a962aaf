"""A pipeline without threads, and an admin service that looks at it."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import httpx
import pytest

from indexrelay.admin.service import AdminService
from indexrelay.testing import MakePipeline, Pipeline

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
            service = AdminService(
                pipeline.settings,
                catalog=pipeline.catalog,
                store=pipeline.store,
                connection=pipeline.connection,
                clock=pipeline.clock,
                port=0,
                **changes,
            )
            stack.callback(service.stop)
            return service

        yield make


@pytest.fixture
def service(make_service: MakeService) -> AdminService:
    service = make_service()
    service.start()
    return service


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
