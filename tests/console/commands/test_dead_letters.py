"""``indexrelay dead``: unreadable events are shown safely, retried or dropped."""

import base64
import io
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from rich.console import Console

from indexrelay.console.commands.dead_letters import letters_table
from indexrelay.console.installation import Installation
from indexrelay.schemas.messages import BatchCompleted, Event
from indexrelay.schemas.settings_file import load_settings
from indexrelay.storage.catalog.dead_letters import DeadLetterHeader, Unreadable
from tests.console.conftest import CONFIG, Run

pytestmark = pytest.mark.server
POISON = b"\x1b]0;owned\x07\xff\x00" + "\N{RIGHT-TO-LEFT OVERRIDE}".encode()


@pytest.fixture
def installation(built: Path) -> Iterator[Installation]:
    with Installation(load_settings(built, environ={})) as installation:
        yield installation
        for letter in installation.catalog.dead_letters.headers():
            installation.catalog.dead_letters.discard(letter.id)


def add_letter(installation: Installation, raw: bytes, *, reason: str = "not JSON") -> int:
    return installation.catalog.dead_letters.add(
        stream=installation.keys.events, entry_id="1-0", raw=raw, reason=reason
    )


def batch_event(event_id: str) -> bytes:
    data = BatchCompleted(collection="tracks", epoch="e", batch_id="first", generation=1)
    return Event.of(data, source="test", time=datetime.now(UTC), id=event_id).to_bytes()


def test_letters_are_listed_and_reported_by_status(
    run: Run, built: Path, installation: Installation
) -> None:
    at = ("--config", str(built))
    assert json.loads(run("dead", "list", "--json", *at).out) == {"letters": [], "dropped": 0}
    assert "no dead letters" in run("dead", "list", *at).out
    letter = add_letter(installation, POISON)
    [listed] = json.loads(run("dead", "list", "--json", *at).out)["letters"]
    assert (listed["id"], listed["size"], listed["reason"]) == (letter, len(POISON), "not JSON")
    assert "not JSON" in run("dead", "list", *at).out
    seen = json.loads(run("status", "--json", *at).out)
    assert seen["dead_letters"] == 1
    assert "indexrelay dead list" in seen["problems"][-1]["advice"]
    more = [Unreadable(entry_id=f"{each}-1", raw=POISON, reason="odd") for each in range(3)]
    installation.catalog.dead_letters.add_some(more, stream="events", most=1)
    assert "3 more could not be read and were not kept" in run("dead", "list", *at).out
    assert json.loads(run("dead", "list", "--json", *at).out)["dropped"] == 3
    told = json.loads(run("status", "--json", *at).out)["problems"][-1]["what"]
    assert told.endswith("; 3 more were not kept")
    assert run("dead", "drop", str(letter), *at).code == 0
    assert "no dead letters" in run("dead", "list", *at).out


def test_no_control_character_of_a_letter_reaches_the_terminal(
    run: Run, built: Path, installation: Installation
) -> None:
    letter = add_letter(installation, POISON, reason="data.\x1b[31m\x9b1m\u202ered: no")
    for command in (("show", str(letter)), ("list",)):
        for form in ((), ("--json",)):
            said = run("dead", *command, *form, "--config", str(built)).out
            assert all(each.isprintable() or each == "\n" for each in said), (command, form)
            assert "\\x1b[31m" in said.replace("\\\\", "\\")


@pytest.mark.parametrize("columns", [60, 80])
def test_a_narrow_terminal_breaks_neither_numbers_nor_times(columns: int) -> None:
    header = DeadLetterHeader(
        id=12_345,
        stream="{indexrelay}:events",
        entry_id="1772366400250-0",
        size=1536,
        reason="not JSON: Expecting value: line 1 column 1 (char 0)",
        added_at=datetime.now(UTC) - timedelta(minutes=59),
    )
    page = io.StringIO()
    Console(file=page, width=columns).print(letters_table([header]))
    shown = page.getvalue()
    for unbroken in ("12345", "1.5 KiB", "59 min ago", "Expecting"):
        assert unbroken in shown
    assert ("1772366400250-0" in shown) is (columns == 80)
    assert max(len(line) for line in shown.splitlines()) <= columns


def test_a_letter_is_shown_as_a_dump_and_whole_in_base64(
    run: Run, built: Path, installation: Installation
) -> None:
    raw = POISON + b"x" * 5000
    letter = str(add_letter(installation, raw))
    shown = run("dead", "show", letter, "--config", str(built)).out
    assert "00000000  1b 5d 30 3b 6f 77 6e 65 64 07 ff 00 e2 80 ae 78  .]0;owned......x" in shown
    assert f"… {len(raw) - 4096:,} more bytes" in shown
    document = json.loads(run("dead", "show", letter, "--json", "--config", str(built)).out)
    assert base64.b64decode(document["raw_base64"]) == raw


def test_a_letter_that_is_readable_now_becomes_an_event_and_wakes_with_the_same_bytes(
    run: Run, built: Path, installation: Installation
) -> None:
    raw = batch_event("from-a-letter")
    letter = str(add_letter(installation, raw))
    said = run("dead", "retry", letter, "--json", "--config", str(built))
    assert said.code == 0
    assert json.loads(said.out) == {
        "letters": [{"id": int(letter), "outcome": "received", "reason": None}],
        "woken": True,
    }
    [row] = [row for row in installation.catalog.inbox.open() if row.event_id == "from-a-letter"]
    assert not row.requested
    commands = installation.connection.commands
    [(_, fields)] = commands.xrevrange(installation.keys.events, count=1) or []
    assert fields == {b"event": raw}
    length = commands.xlen(installation.keys.events)
    again = run("dead", "retry", letter, "--config", str(built))
    assert again.code == 1
    assert "is no letter" in again.out
    assert commands.xlen(installation.keys.events) == length


def test_without_a_server_a_letter_waits_in_the_inbox_for_the_next_reconcile(
    run: Run, tmp_path: Path
) -> None:
    config = tmp_path / "indexrelay.toml"
    config.write_text(CONFIG)
    with Installation(load_settings(config, environ={})) as installation:
        letter = str(add_letter(installation, batch_event("waiting")))
        said = run("dead", "retry", letter, "--config", str(config))
        assert said.code == 0
        assert "at its next reconcile" in said.err
        assert [row.event_id for row in installation.catalog.inbox.open()] == ["waiting"]


def test_of_several_letters_those_that_cannot_be_read_stay(
    run: Run, built: Path, installation: Installation
) -> None:
    bad = add_letter(installation, POISON, reason="of old")
    good = add_letter(installation, batch_event("from-another-letter"))
    said = run("dead", "retry", str(bad), str(good), str(good), "--config", str(built))
    assert said.code == 3
    assert f"✗ {bad} still cannot be read: not JSON" in said.out
    assert f"✓ {good} is an event" in said.out
    [kept] = installation.catalog.dead_letters.all()
    assert (kept.id, kept.raw) == (bad, POISON)
    assert kept.reason != "of old"


def test_dropped_letters_are_gone(run: Run, built: Path, installation: Installation) -> None:
    letter = str(add_letter(installation, POISON))
    at = ("--config", str(built))
    assert run("dead", "drop", letter, "999999", *at).code == 3
    assert run("dead", "drop", letter, *at).code == 1
    missing = run("dead", "show", letter, *at)
    assert missing.code == 1
    assert "indexrelay dead list" in missing.err
