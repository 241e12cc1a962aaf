"""Settings that are read again: what is taken up, what is refused, and what a role goes on with."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from indexrelay.console.commands import up
from indexrelay.console.commands.roles import go_on
from indexrelay.console.commands.up import Roles
from indexrelay.console.hangup import Hangup
from indexrelay.console.installation import Installation, read_settings
from indexrelay.console.processes import Child, RoleSettings, Stop
from indexrelay.console.settings_reload import SettingsReload
from indexrelay.schemas.settings import Settings
from tests.console.test_processes_supervisor import FakeChild
from tests.fixtures.logs import capture_logs

CONFIG = "[redis]\nurl = 'redis://h'\n[collections.tracks]\ndimension = 3\n"
PRIORITY = "[components.a]\nkind = 'embedding_cache'\nfrom = 'tracks'\npriority = {}\n"


class Source:
    """A settings file that somebody edits, and what reads it again."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.asked = Hangup()
        self.write(1)
        self.reload = SettingsReload(
            read_settings(file), file, asked=self.asked, sets_up_logs=False
        )
        self.asked.clear()

    def write(self, priority: int, *, more: str = "") -> None:
        self.file.write_text(more + CONFIG + PRIORITY.format(priority))
        self.asked.set()


@pytest.fixture
def source(tmp_path: Path) -> Source:
    return Source(tmp_path / "indexrelay.toml")


def priority(settings: Settings | None) -> int | None:
    return None if settings is None else settings.components["a"].priority


def test_settings_are_read_once_for_each_signal_and_only_others_are_given(source: Source) -> None:
    assert source.reload.look() is None
    source.write(1)
    assert source.reload.look() is None
    source.write(2)
    new = source.reload.look()
    assert priority(new) == 2
    assert source.reload.look() is None
    source.write(1)  # back to what it works with, while it is about to go on with others
    assert priority(source.reload.look(new)) == 1


def test_a_file_that_holds_something_else_is_another_setting_and_one_that_is_wrong_is_refused(
    source: Source, tmp_path: Path
) -> None:
    key = tmp_path / "key"
    key.write_text("one")
    reload = SettingsReload(
        source.reload.settings,
        source.file,
        asked=source.asked,
        sets_up_logs=False,
        reads=lambda _settings: key.read_text(),
    )
    reload.note_read(reload.settings)
    source.write(1)
    assert reload.look() is None
    key.write_text("another")
    source.write(1)
    assert priority(reload.look()) == 1
    key.unlink()
    source.write(1)
    assert reload.look() is None
    assert "No such file" in str(reload.refused)


def test_a_module_of_the_user_that_raises_is_a_refusal_and_not_the_end(
    source: Source, tmp_path: Path
) -> None:
    (tmp_path / "raises_when_read_again.py").write_text("raise SystemExit(3)\n")
    source.file.write_text(
        CONFIG + "[components.a]\nkind = 'raises_when_read_again:Kind'\nfrom = 'tracks'\n"
    )
    source.asked.set()
    with capture_logs() as events:
        assert source.reload.look() is None
    assert source.reload.refused is not None
    assert [each["event"] for each in events if each["log_level"] == "error"] == [
        "settings.refused"
    ]


def test_secrets_are_neither_in_a_refusal_nor_among_what_changed(source: Source) -> None:
    with capture_logs() as events:
        source.file.write_text(CONFIG.replace("redis://h", "s3cret://h"))
        source.asked.set()
        assert source.reload.look() is None
        source.file.write_text(CONFIG.replace("redis://h", "redis://:s3cret@h"))
        source.asked.set()
        new = source.reload.look()
        assert new is not None
        source.reload.take(new)
    [taken] = [each for each in events if each["event"] == "settings.taken_up"]
    assert "redis.url" in taken["changed"]
    assert "s3cret" not in str(events)


class Runs:
    """A role that notes by which settings it is opened, and goes on as a story says."""

    def __init__(self, source: Source, *story: Callable[[], Any]) -> None:
        self.source = source
        self.opened_by: list[int | None] = []
        self.refuses: set[int] = set()
        self.waits: set[int] = set()
        self._story = iter(story)

    def opened(self, installation: Installation) -> str | None:
        self.opened_by.append(priority(installation.settings))
        if self.opened_by[-1] in self.refuses:
            raise ValueError("not with these")
        if self.opened_by[-1] in self.waits:
            next(self._story, lambda: None)()
            return None
        return "role"

    def run(self, installation: Installation, _role: str) -> Settings | None:
        installation.close()
        act = next(self._story, None)
        if act is None:
            return None
        act()
        return self.source.reload.look()

    def __call__(self) -> None:
        settings = self.source.reload.settings
        stop = cast("Stop", type("Never", (), {"asked": False}))
        go_on(
            Installation(settings),
            self.source.reload,
            stop=stop,
            opened=self.opened,
            run=self.run,
        )


def test_a_role_goes_on_with_the_former_settings_where_it_cannot_be_opened_by_others(
    source: Source,
) -> None:
    role = Runs(source, lambda: source.write(2))
    role.refuses = {2}
    role()
    assert role.opened_by == [1, 2, 1]
    assert "not with these" in str(source.reload.refused)
    assert priority(source.reload.settings) == 1


def test_what_is_not_there_is_waited_for_until_the_settings_name_another_place(
    source: Source,
) -> None:
    role = Runs(source, lambda: source.write(2), lambda: source.write(3))
    role.waits = {2}
    role()
    assert role.opened_by == [1, 2, 3]
    assert priority(source.reload.settings) == 3


def test_settings_that_a_role_was_started_with_and_cannot_be_opened_by_end_it(
    source: Source,
) -> None:
    role = Runs(source)
    role.refuses = {1}
    with pytest.raises(ValueError, match="not with these"):
        role()


class FakeRole(FakeChild):
    def hang_up(self) -> None:
        self._story.append(f"hang up {self.name}")


def test_all_roles_of_one_machine_read_them_again_and_an_operator_comes_and_goes(
    source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    story: list[str] = []
    for name in ("rebuilder", "operator"):
        child = FakeRole(name, story)
        monkeypatch.setattr(up, f"{name}_child", lambda _shared, child=child: child)
    shared = RoleSettings(config=source.file, environ={}, logs=None)
    roles = Roles(shared, [cast("Child", FakeRole("reader", story))], source.reload)
    roles.start()
    assert story == ["start rebuilder", "start reader"]
    del story[:]
    source.file.write_text("a broken file")
    source.asked.set()
    roles.look()
    assert story == []
    assert roles.reload.refused is not None
    source.write(2, more="[schedules.weekly]\ncron = '0 2 * * 0'\n")
    roles.look()
    assert story == ["hang up rebuilder", "hang up reader", "start operator"]
    del story[:]
    source.write(2)
    roles.look()
    assert story == ["hang up rebuilder", "hang up reader", "hang up operator", "stop operator"]
    del story[:]
    roles.look()
    roles.stop()
    assert "start operator" not in story
    assert "stop reader" in story
