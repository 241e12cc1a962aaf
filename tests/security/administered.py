"""An installation in which others wrote whatever they liked, and its admin service.

What is hostile is in each place that the admin page shows: ids, texts and payloads of entries, the
error of a build, presence, results, events that nobody can read, reasons.
"""

import itertools
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
import numpy as np

from indexrelay.admin.access import PREFIX
from indexrelay.admin.service import AdminService
from indexrelay.schemas.messages import FIELD, RebuildFinished, RebuildStatus
from indexrelay.schemas.names import member_id
from indexrelay.schemas.settings import Settings
from indexrelay.streams import Keys
from indexrelay.testing import Pipeline
from tests.admin.people import PASSWORDS, TOKENS, people
from tests.schemas.sample_events import event_of
from tests.security.messages import states

MARKUP: Final = "</script><script>alert(1)</script><img src=x onerror=alert(1)>\"'&"
CONTROL: Final = "\x07\x1b[2J\x1b]0;gone\x07\r\n\t\x7f\x85\u2028\u202ereversed"
HOSTILE: Final = MARKUP + CONTROL
LONG: Final = HOSTILE * 20_000
"""Three megabytes."""


@dataclass(frozen=True)
class Operation:
    """One of the OpenAPI document."""

    method: str
    path: str

    @property
    def is_safe(self) -> bool:
        """Whether it changes nothing by its method alone."""
        return self.method in ("get", "head", "options")


@dataclass(frozen=True)
class Administered:
    """An installation and its admin service, with the users and tokens of `tests.admin.people`."""

    pipeline: Pipeline
    service: AdminService

    def client(self, **headers: str) -> httpx.Client:
        """Of whoever shows these headers."""
        return httpx.Client(base_url=self.service.address, headers=headers, timeout=30)

    def program(self, token: str) -> httpx.Client:
        """Of whoever has one of the tokens."""
        return self.client(authorization=f"Bearer {TOKENS[token]}")

    @contextmanager
    def browser(self, user: str) -> Iterator[httpx.Client]:
        """Of somebody who has logged in."""
        with self.client() as client:
            asked = {"user": user, "password": PASSWORDS[user]}
            assert client.post(f"{PREFIX}/login", json=asked).status_code == 204
            client.headers["X-CSRF-Token"] = client.get(f"{PREFIX}/me").json()["csrf"]
            yield client

    def document(self) -> dict[str, Any]:
        """What the service says of itself."""
        with self.program("watches") as client:
            found: dict[str, Any] = client.get(f"{PREFIX}/openapi.json").json()
        return found

    def operations(self) -> list[Operation]:
        """All that there are."""
        return [
            Operation(method, path)
            for path, methods in self.document()["paths"].items()
            for method in methods
        ]


SETTINGS: Final[dict[str, Any]] = {
    "collections": {"tracks": {"dimension": 3, "metric": "l2", "filterable": {"genre": "keyword"}}},
    "components": {
        "similar": {"kind": "vector_index", "from": "tracks", "index": "Flat"},
        "words": {"kind": "text_index", "from": "tracks"},
        "plane": {"kind": "projection", "from": "tracks"},
        "failing": {"kind": "embedding_cache", "from": "tracks"},
    },
    "schedules": {"nightly": {"cron": "0 3 * * *", "components": ["similar"]}},
    "admin": people(),
}


@contextmanager
def administered(folder: Path) -> Iterator[Administered]:
    """Build it twice, let others write into it, and serve its admin page."""
    pipeline = Pipeline(Settings.model_validate({"data_dir": folder, **SETTINGS}), folder)
    try:
        pipeline.fail_build("failing", error=LONG)
        for batch in range(2):
            _commit(pipeline, batch)
            pipeline.rebuild()
        _write_into_redis(pipeline)
        pipeline.rebuild()
        service = AdminService(
            pipeline.settings,
            catalog=pipeline.catalog,
            store=pipeline.store,
            connection=pipeline.connection,
            port=0,
        )
        try:
            service.start()
            yield Administered(pipeline, service)
        finally:
            service.stop()
    finally:
        pipeline.close()


def _commit(pipeline: Pipeline, batch: int) -> None:
    """Twenty entries; half of them are hostile."""
    with pipeline.producer.batch("tracks", f"{HOSTILE} {batch}") as rows:
        rows.upsert(
            [f"track-{batch}-{number}" + HOSTILE * (number % 2) for number in range(20)],
            np.random.default_rng(batch).normal(size=(20, 3)).astype(np.float32),
            texts=[
                f"song number {number} {HOSTILE}{'<i>' * 20_000 * (number == 7)}"
                for number in range(20)
            ],
            payloads=[
                {
                    "genre": MARKUP,
                    MARKUP: [HOSTILE, {HOSTILE: number}],
                    "long": "<b>" * 1000 * number,
                }
                for number in range(20)
            ],
        )


def _write_into_redis(pipeline: Pipeline) -> None:
    """As somebody who has the passwords of all roles there, and none of our code."""
    redis, keys = pipeline.connection.commands, Keys(pipeline.settings.namespace)
    raw = [b"\xff\xfe", b"\x00", b"{", HOSTILE.encode(), LONG.encode(), *_made_up(pipeline)]
    for stream, each in itertools.product((keys.events, keys.results, keys.reloads), raw):
        redis.xadd(stream, {FIELD: each})
    for number, each in enumerate(raw):
        redis.set(keys.reader(f"odd-{number}"), each, ex=3600)
        redis.set(keys.rebuilder(f"{MARKUP}{number}"), each, ex=3600)
    [state, _] = states("similar", "words")
    said = {
        **state,
        "host": HOSTILE,
        "address": "javascript:alert(1)",
        "components": {
            name: {**component, "error": HOSTILE * 10, "outcome": "failed"}
            for name, component in state["components"].items()
        },
    }
    member = member_id(said["reader"], said["instance"])
    redis.set(keys.reader(member), json.dumps(said), ex=3600)


def _made_up(pipeline: Pipeline) -> list[bytes]:
    """Results that read like ours."""
    now = pipeline.clock.now()
    result = RebuildFinished(
        status=RebuildStatus.FAILURE,
        message=HOSTILE * 20,
        indexes_failed=("similar",),
        started_at=now,
        finished_at=now,
        request_ids=(HOSTILE,),
    )
    return [event_of(result).to_bytes()]
