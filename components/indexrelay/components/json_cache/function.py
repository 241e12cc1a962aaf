"""Finds the function that makes the document, and calls it.

It is resolved when a version is built, in the build's own process: readers never import it, so a
reader host needs none of what it imports.
"""

import importlib
import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any

from indexrelay.components.errors import DocumentFunctionError
from indexrelay.schemas.origin import told
from indexrelay.schemas.user_modules import where_was_looked

_NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")


def check_function_name(name: str) -> str:
    """Return ``name`` if it is ``module:function``, both as Python spells them.

    Raises:
        ValueError: it is not.
    """
    if _NAME.fullmatch(name) is None:
        raise ValueError("a function is written module:function")
    return name


def resolve_function(name: str) -> Callable[..., Any]:
    """Import the function called ``name`` (``module:function``).

    Raises:
        DocumentFunctionError: the module cannot be imported, or has no such function.
    """
    module_name, _, attribute = name.partition(":")
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:  # a module may raise anything while it is imported
        reason = f"{module_name} cannot be imported: {told(error)}"
        if isinstance(error, ModuleNotFoundError):
            reason += f" ({where_was_looked()})"
        raise DocumentFunctionError(name, reason) from error
    function = getattr(module, attribute, None)
    if not callable(function):
        raise DocumentFunctionError(name, f"{module_name} has no function {attribute!r}")
    return function  # type: ignore[no-any-return] # callable() narrows to an unknown signature


def call_function(name: str, inputs: Mapping[str, Any], arguments: Mapping[str, Any]) -> Any:
    """Call ``name(inputs, **arguments)`` and hand back the document.

    Whatever the function raises of its own goes through as it is.

    Raises:
        DocumentFunctionError: it cannot be found, or does not take these arguments.
    """
    function = resolve_function(name)
    try:
        inspect.signature(function).bind(inputs, **arguments)
    except TypeError as error:
        given = ", ".join(["inputs", *arguments])
        raise DocumentFunctionError(name, f"it cannot be called with ({given}): {error}") from error
    return function(inputs, **arguments)
