"""A table of components that stands for several: one for each combination of its ``matrix``.

``[components.forecast] matrix = { horizon = [6, 12], index = ["Flat", "IVF256,PQ16"] }`` declares
``forecast_6h_flat``, ``forecast_6h_ivf256_pq16``, ``forecast_12h_flat`` and
``forecast_12h_ivf256_pq16``; there is no component ``forecast`` then.

**Names.** Behind the name of the table stands each value, in the order of the matrix. A number is
followed by the first letter of its axis (``6h``), a truth value is its axis or ``no_`` and its
axis, and of a text what is no letter or digit becomes one underscore. Two combinations of one name,
and a name that is declared already, are mistakes.

**Values.** An axis that texts of the table name in braces (``from = "maps_{horizon}"``) is put in
there, and is no key of the component. Any other axis is a key (``index = "Flat"``). A text that is
nothing but the axis in braces becomes the value itself, a number where it is one. In ``from`` and
``group``, which name things, a text is put in as names have it.

It is done before anything else is checked, so that each of the components is checked, built,
released and shown like one that was written out.
"""

import re
from collections.abc import Iterator, Mapping
from itertools import product
from typing import Any, Final

from indexrelay.schemas.errors import Mistake
from indexrelay.schemas.names import MAX_COMPONENTS, is_name

MATRIX: Final = "matrix"
_NAMING_KEYS: Final = ("from", "inputs", "group")
_BRACES: Final = re.compile(r"\{([a-z][a-z0-9_]*)\}")
Scalar = str | int | float | bool


def expand_components(tables: Mapping[str, Any]) -> tuple[dict[str, Any], list[Mistake]]:
    """The tables of components with each matrix written out, and what is wrong with these.

    A table whose matrix is wrong is left out. What is not a table stays as it is.
    """
    expanded = {name: table for name, table in tables.items() if not _has_matrix(table)}
    mistakes: list[Mistake] = []
    for name, table in tables.items():
        if not _has_matrix(table):
            continue
        wrong = list(_mistakes(name, table[MATRIX]))
        mistakes += wrong
        if wrong:
            continue
        for values in product(*table[MATRIX].values()):
            combination = dict(zip(table[MATRIX], values, strict=True))
            made = "_".join([name, *(_part(*each) for each in combination.items())])
            why = _why_not(made, expanded)
            if why is not None:
                mistakes.append(
                    Mistake(key=f"components.{name}.matrix", value=made, right=why, plain=True)
                )
            else:
                expanded[made] = _written_out(table, combination)
    return expanded, mistakes


def expand_matrices(raw: dict[str, Any]) -> tuple[dict[str, Any], list[Mistake]]:
    """The same for the tables of a whole settings file."""
    components = raw.get("components")
    if not isinstance(components, Mapping) or not any(map(_has_matrix, components.values())):
        return raw, []
    expanded, mistakes = expand_components(components)
    return {**raw, "components": expanded}, mistakes


def _has_matrix(table: Any) -> bool:
    return isinstance(table, Mapping) and MATRIX in table


def _mistakes(name: str, matrix: Any) -> Iterator[Mistake]:
    key = f"components.{name}.matrix"
    if not isinstance(matrix, Mapping) or not matrix:
        yield Mistake(
            key=key, value=matrix, right='must be a table of lists, as { index = ["Flat", "SQ8"] }'
        )
        return
    combinations = 1
    for axis, values in matrix.items():
        if not is_name(str(axis)):
            right = "an axis is named as components are"
            yield Mistake(key=f"{key}.{axis}", value=axis, right=right, plain=True)
        if not isinstance(values, list | tuple) or not values:
            right = "must be a list of texts, numbers or truth values"
            yield Mistake(key=f"{key}.{axis}", value=values, right=right, plain=True)
            continue
        combinations *= len(values)
        for value in values:
            if not isinstance(value, Scalar):
                right = "must be a text, a number or a truth value"
                yield Mistake(key=f"{key}.{axis}", value=value, right=right, plain=True)
            elif not _word(value):
                right = "has no letter from a to z and no digit to name a component by"
                yield Mistake(key=f"{key}.{axis}", value=value, right=right, plain=True)
    if combinations > MAX_COMPONENTS:
        right = f"makes more than the {MAX_COMPONENTS:,} components that there may be"
        yield Mistake(key=key, value=combinations, right=right)


def _why_not(made: str, there: Mapping[str, Any]) -> str | None:
    if made in there:
        return "that name is taken, by another combination or by another table"
    if not is_name(made):
        return (
            "is no name: a name has at most 64 lower-case letters, digits and underscores; "
            "give the table a shorter one"
        )
    return None


def _part(axis: str, value: Scalar) -> str:
    """What a value adds to the name."""
    match value:
        case bool():
            return axis if value else f"no_{axis}"
        case int() | float():
            return f"{_word(value)}{axis[0]}"
        case _:
            return _word(value)


def _word(value: Scalar) -> str:
    """A value as names have it."""
    return re.sub(r"[^a-z0-9]+", "_", str(value).lower()).strip("_")


def _written_out(table: Mapping[str, Any], combination: Mapping[str, Scalar]) -> dict[str, Any]:
    """The table of one combination."""
    rest = {key: value for key, value in table.items() if key != MATRIX}
    named = {axis for axis in combination if f"{{{axis}}}" in repr(rest)}
    keys = {axis: value for axis, value in combination.items() if axis not in named}
    words = {axis: _word(value) for axis, value in combination.items()}
    return keys | {
        key: _put_in(value, words if key in _NAMING_KEYS else combination)
        for key, value in rest.items()
    }


def _put_in(given: Any, values: Mapping[str, Scalar]) -> Any:
    """``given`` with the values of the axes that its texts name in braces."""
    match given:
        case str():
            whole = _BRACES.fullmatch(given)
            if whole is not None and whole[1] in values:
                return values[whole[1]]
            return _BRACES.sub(lambda found: str(values.get(found[1], found[0])), given)
        case Mapping():
            return {key: _put_in(value, values) for key, value in given.items()}
        case list() | tuple():
            return [_put_in(value, values) for value in given]
        case _:
            return given
