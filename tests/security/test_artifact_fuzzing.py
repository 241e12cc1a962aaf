"""Hostile versions of every kind end as corruption or as an answer, in time, and end nobody.

Each has the right digests: its content is hostile while its name is right. A reader in a process of
its own meets one after the other. For how long, `tests.security.fuzzing` says: together the kinds
take the time of one fuzzer.
"""

import json
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.security.artifacts.versions import RECIPES
from tests.security.fuzzing import MINUTES, seeds

OF_EACH_KIND = 200
SECONDS = 15.0
"""For one version, opened and asked; the sandbox has five of them, a query two (`victim`)."""
KINDS = sorted({recipe.name for recipe in RECIPES.values()})
ROOT = Path(__file__).parents[2]


@pytest.mark.timeout(120 + 90 * MINUTES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_hostile_version_is_corrupt_or_answers_and_the_reader_lives(kind: str) -> None:
    names = [name for name, recipe in RECIPES.items() if recipe.name == kind]
    ends_at = time.monotonic() + 60 * MINUTES / len(KINDS)
    outcomes: Counter[str] = Counter()
    for seed in seeds(1):
        outcomes += met(names, seed=seed, count=-(-OF_EACH_KIND // len(names)))
        if time.monotonic() > ends_at:
            break
    assert outcomes.total() >= OF_EACH_KIND
    # Of files that nobody would take, and of changes that one cannot see, nothing is learned.
    assert outcomes["corrupt"] + outcomes["corrupt when asked"] > outcomes.total() / 3, outcomes
    assert outcomes["answered"] > outcomes.total() / 20, outcomes


def met(names: list[str], *, seed: int, count: int) -> Counter[str]:
    """What came of ``count`` of each, every one of which came to something allowed, in time."""
    asked = [",".join(names), str(seed), str(count)]
    done = subprocess.run(
        [sys.executable, "-m", "tests.security.artifacts.victim", *asked],
        cwd=ROOT,
        env={**os.environ, "PYTHONWARNINGS": "error"},
        capture_output=True,
        check=False,
        text=True,
        timeout=60 + SECONDS * count,
    )
    again = f"python -m tests.security.artifacts.victim NAME {seed} {count} NUMBER"
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    last = lines[-1] if lines else "nothing"
    assert done.returncode == 0, (again, last, done.returncode, done.stderr[-2000:])
    hows = {(line["name"], line["number"]): line["how"] for line in lines if "how" in line}
    ends = [line for line in lines if "outcome" in line]
    assert len(ends) == len(hows) == count * len(names)
    wrong = [
        (again, hows[line["name"], line["number"]], line)
        for line in ends
        if line["seconds"] > SECONDS or _sort(line) == "raised"
    ]
    assert wrong == []
    return Counter(map(_sort, ends))


def _sort(line: dict[str, Any]) -> str:
    outcome: str = line["outcome"]
    return outcome.partition(":")[0]
