"""Numbers in settings: ``true`` is none, although Python counts it as 1.

A variable's value comes as text, so text that spells a number is one, and so is ``2.0`` where a
whole number is wanted. A truth value is a slip in any case: it is handed on as the text that
somebody wrote, which is no number, and pydantic says so beside every other mistake.
"""

from collections.abc import Mapping
from typing import Any, get_args

from pydantic import BaseModel


def truths_as_text(model: type[BaseModel], table: Any) -> Any:
    """The table, with ``"true"`` and ``"false"`` where truth values stand for numbers."""
    if not isinstance(table, Mapping):
        return table
    fields = {field.alias or name: field for name, field in model.model_fields.items()}
    return {
        key: _as_text(value) if key in fields and _is_number(fields[key].annotation) else value
        for key, value in table.items()
    }


def _as_text(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_as_text(each) for each in value]
    return str(value).lower() if isinstance(value, bool) else value


def _is_number(annotation: Any) -> bool:
    """Whether the type takes numbers, and no truth values."""
    kinds = set(_kinds(annotation))
    return bool(kinds & {int, float}) and bool not in kinds


def _kinds(annotation: Any) -> list[Any]:
    parts = [part for part in get_args(annotation) if not isinstance(part, bool | str)]
    return [annotation, *(kind for part in parts for kind in _kinds(part))]
