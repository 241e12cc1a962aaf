"""``indexrelay repair redis``: it shows what it would do, and does it as the user who may."""

import json
import threading
from collections.abc import Iterator
from contextlib import suppress
from io import StringIO
from pathlib import Path

import pytest
from redis.exceptions import RedisError, ResponseError
from rich.console import Console

from indexrelay.console.commands.repair import Repaired, RepairStep, repair_page
from indexrelay.streams import Connection, Keys
from indexrelay.streams.errors import refusal_code
from indexrelay.streams.repair import Action
from tests.console.conftest import CONFIG, Run
from tests.fixtures.acl import ADMIN, NAMESPACE, ConnectAs, url_of
from tests.streams.polling import eventually

pytestmark = pytest.mark.server
KEYS = Keys(NAMESPACE)


@pytest.fixture
def admin(connect_as: ConnectAs) -> Iterator[Connection]:
    connection = connect_as(ADMIN)
    connection.commands.flushall()
    yield connection
    connection.commands.flushall()


@pytest.fixture
def config(tmp_path: Path, guarded_socket: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The settings of a person, who has two users of Redis."""
    file = tmp_path / "indexrelay.toml"
    head = f'namespace = "{NAMESPACE}"\ndata_dir = "data"\n'
    url = url_of(guarded_socket, "monitor")
    file.write_text(f'{head}[redis]\nurl = "{url}"\n{CONFIG}', encoding="utf-8")
    monkeypatch.setenv("INDEXRELAY_REDIS__OPERATOR_URL", url_of(guarded_socket, "operator"))
    return file


def test_it_shows_what_it_would_do_and_does_it_with_yes(
    run: Run, config: Path, admin: Connection
) -> None:
    at = ("--config", str(config))
    assert run("repair", "redis", *at).out == "nothing in Redis needs repair\n"
    admin.commands.rpush(KEYS.release, "theirs")
    admin.commands.set(KEYS.reader("web:0a"), b"x" * 2_000_000)
    looked = run("repair", "redis", *at)
    assert looked.code == 3
    for said in (
        f"⚠ the key {KEYS.release} holds a list, and should hold a string",
        "→ set it aside for a week",
        "only readers that are called web write there",
        "2 to repair; nothing was changed",
        "indexrelay repair redis --config",
    ):
        assert said in looked.out
    assert admin.commands.exists(KEYS.release, KEYS.reader("web:0a")) == 2
    document = json.loads(run("repair", "redis", "--json", "--yes", *at).out)
    assert [(step["action"], step["done"]) for step in document["steps"]] == [
        ("repair_key", True)
    ] * 2
    assert admin.commands.exists(KEYS.release, KEYS.reader("web:0a")) == 0
    assert run("repair", "redis", "--yes", *at).code == 0


def test_it_ends_a_script_that_does_not_end(
    run: Run, config: Path, admin: Connection, connect_as: ConnectAs
) -> None:
    admin.commands.rpush(KEYS.release, "theirs")
    rebuilder = connect_as("rebuilder").commands
    digest = rebuilder.script_load("while true do end")

    def forever() -> None:
        with suppress(RedisError):
            rebuilder.evalsha(digest, 1, KEYS.lease("map"))

    thread = threading.Thread(target=forever)
    thread.start()

    def is_busy() -> bool:
        try:
            admin.commands.get("x")
        except ResponseError as error:
            return refusal_code(error) == "BUSY"
        return False

    eventually(is_busy)
    at = ("--config", str(config))
    status = run("status", *at)
    assert "Redis cannot be asked: BUSY" in status.out
    assert "indexrelay repair redis" in status.out
    repaired = run("repair", "redis", "--yes", *at)
    thread.join(30)
    assert repaired.code == 0
    assert "✓ the script or function was ended" in repaired.out
    assert f"the key {KEYS.release} holds a list" in repaired.out


def test_a_user_without_permission_is_answered_with_one_that_has_it(
    run: Run, config: Path, admin: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("INDEXRELAY_REDIS__OPERATOR_URL")
    admin.commands.rpush(KEYS.release, "theirs")
    refused = run("repair", "redis", "--yes", "--config", str(config))
    assert refused.code == 1
    assert "INDEXRELAY_REDIS__OPERATOR_URL" in refused.err
    assert admin.commands.exists(KEYS.release) == 1


def test_a_failed_repair_is_reported_and_not_called_well() -> None:
    step = RepairStep(
        action=Action.REPAIR_KEY, what="it is odd", how="mend it", result="it resists"
    )
    repaired = Repaired(steps=(step,), only_looked=False)
    assert not repaired.well
    console = Console(file=StringIO(), width=120)
    console.print(repair_page(repaired))
    page = console.file.getvalue()  # type: ignore[attr-defined] # it is the text above
    for said in ("⚠ it is odd", "→ it resists", "not all could be repaired"):
        assert said in page
