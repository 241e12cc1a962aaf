"""Sessions: what a cookie says, and what ends it."""

import stat
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from indexrelay.admin.sessions import (
    MAX_COOKIE,
    CookieKeyError,
    EndedSessions,
    Session,
    Sessions,
    cookie_key,
)
from indexrelay.schemas.settings import Settings
from indexrelay.testing.clock import FakeClock

HOUR = 3600.0


class Installation:
    """What sessions are made of, as a service that may start again."""

    def __init__(self, folder: Path) -> None:
        self.clock = FakeClock()
        self.passwords: dict[str, str] = {"ada": "hash-1", "ben": "hash-2"}
        self.key = b"k" * 32
        self.most = 10
        self._file = folder / "ended.json"

    def started(self) -> Sessions:
        return Sessions(
            self.key,
            seconds=HOUR,
            credential=lambda kind, name: self.passwords.get(name) if kind == "user" else None,
            ended=EndedSessions(self._file, clock=self.clock, most=self.most),
            clock=self.clock,
        )


@pytest.fixture
def there(tmp_path: Path) -> Installation:
    return Installation(tmp_path)


def read(sessions: Sessions, cookie: str) -> Session:
    found = sessions.read(cookie)
    assert found is not None
    return found


def test_a_session_names_who_logged_in_and_survives_a_restart(there: Installation) -> None:
    cookie = there.started().begin("user", "ada")
    session = read(there.started(), cookie)
    assert (session.kind, session.name) == ("user", "ada")
    assert session.began_at == there.clock.now()


def test_a_session_ends_by_its_age(there: Installation) -> None:
    sessions = there.started()
    cookie = sessions.begin("user", "ada")
    there.clock.advance(HOUR - 1)
    session = read(sessions, cookie)
    there.clock.advance(1)
    assert sessions.read(cookie) is None
    assert not sessions.is_valid(session)


def _another_password(there: Installation) -> None:
    there.passwords["ada"] = "hash-3"


def _nobody_of_that_name(there: Installation) -> None:
    del there.passwords["ada"]


def _another_key(there: Installation) -> None:
    there.key = b"j" * 32


@pytest.mark.parametrize("change", [_another_password, _nobody_of_that_name, _another_key])
def test_a_session_ends_when_the_settings_know_something_else(
    there: Installation, change: Callable[[Installation], None]
) -> None:
    cookie = there.started().begin("user", "ada")
    change(there)
    assert there.started().read(cookie) is None


def test_a_session_that_was_logged_out_is_over_for_copies_of_its_cookie_and_after_a_restart(
    there: Installation,
) -> None:
    sessions = there.started()
    cookie, other = sessions.begin("user", "ada"), sessions.begin("user", "ada")
    sessions.end(read(sessions, cookie))
    for each in (sessions, there.started()):
        assert each.read(cookie) is None
        assert each.read(other) is not None


def test_a_session_that_one_process_ends_is_over_in_every_other_and_stays_so(
    there: Installation, tmp_path: Path
) -> None:
    one, two = there.started(), there.started()
    cookies = [one.begin("user", "ada") for _ in range(4)]
    for number, cookie in enumerate(cookies):
        ender, other = (one, two) if number % 2 else (two, one)
        ender.end(read(ender, cookie))
        assert other.read(cookie) is None, "though it began with another file"
    for each in (one, two, there.started()):
        assert [each.read(cookie) for cookie in cookies] == [None] * 4
    assert not list(tmp_path.glob("*.part"))


def test_processes_that_end_sessions_at_once_undo_nothing_of_each_other(
    there: Installation,
) -> None:
    there.most = 100
    several = [there.started() for _ in range(4)]
    cookies = [several[0].begin("user", "ada") for _ in range(32)]
    sessions = [read(several[0], cookie) for cookie in cookies]
    together = threading.Barrier(len(several), timeout=10)

    def end(number: int) -> None:
        together.wait()
        for session in sessions[number :: len(several)]:
            several[number].end(session)

    with ThreadPoolExecutor(len(several)) as threads:
        list(threads.map(end, range(len(several))))
    for each in (*several, there.started()):
        assert [each.read(cookie) for cookie in cookies] == [None] * len(cookies)


