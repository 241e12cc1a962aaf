"""Every mistake in the settings at once, each with its key, its value and what would be right."""

import difflib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError

from indexrelay.schemas.errors import IndexRelayError
from indexrelay.schemas.names import IDENTIFIER_PATTERN, NAME_PATTERN
from indexrelay.schemas.redaction import redacted

_SHAPES = {
    "dict_type": "a table",
    "model_type": "a table",
    "model_attributes_type": "a table",
    "tuple_type": "a list",
    "string_type": "a text",
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "float_parsing": "a number",
    "float_type": "a number",
    "int_parsing": "a whole number",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "path_type": "a path, as text",
}
"""What pydantic calls by Python's names, in TOML's."""


@dataclass(frozen=True, kw_only=True)
class Mistake:
    """One thing that is wrong in the settings."""

    key: str
    """Dotted, as one would write it in TOML: ``collections.tracks.dimension``."""
    value: Any
    right: str
    """What would be right."""

    def __post_init__(self) -> None:
        # Here, so that no way of finding a mistake can show a password: not even one in a key.
        shown = redacted(self.value, key=self.key.split("."))
        object.__setattr__(self, "value", shown)
        object.__setattr__(self, "key", redacted(self.key, key=()))

    def __str__(self) -> str:
        return f"{self.key} = {self.value!r}: {self.right}"


class SettingsError(IndexRelayError):
    """Raised when the settings hold mistakes; ``mistakes`` lists every one of them."""

    def __init__(self, mistakes: Iterable[Mistake], *, origin: str) -> None:
        self.mistakes = tuple(mistakes)
        self.origin = origin
        lines = "\n".join(f"  {mistake}" for mistake in self.mistakes)
        super().__init__(f"{origin}: {len(self.mistakes)} mistake(s)\n{lines}")


def mistakes_of(error: ValidationError, *, root: str, model: type[BaseModel]) -> Iterator[Mistake]:
    """Turn what pydantic found into mistakes; ``root`` is the dotted key that it looked at."""
    for item in error.errors(include_url=False):
        parts = [str(part) for part in item["loc"] if part != "[key]"]
        parts = [*(root.split(".") if root else []), *_written(parts)]
        value = item["input"]
        match item["type"]:
            case "missing":
                value = None
            case "extra_forbidden":
                value = redacted(value, key=parts, unknown=True)
            case "union_tag_invalid" | "union_tag_not_found":
                parts.append("kind")
                value = item["ctx"].get("tag")
        yield Mistake(key=".".join(parts), value=value, right=_right(item, model))


def _written(parts: list[str]) -> list[str]:
    """The parts of a location that somebody wrote.

    A tagged union puts its tag behind ``source``; a kind's own keys stand beside the common ones
    in TOML, and under ``parameters`` in the model.
    """
    return [
        part
        for i, part in enumerate(parts)
        if not (i and parts[i - 1] == "source")
        and not (part == "parameters" and i == 2 and parts[0] == "components")
    ]


def _right(item: Any, model: type[BaseModel]) -> str:
    """What would be right instead of what pydantic refused."""
    context = item.get("ctx", {})
    match item["type"]:
        case "extra_forbidden":
            return "no such key" + suggestion(str(item["loc"][-1]), _keys_beside(item, model))
        case "missing":
            return "this key must be given"
        case "string_pattern_mismatch" if context.get("pattern") == NAME_PATTERN:
            return (
                "a name starts with a lower-case letter and has at most 64 "
                "lower-case letters, digits and underscores"
            )
        case "string_pattern_mismatch" if context.get("pattern") == IDENTIFIER_PATTERN:
            return (
                "the name of a table or column starts with a letter or underscore and has at most "
                "63 letters, digits and underscores"
            )
        case "union_tag_invalid":
            return f"must be one of {context['expected_tags']}"
        case "union_tag_not_found":
            return "must be given: 'catalog', 'table' or 'folder'"
        case kind if kind in _SHAPES:
            return f"must be {_SHAPES[kind]}"
        case _:
            return _sentence(item["msg"])


def _sentence(message: str) -> str:
    """pydantic's own sentence, as the end of one of ours."""
    message = message.removeprefix("Value error, ")
    message = message.replace("Input should be", "must be").replace("Input", "it")
    # Only the first letter: what follows may be a pattern or a name.
    return message[:1].lower() + message[1:]


def _keys_beside(item: Any, model: type[BaseModel]) -> list[str]:
    """The keys that the table with the unknown one does know."""
    table: Any = model
    for part in item["loc"][:-1]:
        table = _inside(table, part)
    fields = getattr(table, "model_fields", {})
    return [field.alias or name for name, field in fields.items()]


def _inside(annotation: Any, part: Any) -> Any:
    """What stands at ``part``: a model's field, a table's value, or the union's member of a tag."""
    fields = getattr(annotation, "model_fields", None)
    if fields is not None:
        return fields[part].annotation if part in fields else None
    arguments = get_args(annotation)
    if get_origin(annotation) is dict:
        return arguments[1]
    tagged = (member for member in arguments if part in get_args(_inside(member, "kind")))
    return next(tagged, None)


def suggestion(word: str, known: Iterable[str]) -> str:
    """``"; did you mean …?"`` for a near miss, else the list of what there is."""
    choices = sorted(name for name in known if redacted(name, key=()) == name)
    near = difflib.get_close_matches(word, choices, n=1)
    if near:
        return f"; did you mean {near[0]!r}?"
    return f"; there is {', '.join(choices)}" if choices else "; there is none"
