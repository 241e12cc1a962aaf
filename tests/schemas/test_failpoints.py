"""The points themselves: where they are, what they cost, and what an armed one does."""

import json
import re
import signal
import subprocess
import sys
import timeit
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from indexrelay.schemas import failpoints
from indexrelay.schemas.failpoints import FAILPOINTS, VARIABLE, FailpointError, arm, failpoint
from tests.fixtures.stopped import is_stopped

ROOT = Path(__file__).parents[2]
POINT = "release.before_link"


@pytest.fixture(autouse=True)
def _disarmed() -> Iterator[None]:
    yield
    arm({})


def armed_with(**action: Any) -> dict[str, str]:
    return {VARIABLE: json.dumps({POINT: action}, default=str)}


def run_to_the_point(times: int = 1, **action: Any) -> subprocess.Popen[str]:
    script = (
        "import os\n"
        "from indexrelay.schemas.failpoints import arm, failpoint\n"
        "arm(os.environ)\n"
        f"for _ in range({times}): failpoint({POINT!r}); print('past', flush=True)\n"
    )
    return subprocess.Popen(
        [sys.executable, "-c", script], env=armed_with(**action), stdout=subprocess.PIPE, text=True
    )


def test_every_point_is_in_one_place_and_every_place_is_a_point() -> None:
    placed = Counter(
        name
        for file in ROOT.glob("*/indexrelay/**/*.py")
        if not {".venv", "tests"} & set(file.relative_to(ROOT).parts)
        for name in re.findall(r'\bfailpoint\("([^"]+)"\)', file.read_text(encoding="utf-8"))
    )
    assert placed == Counter(FAILPOINTS)


def test_nothing_is_armed_without_the_variable() -> None:
    arm({})
    assert not failpoints._armed
    seconds = min(timeit.repeat(lambda: failpoint(POINT), number=10_000, repeat=5)) / 10_000
    assert seconds < 2e-6


def test_a_point_that_is_armed_to_raise_raises_each_time() -> None:
    arm(armed_with(do="raise"))
    for _ in range(2):
        with pytest.raises(FailpointError, match=POINT):
            failpoint(POINT)
    failpoint("release.after_link")


def test_only_the_hit_that_was_named_counts() -> None:
    arm(armed_with(do="raise", hit=2))
    failpoint(POINT)
    with pytest.raises(FailpointError):
        failpoint(POINT)
    failpoint(POINT)


def test_a_token_is_taken_once_and_not_before_it_is_there(tmp_path: Path) -> None:
    token = tmp_path / "token"
    arm(armed_with(do="raise", token=token))
    failpoint(POINT)
    token.touch()
    with pytest.raises(FailpointError):
        failpoint(POINT)
    assert not token.exists()
    failpoint(POINT)


def test_a_kill_leaves_no_time_for_anything() -> None:
    process = run_to_the_point(times=3, do="kill", hit=2)
    said, _ = process.communicate(timeout=30)
    assert (said, process.returncode) == ("past\n", -signal.SIGKILL)


def test_a_stopped_process_goes_on_after_sigcont(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.touch()
    process = run_to_the_point(do="stop", token=token)
    while not is_stopped(process.pid):
        assert process.poll() is None
    process.send_signal(signal.SIGCONT)
    assert process.communicate(timeout=30)[0] == "past\n"


@pytest.mark.parametrize("key", ["until_there", "until_gone"])
def test_a_waiting_process_goes_on_when_the_file_came_or_went(tmp_path: Path, key: str) -> None:
    file, token = tmp_path / "file", tmp_path / "token"
    token.touch()
    if key == "until_gone":
        file.touch()
    action: dict[str, Any] = {"do": "wait", "token": token, key: file}
    process = run_to_the_point(**action)
    while token.exists():  # it is there as soon as it has taken the token
        assert process.poll() is None
    if key == "until_gone":
        file.unlink()
    else:
        file.touch()
    assert process.communicate(timeout=30)[0] == "past\n"


@pytest.mark.parametrize(
    ("name", "action"),
    [
        ("release.before_lunch", {"do": "kill"}),
        (POINT, {"do": "sulk"}),
        (POINT, {"do": "kill", "times": 2}),
        (POINT, {"do": "wait"}),
    ],
)
def test_what_does_not_exist_is_not_armed(name: str, action: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=VARIABLE):
        arm({VARIABLE: json.dumps({name: action})})
