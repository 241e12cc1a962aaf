"""Finds what JSON cannot express in a value, and where it stands.

It checks every JSON value that comes in: the payload of a batch, the payload text of a table or a
folder, the document of a JSON cache. An encoder says only *that* something is wrong; a user wants
to know where, and what to give instead. So after a refusal, and only then, the value is walked, and
the first offence named by its path: ``$.years[3]: numpy.int64``.
"""

import dataclasses
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

MAX_PATH: Final = 200
"""Characters of a path that are shown: it may go through a thousand brackets."""

_INSTEAD: Final = {
    "builtins.bytes": "value.decode(), or base64",
    "builtins.bytearray": "value.decode(), or base64",
    "builtins.memoryview": "value.tolist()",
    "builtins.set": "sorted(value)",
    "builtins.frozenset": "sorted(value)",
    "builtins.complex": "[value.real, value.imag]",
    "datetime.date": "value.isoformat()",
    "datetime.time": "value.isoformat()",
    "datetime.timedelta": "value.total_seconds()",
    "decimal.Decimal": "float(value), or str(value)",
    "fractions.Fraction": "float(value), or str(value)",
    "enum.Enum": "value.value",
    "numpy.datetime64": "str(value)",
    "numpy.timedelta64": "str(value)",
    "numpy.generic": "value.item()",
    "numpy.ma.core.MaskedArray": "None for what is masked",
    "numpy.ma.MaskedArray": "None for what is masked",
    "numpy.ndarray": "value.tolist()",
    "pandas._libs.missing.NAType": "None",
    "pandas._libs.tslibs.nattype.NaTType": "None",
    "pathlib.PurePath": "str(value)",
    "pathlib._local.PurePath": "str(value)",
    "pydantic.main.BaseModel": 'value.model_dump(mode="json")',
    "uuid.UUID": "str(value)",
}
"""By a class or one of its bases: named, so that nothing has to be imported to know them."""


@dataclass(frozen=True, kw_only=True)
class Offence:
    """One place in a value that JSON cannot express."""

    path: str
    """From the root: ``$.points[3].x``."""
    reason: str
    """What stands there, and what to give instead."""

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


def first_offence(value: Any, *, max_depth: int | None = None) -> Offence | None:
    """The first place in ``value`` that JSON cannot express; ``None``: there is none.

    Args:
        value: anything.
        max_depth: levels of lists and objects that there may be; ``None``: any number.
    """
    # Without recursion, as it may be deep.
    pending: list[tuple[Any, str, frozenset[int]]] = [(value, "$", frozenset())]
    while pending:
        part, path, above = pending.pop()
        if id(part) in above:
            return _offence(path, "it contains itself")
        reason = _refusal(part)
        if reason is not None:
            return _offence(path, reason)
        if isinstance(part, dict | list | tuple):
            if max_depth is not None and len(above) >= max_depth:
                return _offence(path, f"nested deeper than {max_depth} levels")
            below = above | {id(part)}
            pending.extend((inner, place, below) for inner, place in _parts(part, path))
    return None


def has_half_character(text: str) -> bool:
    """Whether half a surrogate pair is in it, which has no UTF-8."""
    if text.isascii():
        return False
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def _offence(path: str, reason: str) -> Offence:
    if len(path) > MAX_PATH:
        path = f"{path[:MAX_PATH]}…"
    return Offence(path=path.encode(errors="backslashreplace").decode(), reason=reason)


def _parts(value: dict[Any, Any] | list[Any] | tuple[Any, ...], path: str) -> list[tuple[Any, str]]:
    """What is inside, last first: the walk takes from the end."""
    if isinstance(value, dict):
        found = [(part, f"{path}.{key}") for key, part in value.items()]
    else:
        found = [(part, f"{path}[{index}]") for index, part in enumerate(value)]
    return found[::-1]


def _refusal(value: Any) -> str | None:
    """Why JSON cannot express this one value, without its parts; ``None``: it can."""
    match value:
        case None | bool() | list() | tuple():
            return None
        case int():
            return _refused_number(value)
        case float():
            return None if math.isfinite(value) else f"{value} has no place in JSON; give None"
        case str():
            return f"{value!r:.80} holds half a character" if has_half_character(value) else None
        case dict():
            return next(_refused_keys(value), None)
        case _:
            return f"{_name(type(value))} is no JSON type; give {_instead(value)}"


def _refused_number(value: int) -> str | None:
    try:
        int.__repr__(value)
    except ValueError:  # and Python would not read it back
        return "a whole number of thousands of digits; give a text"
    return None


def _refused_keys(value: dict[Any, Any]) -> Iterator[str]:
    for key in value:
        if not isinstance(key, str):
            yield f"the key {key!r:.80} is not a string; give str(key)"
        elif has_half_character(key):
            yield f"the key {key!r:.80} holds half a character"


def _instead(value: object) -> str:
    """What to give in place of ``value``."""
    for base in type(value).__mro__:
        known = _INSTEAD.get(_name(base))
        if known is not None:
            return known
    if dataclasses.is_dataclass(value):
        return "dataclasses.asdict(value)"
    if isinstance(value, Mapping):
        return "dict(value)"
    if hasattr(value, "__iter__"):
        return "list(value)"
    return "a text, a number, a list or a dict"


def _name(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"
