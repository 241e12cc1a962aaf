"""A reader in a forked worker: its own thread, name and sockets, and no search that hangs.

Each test starts a program of its own, since a test process that forks takes much along.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


def _forked(*arguments: object) -> Any:
    program = [sys.executable, "-m", "tests.reloaders.fork_program", *map(str, arguments)]
    ended = subprocess.run(program, cwd=ROOT, capture_output=True, timeout=120, check=False)
    assert ended.returncode == 0, ended.stderr.decode()
    return json.loads(ended.stdout)


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory, redis_url: str) -> Any:
    return _forked(tmp_path_factory.mktemp("forking"), redis_url)


def test_a_child_serves_what_it_inherited_and_follows_by_itself(output: Any) -> None:
    assert output["child"]["inherited"] == "v1"
    assert output["child"]["served"] == {"voyager": "v2"}
    assert output["child"]["ready"]


def test_a_batch_search_in_the_child_does_not_hang(output: Any) -> None:
    assert output["child"]["batch"] == 256
    assert output["child"]["threads"] == 1


def test_parent_and_child_are_two_readers_under_one_id(output: Any) -> None:
    assert output["child"]["reader"] == "web"
    assert output["present"] == sorted({output["member"], output["child"]["member"]})
    assert len(output["present"]) == 2


def test_the_parent_goes_on(output: Any) -> None:
    assert output["parent"] == {"voyager": "v2"}
