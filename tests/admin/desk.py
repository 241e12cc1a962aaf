"""The admin API over a pipeline, in this thread: each look is made by hand."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from fastapi.testclient import TestClient

from indexrelay.admin.access import Access
from indexrelay.admin.app import create_admin_app
from indexrelay.admin.backups import BackupWork
from indexrelay.admin.history import FILE_NAME, History
from indexrelay.admin.resources import AdminResources
from indexrelay.admin.state import StateWatch
from indexrelay.admin.stream import EventStream
from indexrelay.admin.version_cache import VersionCache
from indexrelay.producers.events import JobConnection
from indexrelay.storage.audit import AuditLog
from indexrelay.testing import Pipeline


class Desk:
    """An operator's client, and what is behind it."""

    def __init__(self, pipeline: Pipeline, resources: AdminResources, client: TestClient) -> None:
        self.pipeline = pipeline
        self.resources = resources
        self.client = client

    def look(self) -> None:
        """Look at everything now."""
        self.resources.state.turn()

    def get(self, path: str, *, status: int = 200, **query: Any) -> Any:
        """The answer; it has that status."""
        answer = self.client.get(f"/api/admin/{path}", params=query)
        assert answer.status_code == status, answer.text
        return answer.json()

    def post(self, path: str, *, status: int, **body: Any) -> Any:
        """The answer; it has that status, and what it begins or makes can be looked at."""
        answer = self.client.post(f"/api/admin/{path}", json=body)
        assert answer.status_code == status, answer.text
        place = answer.headers.get("Location")
        if status in (201, 202):
            assert place is not None
            assert self.client.get(place).status_code == 200, "it says where to look"
        return answer.json()

    def audited(self) -> list[tuple[str, str, str | None]]:
        """What people had done, by the audit log: action, who, subject."""
        return [
            (line["action"], line["who"], line.get("subject"))
            for line in AuditLog.of(self.pipeline.settings).newest(1000)
            if line["who"].startswith("admin/")
        ]


@contextmanager
def desk_of(pipeline: Pipeline) -> Iterator[Desk]:
    """Of whoever asks: the settings name nobody."""
    settings, clock = pipeline.settings, pipeline.clock
    with ExitStack() as stack:
        audit = AuditLog.of(settings, clock=clock)
        events = EventStream(clock)
        history = History(settings.data_dir / FILE_NAME, store=pipeline.store, clock=clock)
        stack.callback(history.close)
        backups = BackupWork(settings, catalog=pipeline.catalog, store=pipeline.store, clock=clock)
        stack.callback(backups.stop)
        versions = VersionCache(pipeline.store, definitions=settings.components, clock=clock)
        stack.callback(versions.close)
        resources = AdminResources(
            settings=settings,
            catalog=pipeline.catalog,
            store=pipeline.store,
            connection=JobConnection(settings, pipeline.connection),
            producer=pipeline.producer,
            clock=clock,
            audit=audit,
            access=Access(settings, clock=clock, audit=audit),
            state=StateWatch(
                settings,
                catalog=pipeline.catalog,
                store=pipeline.store,
                connection=lambda: pipeline.connection,
                clock=clock,
                events=events,
                noting=history.add,
            ),
            events=events,
            versions=versions,
            history=history,
            backups=backups,
        )
        client = stack.enter_context(
            TestClient(create_admin_app(resources), base_url="http://127.0.0.1:8090")
        )
        client.headers["X-CSRF-Token"] = client.get("/api/admin/me").json()["csrf"]
        yield Desk(pipeline, resources, client)
