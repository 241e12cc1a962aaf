"""Every command that the program advises works when it is pasted.

All of them come from `indexrelay.schemas.commands`; no other text names one. So it is enough to
parse what these functions give by the real command line, and to hold that no text goes around them.
"""

import ast
import inspect
import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.core import TyperGroup

from indexrelay.console.commands import COMMANDS, build_command, command_names, load
from indexrelay.console.terminal import Invocation
from indexrelay.schemas import commands
from tests.test_house import FOLDERS, ROOT

ARGUMENTS: dict[str, list[tuple[str | int, ...]]] = {
    "components": [("main_map",), ("main_map", "map_cache")],
    "name": [("main_map",)],
    "label": [("web-1",), ("a reader's; name",)],
    "number": [(42,)],
}
"""What the functions are called with, by the name of their argument."""


def advised() -> Iterator[str]:
    """Every command that `commands` can make."""
    for name, value in vars(commands).items():
        if name.isupper() and name != "PROGRAM":
            yield value
        elif inspect.isfunction(value) and not name.startswith("_"):
            yield from made_by(value)


def made_by(function: Callable[..., str]) -> Iterator[str]:
    """What one of the functions gives, with each of its flags."""
    first, *flags = inspect.signature(function).parameters
    for given in ARGUMENTS[first]:
        yield function(*given)
        yield from (function(*given, **{flag: True}) for flag in flags)


def texts(file: Path) -> Iterator[str]:
    """The texts in a file's code, docstrings left out, what f-strings fill in as a space."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    docstrings = {
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    for node in ast.walk(tree):
        if not isinstance(node, ast.Constant) or id(node) in docstrings:
            continue
        if isinstance(node.value, str):
            yield node.value


def parses(command: str) -> None:
    """Let the real command line take it, whose commands do nothing here.

    Raises:
        Exception: it is refused, as for an argument that is missing.
    """
    program, name, *words = shlex.split(command)
    assert program == commands.PROGRAM
    if name not in COMMANDS:
        build_command().main([name, *words], standalone_mode=False)
    called = load(name)
    called.callback = None
    for verb in called.commands.values() if isinstance(called, TyperGroup) else ():
        verb.callback = None
    called.main(words, prog_name=name, standalone_mode=False)


@pytest.mark.parametrize("command", sorted(set(advised())))
def test_an_advised_command_is_taken_by_the_command_line(command: str) -> None:
    parses(command)


@pytest.mark.parametrize("refused", ["indexrelay lift", "indexrelay dead retri", "indexrelay drop"])
def test_a_command_that_lacks_something_is_noticed(refused: str) -> None:
    with pytest.raises(Exception, match=r"(?i)missing|no such"):
        parses(refused)


def test_no_text_names_a_command_by_itself() -> None:
    verbs = "|".join(sorted({name.split()[0] for name in command_names()} | {"demo"}))
    named = re.compile(rf"\bindexrelay ({verbs})\b")
    found = [
        f"{file.relative_to(ROOT)}: {text}"
        for folder in FOLDERS
        for file in folder.rglob("*.py")
        if file.name != "commands.py" or file.parent.name != "schemas"
        for text in texts(file)
        if named.search(text)
    ]
    assert found == [], "use indexrelay.schemas.commands"


def test_a_command_is_shown_as_it_has_to_be_written_here() -> None:
    told = f"start one: {commands.UP}; mend it, then: {commands.rebuild('map', force=True)}"
    assert Invocation.of(["indexrelay", "status"]).adapt(told) == told
    for argv in (
        ["./bin/indexrelay", "status", "--config", "my conf.toml"],
        ["./bin/indexrelay", "status", "-c", "my conf.toml"],
        ["./bin/indexrelay", "status", "--config=my conf.toml"],
    ):
        assert Invocation.of(argv).adapt(told) == (
            "start one: ./bin/indexrelay up --config 'my conf.toml'; mend it, then: "
            "./bin/indexrelay rebuild --config 'my conf.toml' map --force"
        )
    shown = Invocation(config="x.toml").adapt(f"{commands.DEAD_LETTERS}, {commands.REBUILDER}")
    assert shown == "indexrelay dead list --config x.toml, indexrelay rebuilder --config x.toml"
    without = f"{commands.ADMIN_PASSWORD}; {commands.GENERATE_TOKEN}"  # they take no settings
    assert Invocation(config="x.toml").adapt(without) == without
    told = Invocation(program="./bin/indexrelay", config="x.toml").adapt(without)
    assert told == "./bin/indexrelay admin password; ./bin/indexrelay tokens generate"
