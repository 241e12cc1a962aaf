"""What a user's own code raised is told with the lines that it came from, and with no value."""
# ruff: noqa: E501 - sentences as they are printed

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from indexrelay.components.errors import DocumentFunctionError
from indexrelay.components.json_cache.kind import call_function
from indexrelay.schemas.diagnostics import describe_error

MODULE = """
import json

PASSWORD = "a local value"


def genre_of(payload):
    return payload["genre"]


def make(inputs, *, password="hunter2"):
    secret_thing = "never shown"
    return [genre_of(row) for row in inputs.values()]


def parse(inputs):
    return json.loads("{")


def connect(inputs):
    raise OSError("no route to postgresql://me:hunter2@host/db")


def log_in(inputs):
    return dict(password="hunter2", user=inputs["nobody"])


def wrap(inputs):
    try:
        genre_of({})
    except KeyError as error:
        raise RuntimeError("bad row") from error


def deep(inputs, left=50):
    return deep(inputs, left - 1) if left else 1 / 0


class Kind:
    def build(self, inputs):
        return genre_of({})
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    (tmp_path / "my_functions.py").write_text(MODULE)
    (tmp_path / "half.py").write_text("def make(inputs:\n    return 1\n")
    (tmp_path / "raising.py").write_text('DSN = "redis://:hunter2@host"\nraise LookupError(DSN)\n')
    (tmp_path / "leaving.py").write_text("import sys\n\nsys.exit('no licence')\n")
    (tmp_path / "importing.py").write_text("import there_is_no_such_module\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield "my_functions"
    for name in ("my_functions", "half", "raising", "leaving", "importing"):
        sys.modules.pop(name, None)


def sentence(function: str, **arguments: object) -> str:
    try:
        call_function(function, {"tracks": {"title": "x"}}, arguments)
    except Exception as error:  # noqa: BLE001 - that it raises is what is looked at
        return describe_error(error)
    raise AssertionError("it raised nothing")


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (
            "make",
            (
                "KeyError: 'genre' (my_functions.py:8 in genre_of: return payload[\"genre\"]"
                " ← my_functions.py:13 in make.<locals>.<listcomp>: return [genre_of(row) for row in"
                " inputs.values()] ← my_functions.py:13 in make: return [genre_of(row) for row in"
                " inputs.values()])"
            ),
        ),
        (
            "parse",
            (
                "JSONDecodeError: Expecting property name enclosed in double quotes: line 1 column 2"
                ' (char 1) (my_functions.py:17 in parse: return json.loads("{"))'
            ),
        ),
        (
            "connect",
            (
                "OSError: no route to postgresql://(hidden)@host/db (my_functions.py:21 in connect: "
                'raise OSError("no route to postgresql://(hidden)@host/db"))'
            ),
        ),
        (
            "log_in",
            "KeyError: 'nobody' (my_functions.py:25 in log_in: return dict(password=(hidden)",
        ),
        ("wrap", "RuntimeError: bad row (my_functions.py:32 in wrap: raise RuntimeError("),
        ("deep", "ZeroDivisionError: division by zero (my_functions.py:36 in deep: return deep("),
    ],
)
def test_an_error_names_the_last_lines_of_the_users_own_code(
    module: str, function: str, said: str
) -> None:
    found = sentence(f"{module}:{function}")
    if sys.version_info >= (3, 12):  # comprehensions have no frame of their own any more
        said = said.split(" ← my_functions.py:13 in make.<locals>", maxsplit=1)[0]
    assert found.startswith(said)
    assert "hunter2" not in found
    assert found.count(".py:") <= 3
    assert len(found.splitlines()) == 1


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("half", "half.py:1 in <module>: def make(inputs:"),
        ("raising", "LookupError: redis://(hidden)@host (raising.py:2 in <module>: raise Look"),
        ("leaving", "SystemExit: no licence (leaving.py:3 in <module>: sys.exit('no licence'))"),
        ("importing", "No module named 'there_is_no_such_module' (importing.py:1 in <module>"),
    ],
)
def test_a_module_that_cannot_be_imported_is_described_with_its_line(
    module: str, name: str, said: str
) -> None:
    with pytest.raises(DocumentFunctionError) as caught:
        call_function(f"{name}:make", {}, {})
    assert said in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_errors_of_ours_or_of_a_library_are_described_without_frames() -> None:
    with pytest.raises(ModuleNotFoundError) as caught:
        importlib.import_module("there_is_no_such_module.at_all")
    caught.value.__traceback__ = None
    assert (
        describe_error(caught.value)
        == "ModuleNotFoundError: No module named 'there_is_no_such_module'"
    )
    assert describe_error(ValueError()) == "ValueError"
    assert describe_error(ValueError("two\nlines")) == "ValueError: two lines"


def test_an_error_whose_message_cannot_be_read_is_named_all_the_same() -> None:
    class UnreadableError(Exception):
        def __str__(self) -> str:
            raise KeyError("template")

    said = describe_error(UnreadableError())
    assert said == "UnreadableError: its message cannot be read (KeyError)"
