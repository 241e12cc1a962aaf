"""Carries the sentences under a model's fields into its JSON Schema.

The models say what a field means in a string under it. Python throws such strings away, so they
are read from the class's source. (pydantic would do so for every model at each import; it is
wanted only here.)
"""

import ast
import inspect
import itertools
import sys
import textwrap
from typing import Any

from pydantic import BaseModel


def field_descriptions(model: type[BaseModel]) -> dict[str, str]:
    """For each field that has one: the sentence under it, its classes' parents included."""
    found: dict[str, str] = {}
    for cls in reversed(model.__mro__):
        if issubclass(cls, BaseModel) and cls is not BaseModel and _has_source(cls):
            found |= _in_class(cls)
    return found


def _has_source(cls: type[BaseModel]) -> bool:
    """Not so for a model that was put together at run time."""
    return getattr(sys.modules[cls.__module__], cls.__name__, None) is cls


def _in_class(cls: type[BaseModel]) -> dict[str, str]:
    body = _class_body(cls)
    return {
        field.target.id: inspect.cleandoc(sentence.value.value)
        for field, sentence in itertools.pairwise(body)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(sentence, ast.Expr)
        and isinstance(sentence.value, ast.Constant)
        and isinstance(sentence.value.value, str)
    }


def _class_body(cls: type[Any]) -> list[ast.stmt]:
    statement = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0]
    return statement.body if isinstance(statement, ast.ClassDef) else []
