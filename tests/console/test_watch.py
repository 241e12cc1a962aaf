"""Looking again and again: what has become of a page, and a look that fails."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import typer
from rich.text import Text

from indexrelay.console import watch
from indexrelay.console.errors import CommandError
from indexrelay.console.watch import PERIOD_SECONDS, show_again
from tests.console.conftest import Run


class Waits:
    """Ends by Ctrl-C after some waits."""

    def __init__(self, times: int) -> None:
        self.seconds: list[float] = []
        self._times = times

    def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)
        if len(self.seconds) >= self._times:
            raise KeyboardInterrupt


def test_each_look_is_shown_until_ctrl_c_and_one_that_fails_says_why(
    capsys: pytest.CaptureFixture[str],
) -> None:
    looks = iter(["first", "", "third"])

    def page() -> Text:
        look = next(looks)
        if not look:
            raise CommandError("not now")
        return Text(look)

    waits = Waits(3)
    with pytest.raises(KeyboardInterrupt):
        show_again(page, json=False, wait=waits)
    assert capsys.readouterr().out.split("\n")[:3] == ["first", "error: not now", "third"]
    assert waits.seconds == [PERIOD_SECONDS] * 3


def test_a_fault_of_the_program_is_not_looked_at_again() -> None:
    with pytest.raises(ZeroDivisionError):
        show_again(lambda: Text(str(1 // 0)), json=False, wait=Waits(1))


def test_a_document_is_not_watched() -> None:
    with pytest.raises(typer.BadParameter, match="leave out --json"):
        show_again(Text, json=True, wait=Waits(1))


@pytest.mark.parametrize(
    "words",
    [
        "status",
        "monitor health",
        "monitor alerts",
        "readers list",
        "components list",
        "collections list",
        "schedule list",
    ],
)
def test_a_command_where_looking_again_is_natural_watches(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: str
) -> None:
    config = tmp_path / "indexrelay.toml"
    config.write_text("[collections.tracks]\ndimension = 3\n")
    own = SimpleNamespace(Event=lambda: SimpleNamespace(wait=Waits(2)))
    monkeypatch.setattr(watch, "threading", own)  # of no other thread of the tests
    said = run(*words.split(), "--watch", "--config", str(config))
    assert said.code == 130
    assert run(*words.split(), "--watch", "--json", "--config", str(config)).code == 2
