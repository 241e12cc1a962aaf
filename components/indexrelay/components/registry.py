"""Finds kinds by name, and checks definitions against them.

A kind is installed under an entry point of the group ``indexrelay.kinds``, as those of this package
are, or named as ``module:Class``. Its parameters are a model, so that mistakes in a table are
reported in the same words wherever the kind comes from.
"""

import importlib
from collections.abc import Collection, Iterator
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Final, cast

from pydantic import ValidationError

from indexrelay.components.conformance import class_mistakes
from indexrelay.components.errors import InvalidParametersError, KindNotFoundError
from indexrelay.components.kind import Kind
from indexrelay.schemas.diagnostics import describe_error
from indexrelay.schemas.errors import Mistake, mistakes_of, suggestion
from indexrelay.schemas.settings import ComponentDefinition
from indexrelay.schemas.settings_file import where_was_looked

GROUP: Final = "indexrelay.kinds"


@lru_cache(maxsize=256)
def kind_class(name: str) -> type[Kind[Any, Any]]:
    """The class of one kind. Found once in a process; safe to call from many threads.

    Raises:
        KindNotFoundError: nothing of that name is installed or importable, or it is no kind.
    """
    found = _imported(name) if ":" in name else _installed(name)
    if not (isinstance(found, type) and issubclass(found, Kind)):
        raise KindNotFoundError(name, f"{found!r} is not a class derived from Kind")
    return found


def kind_of(definition: ComponentDefinition) -> Kind[Any, Any]:
    """A kind with the definition's parameters, which are checked.

    Raises:
        KindNotFoundError: there is no such kind.
        InvalidParametersError: it does not take these parameters.
    """
    kind = kind_class(definition.kind)
    try:
        parameters = kind.Parameters.model_validate(definition.parameters)
    except ValidationError as error:
        found = mistakes_of(error, root="", model=kind.Parameters)
        raise InvalidParametersError(definition.kind, found) from error
    return kind(parameters)


def check_kind(
    name: str, definition: ComponentDefinition, components: Collection[str] = ()
) -> Iterator[Mistake]:
    """What is wrong with component ``name``: its kind, its inputs, its parameters.

    ``components`` are the names of all that are components; an input that is none is a collection.
    """
    root = f"components.{name}"
    try:
        kind = kind_class(definition.kind)
    except KindNotFoundError as error:
        yield Mistake(key=f"{root}.kind", value=definition.kind, right=error.reason)
        return
    limit = kind.max_inputs
    if limit is not None and len(definition.inputs) > limit:
        right = f"{definition.kind} is made from at most {limit}"
        yield Mistake(key=f"{root}.from", value=list(definition.inputs), right=right)
    for source in definition.inputs:
        if source in components and not kind.takes_components:
            right = f"{source} is a component; {definition.kind} is made from collections"
            yield Mistake(key=f"{root}.from", value=source, right=right)
    wrong = list(class_mistakes(kind))
    for right in wrong:
        yield Mistake(key=f"{root}.kind", value=definition.kind, right=right)
    if not wrong:
        yield from _parameter_mistakes(root, kind, definition)


def _parameter_mistakes(
    root: str, kind: type[Kind[Any, Any]], definition: ComponentDefinition
) -> Iterator[Mistake]:
    try:
        kind(kind.Parameters.model_validate(definition.parameters))
    except ValidationError as error:
        yield from mistakes_of(error, root=root, model=kind.Parameters)
    except Exception as error:  # noqa: BLE001 - the code of a user, its parameters as well
        right = f"{definition.kind} cannot be made with these keys: {describe_error(error)}"
        yield Mistake(key=f"{root}.kind", value=definition.kind, right=right)


def _installed(name: str) -> Any:
    # Two distributions may name a kind alike; sorted, every process takes the same one.
    installed: dict[str, EntryPoint] = {
        point.name: point
        for point in sorted(entry_points(group=GROUP), key=lambda point: point.value, reverse=True)
    }
    if name not in installed:
        raise KindNotFoundError(
            name, f"no such kind{suggestion(name, installed)}; another is named module:Class"
        )
    try:
        return installed[name].load()
    except (Exception, SystemExit) as error:  # a module may raise anything while it is imported
        reason = f"{installed[name].value} does not load: {describe_error(error)}"
        raise KindNotFoundError(name, reason) from error


def _imported(name: str) -> Any:
    module_name, _, attribute = name.partition(":")
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:  # a module may raise anything while it is imported
        reason = f"{module_name!r} cannot be imported: {describe_error(error)}"
        if isinstance(error, ModuleNotFoundError):
            reason += f" ({where_was_looked()})"
        raise KindNotFoundError(name, reason) from error
    try:
        return cast("object", getattr(module, attribute))
    except AttributeError:
        classes = (key for key, value in vars(module).items() if isinstance(value, type))
        raise KindNotFoundError(
            name, f"{module_name} has no {attribute!r}{suggestion(attribute, classes)}"
        ) from None