def test_sessions_that_too_many_others_ended_are_over_in_a_process_that_ended_none(
    there: Installation,
) -> None:
    there.most = 3
    one, two = there.started(), there.started()
    cookies = [one.begin("user", "ada") for _ in range(6)]
    there.clock.advance(1)
    for cookie in cookies[:4]:
        one.end(read(one, cookie))
    assert [two.read(cookie) for cookie in cookies] == [None] * 6
    assert two.read(two.begin("user", "ben")) is not None


def test_what_could_not_be_written_is_with_the_next_that_is(
    there: Installation, tmp_path: Path
) -> None:
    one, two = there.started(), there.started()
    cookies = [one.begin("user", "ada") for _ in range(3)]
    file = tmp_path / "ended.json"
    file.mkdir()  # nothing can be read there, and nothing replaces it
    one.end(read(one, cookies[0]))
    assert one.read(cookies[0]) is None
    file.rmdir()
    two.end(read(two, cookies[1]))
    one.end(read(one, cookies[2]))
    for each in (one, two, there.started()):
        assert [each.read(cookie) for cookie in cookies] == [None] * 3


def test_too_many_logged_out_sessions_end_all_that_were_begun_before(there: Installation) -> None:
    there.most = 3
    sessions = there.started()
    cookies = [sessions.begin("user", "ada") for _ in range(5)]
    there.clock.advance(1)
    later = sessions.begin("user", "ben")
    for cookie in cookies[:4]:
        sessions.end(read(sessions, cookie))
    for each in (sessions, there.started()):
        assert [each.read(cookie) for cookie in cookies] == [None] * 5
        assert read(each, later).name == "ben"


def test_a_file_of_logged_out_sessions_that_cannot_be_read_ends_all_sessions(
    there: Installation, tmp_path: Path
) -> None:
    cookie = there.started().begin("user", "ada")
    there.clock.advance(1)
    (tmp_path / "ended.json").write_text('{"floor": "x"')
    sessions = there.started()
    assert sessions.read(cookie) is None
    assert sessions.read(sessions.begin("user", "ada")) is not None


def test_whatever_else_is_in_a_cookie_is_no_session(there: Installation) -> None:
    sessions = there.started()
    cookie = sessions.begin("user", "ada")
    value, stamp, signature = cookie.rsplit(".", 2)
    foreign = [
        "",
        ".",
        "..",
        "é€",
        cookie + "A",
        cookie[:-1],
        f"{value}.{stamp}",
        f"{value}.zzzzzzzzzzzzzzzz.{signature}",
        f".{value}.{stamp}.{signature}",
        cookie * 20,
        "x" * (MAX_COOKIE + 1),
    ]
    assert [sessions.read(each) for each in foreign] == [None] * len(foreign)
    assert sessions.read(cookie) is not None


def test_a_session_of_a_clock_that_was_ahead_does_not_count(there: Installation) -> None:
    ahead = Installation(Path("/nonexistent"))
    ahead.clock.advance(10 * HOUR)
    assert there.started().read(ahead.started().begin("user", "ada")) is None


def test_the_token_of_a_session_is_no_other_sessions(there: Installation) -> None:
    sessions = there.started()
    one, two = (read(sessions, sessions.begin("user", "ada")) for _ in range(2))
    assert sessions.csrf_token(one.id) != sessions.csrf_token(two.id)
    assert sessions.csrf_token(one.id) == there.started().csrf_token(one.id)


def settings_in(folder: Path, **admin: object) -> Settings:
    return Settings.model_validate({"data_dir": folder / "data", "admin": admin})


def test_a_key_is_made_once_and_is_its_owners_alone(tmp_path: Path) -> None:
    key = cookie_key(settings_in(tmp_path))
    assert len(key) == 64
    assert cookie_key(settings_in(tmp_path)) == key
    [file] = (tmp_path / "data").iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert cookie_key(settings_in(tmp_path, cookie_key="s" * 32)) == b"s" * 32


def test_a_key_that_others_may_read_or_that_is_too_short_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "key"
    settings = settings_in(tmp_path, cookie_key_file=file)
    with pytest.raises(CookieKeyError, match="No such file"):
        cookie_key(settings)
    file.write_text("f" * 40)
    file.chmod(0o640)
    with pytest.raises(CookieKeyError, match="may be read by others: chmod 600"):
        cookie_key(settings)
    file.chmod(0o600)
    assert cookie_key(settings) == b"f" * 40
    file.write_text("short")
    with pytest.raises(CookieKeyError, match="32 to 1000 bytes"):
        cookie_key(settings)
