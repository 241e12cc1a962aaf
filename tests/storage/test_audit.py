import json
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from indexrelay.storage.audit import AuditAction, AuditLog
from indexrelay.testing import FakeClock
from tests.fixtures.logs import capture_logs


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_a_line_says_who_did_what_and_when(tmp_path: Path) -> None:
    clock = FakeClock(datetime(2026, 11, 28, 3, tzinfo=UTC))
    path = tmp_path / "made" / "audit.jsonl"
    audit = AuditLog(path, clock=clock)
    audit.record(AuditAction.HELD, who="ada@host", subject="maps", reason="odd\nmaps", release=7)
    audit.record(AuditAction.LIFTED, who="token/ops", components=["a", "b"], batch=None)

    assert lines(path) == [
        {
            "time": "2026-11-28T03:00:00.000+00:00",
            "action": "held",
            "who": "ada@host",
            "subject": "maps",
            "reason": "odd\nmaps",
            "release": 7,
        },
        {
            "time": "2026-11-28T03:00:00.000+00:00",
            "action": "lifted",
            "who": "token/ops",
            "components": ["a", "b"],
        },
    ]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_line_holds_no_secret_and_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    AuditLog(path).record(
        AuditAction.RESTORED,
        who="ada@host",
        url="postgresql://me:hush-hush@host/db",
        reason="moved from redis://:hush-hush@host " + "x" * 100_000,
        names=["password=hush-hush"] * 5000,
    )
    text = path.read_text()
    assert "hush-hush" not in text
    assert len(lines(path)[0]["reason"]) <= 2000
    assert len(lines(path)[0]["names"]) == 1000


def test_files_that_grew_are_numbered_and_the_oldest_goes(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    audit = AuditLog(path, max_bytes=300)
    for number in range(60):
        audit.record(AuditAction.RELEASED, who="rebuilder/a", release=number)

    names = sorted(each.name for each in tmp_path.iterdir())
    assert names == ["audit.jsonl", *(f"audit.jsonl.{number}" for number in range(1, 10))]
    kept = [path.with_name(f"audit.jsonl.{number}") for number in range(9, 0, -1)]
    numbers = [line["release"] for each in [*kept, path] for line in lines(each)]
    assert numbers == list(range(numbers[0], 60))
    assert [line["release"] for line in audit.newest(7)] == list(range(53, 60))
    assert [line["release"] for line in audit.newest(1000)] == numbers
    assert all(each.stat().st_size <= 300 for each in tmp_path.iterdir())


def test_lines_of_several_writers_are_whole_and_none_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"

    def write(writer: int) -> None:
        audit = AuditLog(path, max_bytes=20_000)  # each with files of its own
        for number in range(100):
            audit.record(AuditAction.RELEASED, who=f"rebuilder/{writer}", release=number)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))
    written = [
        (line["who"], line["release"]) for each in tmp_path.iterdir() for line in lines(each)
    ]
    assert sorted(written) == sorted((f"rebuilder/{w}", n) for w in range(4) for n in range(100))


def test_what_cannot_be_written_is_a_warning_with_the_line(tmp_path: Path) -> None:
    (tmp_path / "audit.jsonl").symlink_to(tmp_path / "elsewhere")
    with capture_logs() as events:
        AuditLog(tmp_path / "audit.jsonl").record(AuditAction.DELETED, who="ada@host", subject="x")
    (warning,) = [each for each in events if each["event"] == "audit.not_written"]
    assert (warning["action"], warning["who"], warning["subject"]) == ("deleted", "ada@host", "x")
    assert not (tmp_path / "elsewhere").exists()


def test_a_full_disk_leaves_no_half_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "audit.jsonl"
    audit = AuditLog(path)
    audit.record(AuditAction.PAUSED, who="ada@host")
    write = os.write
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda file, line: write(file, line[:10]))
        audit.record(AuditAction.RESUMED, who="ada@host")
    audit.record(AuditAction.HELD, who="ada@host")
    assert [line["action"] for line in lines(path)] == ["paused", "held"]


def test_pages_go_back_through_every_file_and_repeat_no_line(tmp_path: Path) -> None:
    audit = AuditLog(tmp_path / "audit.jsonl", max_bytes=1000)
    for number in range(60):
        audit.record(AuditAction.RELEASED, who="rebuilder/r1", release=number, long="é" * 50)
    with (tmp_path / "audit.jsonl").open("ab") as file:
        file.write(b"not ours\n\n" + b"[" * 100_000 + b"\n")
    kept = [line["release"] for line in audit.newest(1000)]
    seen: list[int] = []
    ids: set[str] = set()
    before = None
    while True:
        page = audit.page(7, before=before)
        seen += [line.fields["release"] for line in page.lines]
        ids |= {line.id for line in page.lines}
        if page.next is None:
            break
        before = page.next
        if len(seen) == 14:  # lines that come meanwhile, and a file that gets the next number
            for number in range(60, 70):
                audit.record(AuditAction.RELEASED, who="r", release=number, long="é" * 50)
    assert seen == kept[::-1][: len(seen)]
    assert len(seen) == len(ids) > 30
    assert audit.page(3, before="1-5").lines == (), "a file that is gone"
    with pytest.raises(ValueError, match="names no line"):
        audit.page(3, before="../../etc/passwd")


def test_a_line_across_blocks_is_whole_and_one_without_an_end_is_not_kept_in_memory(
    tmp_path: Path,
) -> None:
    path = tmp_path / "audit.jsonl"
    audit = AuditLog(path)
    for number in range(300):
        audit.record(AuditAction.RELEASED, who="r", release=number, long="x" * (number * 7))
    assert [line["release"] for line in audit.newest(300)] == list(range(300))
    path.with_name("audit.jsonl.1").write_bytes(b"x" * 20_000_000)
    assert len(audit.page(1000).lines) == 300
    assert AuditLog(tmp_path / "none.jsonl").page(5).lines == ()
