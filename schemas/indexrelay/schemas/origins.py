"""The values of the settings by their keys, and where each comes from.

That is a line of the file, a variable, or the default.

Python's parser of TOML gives no lines. So the file is cut into statements here: lines are added to
one until the parser takes it. Then it is a whole ``[table]`` or ``key = value``, whose lists and
texts may go over several lines. What it declares has the line on which it begins.
"""

import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel

from indexrelay.schemas.definitions import ComponentDefinition
from indexrelay.schemas.errors import Mistake
from indexrelay.schemas.matrix import MATRIX

_HEADER: Final = re.compile(r"\s*\[")
_AT_LINE: Final = re.compile(r"\(at line (\d+), column \d+\)")
"""What the parser writes behind what it cannot read."""
Key = tuple[str, ...]


@dataclass(frozen=True)
class Origin:
    """Where one value comes from."""

    line: int | None = None
    """Of the file, from 1."""
    variable: str | None = None
    """The name of the variable."""

    def __str__(self) -> str:
        if self.variable is not None:
            return self.variable
        return "default" if self.line is None else f"line {self.line}"


DEFAULT: Final = Origin()
"""Neither the file nor a variable has it."""


@dataclass(frozen=True, kw_only=True)
class Origins:
    """What the file and the variables say, by the parts of each key."""

    file: Path | None = None
    """``None``: there is no file."""
    lines: Mapping[Key, int] = field(default_factory=dict)
    variables: Mapping[Key, str] = field(default_factory=dict)

    def of(self, key: Key) -> Origin:
        """Where the value of a key comes from; a component of a matrix comes from its table."""
        for known in (key, *self._in_matrix(key)):
            if known in self.variables:
                return Origin(variable=self.variables[known])
            if known in self.lines:
                return Origin(line=self.lines[known])
        return DEFAULT

    def nearest(self, key: Key) -> Origin:
        """The same; where the key is not given, the place of the table that it belongs into."""
        for length in range(len(key), 0, -1):
            found = self.of(key[:length])
            if found != DEFAULT:
                return found
        return DEFAULT

    def located(self, mistakes: Iterable[Mistake]) -> Iterator[Mistake]:
        """The same mistakes, each with the line or the variable that it is in."""
        for mistake in mistakes:
            at_line = _AT_LINE.search(mistake.right)
            if at_line is not None:
                yield replace(mistake, line=int(at_line[1]))
                continue
            found = self.nearest(tuple(mistake.key.split(".")))
            yield replace(mistake, line=found.line, variable=found.variable)

    def _in_matrix(self, key: Key) -> Iterator[Key]:
        """The same key in the table with a matrix that its component is written out from."""
        if len(key) < 2 or key[0] != "components":
            return
        for known in {**self.lines, **self.variables}:
            if known[0] != "components" or known[2:] != (MATRIX,):
                continue
            if key[1].startswith(f"{known[1]}_"):
                yield (*known[:2], *key[2:])
                yield (*known, *key[2:])


def lines_of(text: str) -> dict[Key, int]:
    """The line of each table and key of a file of TOML, by the parts of its name.

    Of what the parser refuses nothing is returned, and of a key that stands twice the last one.
    """
    found: dict[Key, int] = {}
    table: Key = ()
    begun, statement = 0, ""
    for number, line in enumerate(text.splitlines(), start=1):
        if not statement:
            if not line.strip() or line.lstrip().startswith("#"):
                continue
            begun = number
        statement += f"{line}\n"
        try:
            declared = tomllib.loads(statement)
        except tomllib.TOMLDecodeError:
            continue
        if _HEADER.match(statement):
            table = _innermost(declared)
            found[table] = begun
        else:
            found |= {(*table, *key): begun for key in keys_in(declared)}
        statement = ""
    return found


def _innermost(declared: Mapping[str, Any]) -> Key:
    """The name of the one table, or list of tables, that a header declares."""
    parts: Key = ()
    inner: Any = declared
    while isinstance(inner, Mapping) and inner:
        [(name, inner)] = inner.items()
        parts = (*parts, name)
    return parts


def keys_in(declared: Mapping[str, Any], above: Key = ()) -> Iterator[Key]:
    """Every table and key in a table, with the parts ``above`` it in front."""
    for name, value in declared.items():
        key = (*above, name)
        yield key
        if isinstance(value, Mapping):
            yield from keys_in(value, key)


def values_in(table: BaseModel, above: Key = ()) -> Iterator[tuple[Key, Any]]:
    """Every value of settings by the parts of its key, in the order of their models.

    What is no table of settings is one value: a filter, the fields that one may filter by, and each
    parameter of a kind.
    """
    for name, declared in type(table).model_fields.items():
        value, key = getattr(table, name), (*above, declared.alias or name)
        if isinstance(table, ComponentDefinition) and name == "parameters":
            yield from (((*above, own), given) for own, given in value.items())
        elif isinstance(value, BaseModel):
            yield from values_in(value, key)
        elif isinstance(value, Mapping) and any(
            isinstance(each, BaseModel) for each in value.values()
        ):
            for inner, each in value.items():
                yield from values_in(each, (*key, inner))
        else:
            yield key, value


def changed_keys(before: BaseModel, after: BaseModel) -> list[str]:
    """The dotted keys, in order, whose values are not the same in both, or are in one only."""
    former, later = dict(values_in(before)), dict(values_in(after))
    return [
        ".".join(key)
        for key in dict.fromkeys((*former, *later))
        if key not in former or key not in later or former[key] != later[key]
    ]
