"""What no single key shows: inputs that do not exist, names used twice, circles.

Works on the raw tables, before pydantic has seen them, so that it reports even where other keys are
wrong.
"""

from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from typing import Any

from indexrelay.schemas.mistakes import Mistake, suggestion


def reference_mistakes(raw: dict[str, Any]) -> Iterator[Mistake]:
    """The mistakes between the tables of a whole settings file, as TOML gives it."""
    collections = _tables(raw, "collections")
    components = _tables(raw, "components")
    for name in sorted(set(collections) & set(components)):
        yield Mistake(
            key=f"components.{name}", value=name, right="a collection has that name; choose another"
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
        )


def _tables(raw: dict[str, Any], key: str) -> dict[str, dict[str, Any]]:
    tables = raw.get(key)
    if not isinstance(tables, dict):
        return {}
    return {name: table for name, table in tables.items() if isinstance(table, dict)}


def _inputs(table: dict[str, Any]) -> list[str]:
    given = table.get("from", [])
    return [given] if isinstance(given, str) else [str(part) for part in given or ()]
