"""The page of guarantees names what exists, and the check says so when it does not."""

import subprocess
import sys
from pathlib import Path

import pytest

from faults.scenarios import SCENARIOS
from scripts.check_guarantees import PAGE, ROOT, mistakes_in, promises_of

PROMISE = """# Guarantees

## Changes

### Nothing is lost
It is never lost.

- Rests on: `somewhere/else.py::test_that_is_no_proof`, and F99.
- Proved by: F1,
  `tests/test_it.py::test_it_is_kept`, `tests/test_it.py::test_it_comes_back`

### Nothing comes twice
- Proved by: `tests/test_it.py::TestIt`, F2
"""
TESTS = """
class TestIt:
    def test_it_is_kept(self): ...

    async def test_it_comes_back(self): ...

    def helps(self): ...

def test_once(): ...
"""
FAULTS = ("F1", "F2")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_it.py").write_text(TESTS)
    return tmp_path


def test_every_promise_is_proved_by_what_exists() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert list(mistakes_in(page, root=ROOT, faults=SCENARIOS)) == []
    assert len(list(promises_of(page))) >= 20


def test_proofs_are_read_from_their_own_line_only() -> None:
    first, _ = promises_of(PROMISE)
    assert first.title == "Nothing is lost"
    assert first.faults == ("F1",)
    assert [name for _, name in first.tests] == ["test_it_is_kept", "test_it_comes_back"]


def test_what_is_proved_outside_of_a_promise_is_a_mistake(checkout: Path) -> None:
    outside = GOOD.replace("### Nothing comes twice", "## Nothing comes twice")
    assert list(mistakes_in(outside, root=checkout, faults=("F1",))) == [
        "something is proved outside of a promise, which is a heading of the third level"
    ]


GOOD = PROMISE.replace("::TestIt", "::test_once")


@pytest.mark.parametrize(
    ("before", "after", "mistake"),
    [
        ("", "", None),
        ("::test_once", "::test_twice", "comes twice: there is no tests/test_it.py::test_twice"),
        ("::test_once", "::helps", "comes twice: there is no tests/test_it.py::helps"),
        ("::test_once", "::TestIt", "comes twice: there is no tests/test_it.py::TestIt"),
        (
            "`tests/test_it.py::test_once`",
            "`tests/gone.py::test_once`",
            "comes twice: there is no tests/gone.py::test_once",
        ),
        (", F2", ", F2, F98", "comes twice: there is no fault F98"),
        (", F2", "", "fault F2 proves no promise"),
        (
            "- Proved by: `tests/test_it.py::test_once`, F2",
            "- Rests on: hope\n\n### A third\n- Proved by: F2",
            "comes twice: nothing proves it",
        ),
        ("###", "##", "the page promises nothing"),
    ],
)
def test_the_check_finds(checkout: Path, before: str, after: str, mistake: str | None) -> None:
    page = GOOD.replace(before, after) if before else GOOD
    found = list(mistakes_in(page, root=checkout, faults=FAULTS))
    if mistake is None:
        assert found == []
    else:
        assert any(mistake in each for each in found), found


@pytest.mark.parametrize("renamed", [False, True])
def test_make_fails_when_a_test_that_proves_something_was_renamed(
    tmp_path: Path, renamed: bool
) -> None:
    page = tmp_path / "guarantees.md"
    text = PAGE.read_text(encoding="utf-8")
    first = next(promises_of(text)).tests[0][1]
    page.write_text(text.replace(first, f"{first}_no_more") if renamed else text, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "scripts.check_guarantees", str(page)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == int(renamed), done.stderr
    assert (f"{first}_no_more" in done.stderr) is renamed
