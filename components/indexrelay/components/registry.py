"""Finds a kind by its name: an entry point of the group ``indexrelay.kinds``, or ``module:Class``.

A new kind needs nothing else: no list here names the kinds that there are. Only what a user's own
settings name, or what is installed, is ever imported.
"""

import importlib
import re
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Final

from pydantic import ValidationError

from indexrelay.components.errors import InvalidParametersError, KindNotFoundError
from indexrelay.components.kind import Kind
from indexrelay.schemas.definitions import ComponentDefinition
from indexrelay.schemas.mistakes import Mistake, mistakes_of, suggestion

GROUP: Final = "indexrelay.kinds"
_PATH: Final = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")


def installed_kinds() -> dict[str, EntryPoint]:
    """The kinds that installed distributions offer, by name."""
    return {point.name: point for point in entry_points(group=GROUP)}


@cache
def kind_class(name: str) -> type[Kind[Any]]:
    """The class of a kind.

    Raises:
        KindNotFoundError: no such entry point, no such module or class, or not a `Kind`.
    """
    found = _import_path(name) if ":" in name else _load_installed(name)
    if not (isinstance(found, type) and issubclass(found, Kind)):
        raise KindNotFoundError(name, "it is not a class derived from indexrelay's Kind")
    return found


def kind_of(definition: ComponentDefinition) -> Kind[Any]:
    """The kind of a component, with its parameters.

    Raises:
        KindNotFoundError: there is no such kind.
        InvalidParametersError: its keys are not what the kind takes.
    """
    found = kind_class(definition.kind)
    try:
        return found(found.Parameters.model_validate(definition.parameters))
    except ValidationError as error:
        mistakes = mistakes_of(error, root="", model=found.Parameters)
        raise InvalidParametersError(definition.kind, mistakes) from error


def check_kind(name: str, definition: ComponentDefinition) -> Iterable[Mistake]:
    """The mistakes in one component's ``kind`` and in the keys that belong to it."""
    return tuple(_mistakes(f"components.{name}", definition))


def _mistakes(root: str, definition: ComponentDefinition) -> Iterator[Mistake]:
    try:
        found = kind_class(definition.kind)
    except KindNotFoundError as error:
        yield Mistake(key=f"{root}.kind", value=definition.kind, right=error.reason)
        return
    try:
        found.Parameters.model_validate(definition.parameters)
    except ValidationError as error:
        yield from mistakes_of(error, root=root, model=found.Parameters)


def _load_installed(name: str) -> object:
    installed = installed_kinds()
    if name not in installed:
        raise KindNotFoundError(name, "no such kind" + suggestion(name, installed))
    try:
        return installed[name].load()
    except (ImportError, AttributeError) as error:
        raise KindNotFoundError(name, f"it cannot be imported: {error}") from error


def _import_path(path: str) -> object:
    if _PATH.fullmatch(path) is None:
        raise KindNotFoundError(path, "a kind of your own is written module:Class")
    module, _, name = path.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise KindNotFoundError(path, f"it cannot be imported: {error}") from error
