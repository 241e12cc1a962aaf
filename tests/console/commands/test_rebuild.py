"""``indexrelay rebuild``: the request and its result, here and by a rebuilder."""

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from indexrelay.console.installation import Installation, signals_of
from indexrelay.rebuilder.service import Rebuilder
from indexrelay.schemas.clock import SystemClock
from indexrelay.schemas.messages import Event, RebuildFinished, RebuildRequested, RebuildStatus
from indexrelay.schemas.settings_file import load_settings
from indexrelay.storage.catalog import Catalog, Inbox
from indexrelay.streams import EmbeddedServer, publish
from indexrelay.streams.server import noted_socket
from tests.console.conftest import Run, commit
from tests.streams.polling import eventually

pytestmark = pytest.mark.server

CONFIG = """
[collections.tracks]
dimension = 3

[components.cache]
kind = "embedding_cache"
from = "tracks"
max_shrink = 0.1

[components.copy]
kind = "embedding_cache"
from = "tracks"
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """An installation with one batch, and nothing built of it."""
    config = tmp_path / "indexrelay.toml"
    config.write_text(CONFIG)
    commit(config, "first", 20)
    return config


@pytest.fixture
def served(config: Path) -> Iterator[Path]:
    """The same with a server and a rebuilder."""
    settings = load_settings(config, environ={})
    with EmbeddedServer(config.parent / "indexrelay-data"), Installation(settings) as opened:
        rebuilder = Rebuilder(
            opened.settings,
            catalog=opened.catalog,
            store=opened.store,
            connection=opened.connection,
        )
        rebuilder.start()
        try:
            eventually(lambda: signals_of(opened).rebuilders)
            yield config
        finally:
            rebuilder.stop()


def test_a_forged_result_answers_no_request(
    run: Run, served: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Installation.at(served) as installation:
        inbox = type(installation.catalog.inbox)
        write = inbox.request

        def forge(self: Inbox, request_id: str, **wish: Any) -> bool:
            written = write(self, request_id, **wish)
            now = SystemClock().now()
            forged = RebuildFinished(
                status=RebuildStatus.FAILURE,
                message="forged",
                request_ids=(request_id,),
                started_at=now,
                finished_at=now,
            )
            raw = Event.of(forged, source="hostile", time=now).to_bytes()
            publish(installation.connection, installation.keys.results, raw)
            return written

        monkeypatch.setattr(inbox, "request", forge)
        said = run(
            "rebuild", "--all", "--wait", "--timeout", "60", "--json", "--config", str(served)
        )
    result = json.loads(said.out)["result"]
    assert (said.code, result["status"]) == (0, "SUCCESS")
    assert result["indexes_rebuilt"] == ["cache", "copy"]


def modes(document: dict[str, Any]) -> dict[str, str]:
    return {name: each["mode"] for name, each in document["result"]["components"].items()}


def test_a_pass_here_starts_the_server_it_needs_and_stops_it(run: Run, config: Path) -> None:
    said = run("rebuild", "--here", "--json", "--config", str(config))
    assert said.code == 0, said.err
    document = json.loads(said.out)
    assert document["result"]["indexes_rebuilt"] == ["cache", "copy"]
    assert document["result"]["release"] == 1
    socket = noted_socket(config.parent / "indexrelay-data" / "redis")
    assert socket is not None
    assert not socket.exists()

    whole = run("rebuild", "--all", "--full", "--here", "--json", "--config", str(config))
    assert modes(json.loads(whole.out)) == {"cache": "full", "copy": "full"}


def test_a_running_rebuilder_is_asked_for_all_for_a_full_build_and_to_ignore_shrinking(
    run: Run, served: Path
) -> None:
    at = ("--wait", "--timeout", "60", "--json", "--config", str(served))
    first = json.loads(run("rebuild", "--all", *at).out)
    assert set(modes(first)) == {"cache", "copy"}
    again = json.loads(run("rebuild", "--all", *at).out)
    assert modes(again) == {"cache": "incremental", "copy": "incremental"}
    whole = json.loads(run("rebuild", "cache", "--full", *at).out)
    assert modes(whole) == {"cache": "full"}
    assert whole["result"]["components"]["cache"]["outcome"] == "rebuilt"


def asked_for(config: Path) -> list[RebuildRequested]:
    """What stands in the inbox, oldest first."""
    with closing(Catalog.open(load_settings(config, environ={}).catalog_url)) as catalog:
        found = [Event.from_bytes(row.body).data for row in catalog.inbox.open()]
    return [data for data in found if isinstance(data, RebuildRequested)]


def test_a_request_is_a_row_in_the_inbox(run: Run, config: Path) -> None:
    at = ("--config", str(config))
    assert run("rebuild", "cache", "--force", *at).code == 0
    assert run("rebuild", "--full", "--reason", "a new disk", *at).code == 0
    assert run("rebuild", "--all", "--force", "--full", *at).code == 0
    wishes = [(each.components, each.force, each.full, each.reason) for each in asked_for(config)]
    assert wishes == [
        (("cache",), True, False, "by hand"),
        ((), False, True, "a new disk"),
        (("cache", "copy"), True, True, "by hand"),
    ]


def test_all_leaves_out_what_is_paused_or_held_and_reports_it(run: Run, config: Path) -> None:
    at = ("--config", str(config))
    assert run("pause", "cache", "--reason", "too loud", *at).code == 0
    said = run("rebuild", "--all", *at)
    assert "cache (paused: too loud)" in said.err
    assert run("pause", "copy", *at).code == 0
    said = run("rebuild", "--all", *at)
    assert (said.code, "copy (paused: by hand)" in said.err) == (1, True)
    assert run("rebuild", "cache", *at).code == 0, "a name means that one, paused or not"
    assert [each.components for each in asked_for(config)] == [("copy",), ("cache",)]


def test_names_and_all_contradict_each_other(run: Run, config: Path) -> None:
    said = run("rebuild", "copy", "--all", "--config", str(config))
    assert (said.code, "--all" in said.err) == (2, True)
