"""A user's function that a component's table names as ``module:function``.

The name is checked with the settings; the module is imported where the function is called.
"""

import importlib
import re
from collections.abc import Callable
from typing import Annotated, Any, Final

from pydantic import AfterValidator

from indexrelay.components.errors import FunctionError
from indexrelay.schemas.diagnostics import describe_error
from indexrelay.schemas.settings_file import where_was_looked

_NAME: Final = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")


def _checked(name: str) -> str:
    """Return ``name`` if it is ``module:function``, both as Python spells them.

    Raises:
        ValueError: it is not.
    """
    if _NAME.fullmatch(name) is None:
        raise ValueError("a function is written module:function")
    return name


FunctionName = Annotated[str, AfterValidator(_checked)]
"""``module:function``."""


def function_of(name: str, error: type[FunctionError]) -> Callable[..., Any]:
    """Import the function called ``name`` (``module:function``).

    Raises:
        FunctionError: an ``error``: the module cannot be imported, or has no such function.
    """
    module_name, _, attribute = name.partition(":")
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as cause:  # a module may raise anything while it is imported
        reason = f"{module_name} cannot be imported: {describe_error(cause)}"
        if isinstance(cause, ModuleNotFoundError):
            reason += f" ({where_was_looked()})"
        raise error(name, reason) from cause
    function = getattr(module, attribute, None)
    if not callable(function):
        raise error(name, f"{module_name} has no function {attribute!r}")
    return function  # type: ignore[no-any-return] # callable() narrows to an unknown signature
