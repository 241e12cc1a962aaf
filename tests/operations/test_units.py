"""Units that systemd takes, that shut roles in, and that stay apart from those of others."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from indexrelay.operations import units
from indexrelay.operations.units import (
    ADMIN,
    OPERATOR,
    READER,
    REBUILDER,
    ServicePlace,
    UnitError,
    ours,
    removed,
    units_of,
    written,
)

MOST_EXPOSED = 3.0
"""Of the 10 points that `systemd-analyze security` counts."""


def place(
    program: str = "/opt/indexrelay/bin/indexrelay",
    config: str = "/etc/indexrelay/indexrelay.toml",
    writable: str = "/var/lib/indexrelay",
    user: str = "indexrelay",
) -> ServicePlace:
    return ServicePlace(
        program=Path(program), config=Path(config), writable=(Path(writable),), user=user
    )


def analyzed(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    program = shutil.which("systemd-analyze")
    if program is None:
        reason = "systemd-analyze is missing; install Debian's package systemd"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return subprocess.run(
        [program, *arguments], capture_output=True, text=True, check=False, timeout=60
    )


def instances(files: list[Path]) -> list[Path]:
    """Each unit as it would be started: of a template, one instance."""
    started = []
    for file in files:
        started.append(file.with_name(file.name.replace("@", "@8001")))
        if started[-1] != file:
            started[-1].write_bytes(file.read_bytes())
    return started


def test_systemd_takes_every_unit_and_finds_little_exposed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(units, "_HIDDEN", ())
    odd = tmp_path / "a 100% odd $HOME; folder"
    odd.mkdir()
    program = tmp_path / "100% program"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    where = place(str(program), str(odd / "index relay.toml"), str(odd))
    files = instances(written(units_of(where, with_operator=True, with_admin=True), tmp_path))
    verified = analyzed("verify", "--man=no", *files)
    assert (verified.returncode, verified.stderr) == (0, "")
    judged = analyzed("security", "--offline=true", f"--threshold={MOST_EXPOSED * 10:.0f}", *files)
    assert judged.returncode == 0, judged.stdout
    assert judged.stdout.count("Overall exposure level") == len(files), judged.stderr
    # What systemd finds wrong it does find.
    files[0].write_text(files[0].read_text().replace("ProtectHome=yes", "ProtectHome=perhaps"))
    assert "perhaps" in analyzed("verify", "--man=no", files[0]).stderr


def test_a_unit_names_paths_as_they_are_and_watches_the_loops_that_may_not_hang() -> None:
    where = place(config="/etc/a $b %c/x.toml", writable="/srv/a b%")
    texts = units_of(where, with_operator=True, with_admin=True)
    assert list(texts) == [REBUILDER, READER, OPERATOR, ADMIN]
    for text in texts.values():
        lines = text.splitlines()
        assert "WorkingDirectory=/etc/a $b %%c" in lines
        assert 'ReadWritePaths="/srv/a b%%"' in lines
        (command,) = [line for line in lines if line.startswith("ExecStart=")]
        assert command.startswith('ExecStart="/opt/indexrelay/bin/indexrelay" ')
        assert command.endswith(' --config "/etc/a $$b %%c/x.toml"')
    watched = {name for name, text in texts.items() if "\nWatchdogSec=" in text}
    assert watched == {REBUILDER, READER, OPERATOR, ADMIN}
    assert all("\nExecReload=/bin/kill -HUP $MAINPID\n" in text for text in texts.values())
    assert list(units_of(where, with_operator=False)) == [REBUILDER, READER]


@pytest.mark.parametrize(
    "wrong",
    [
        {"config": "indexrelay.toml"},
        {"config": "/etc/two\nExecStartPre=/bin/sh"},
        {"writable": '/srv/a"b'},
        {"writable": "/srv/a\\x20b"},
        {"writable": "/srv/at the end "},
        {"writable": "/srv/\udcff"},
        {"writable": "/run/user/1000/data"},
        {"config": "/var/tmp/indexrelay.toml"},  # noqa: S108 - refused
        {"program": "/var/tmp/venv/bin/indexrelay"},  # noqa: S108 - refused
        {"program": "/opt/$x/bin/indexrelay"},
        {"user": "me\nGroup=root"},
        {"user": ""},
    ],
    ids=repr,
)
def test_what_a_unit_cannot_say_or_a_role_could_not_see_is_refused(wrong: dict[str, str]) -> None:
    with pytest.raises(UnitError):
        place(**wrong)


def test_a_link_to_a_hidden_place_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(units, "_HIDDEN", (tmp_path / "hidden",))
    (tmp_path / "data").symlink_to(tmp_path / "hidden")
    with pytest.raises(UnitError, match="hide"):
        place(writable=str(tmp_path / "data"))


def test_units_of_ours_are_written_again_and_those_of_others_stay(tmp_path: Path) -> None:
    first = units_of(place(), with_operator=True)
    written(first, tmp_path)
    other = units_of(place(user="other"), with_operator=True)
    files = written(other, tmp_path)
    assert {file.name: file.read_text() for file in files} == other
    assert {file.stat().st_mode & 0o777 for file in files} == {0o644}

    changed = tmp_path / READER
    changed.write_text(changed.read_text() + "# mine\n")
    (tmp_path / OPERATOR).unlink()
    (tmp_path / OPERATOR).symlink_to(tmp_path / REBUILDER)
    before = (tmp_path / REBUILDER).read_text()
    with pytest.raises(UnitError, match="drop-in"):
        written(first, tmp_path)
    assert (tmp_path / REBUILDER).read_text() == before, "nothing is written in part"
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted(other)  # and no draft

    mine, others = ours(tmp_path)
    assert mine == [tmp_path / REBUILDER]
    assert sorted(others) == sorted([changed, tmp_path / OPERATOR])
    removed(mine)
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted([READER, OPERATOR])


def test_a_role_that_a_hangup_ended_is_started_again() -> None:
    for text in units_of(place(), with_operator=True, with_admin=True).values():
        if "[Service]" in text:
            assert "\nRestartForceExitStatus=SIGHUP\n" in text
