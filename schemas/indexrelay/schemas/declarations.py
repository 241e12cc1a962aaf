"""The settings that a process was started with, as digests, to find processes with other settings.

Settings are read once, at start. A rebuilder that was not started again keeps its old ones: it
builds well, and something else than is declared now. So the presence of each process holds digests
of what its settings declare. No value can be read from them, and no password is in them.

Only what a role acts by is included, or every change would require a restart of all processes. Left
out are keys that have their default value (a newer version has more keys than an older one), who
requires what (only readers use it), and limits of a host, in which hosts may differ. Where a folder
or a database lies is kept apart: two hosts may reach the same one by different paths.
"""

from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from indexrelay.schemas.names import Name, canonical_json, sha256_hex
from indexrelay.schemas.settings import (
    CollectionSettings,
    ComponentDefinition,
    FolderSource,
    TableSource,
)

_DIGITS: Final = 16
"""Hexadecimal digits of a digest that are kept: it is compared with one other, and is no key."""
_SHOWN: Final = 4
"""Differences that are named; more would not help."""


class Declaration(BaseModel):
    """What one process was started with, as far as its role acts by it; digests by name."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    components: dict[Name, str] = Field(default_factory=dict)
    collections: dict[Name, str] = Field(default_factory=dict)
    places: dict[Name, str] = Field(default_factory=dict)
    """Where the collections lie that are outside of the catalog."""

    def differences(self, ours: "Declaration", *, same_host: bool = False) -> tuple[str, ...]:
        """What differs from ``ours``, a clause each: ``map is declared differently``.

        Args:
            same_host: whether both run on one host, so that places can be compared.
        """
        found = [
            *_differing(self.components, ours.components, ""),
            *_differing(self.collections, ours.collections, "collection "),
        ]
        if same_host:
            found += [
                f"collection {name} lies elsewhere"
                for name in sorted(self.places.keys() & ours.places.keys())
                if self.places[name] != ours.places[name]
            ]
        more = len(found) - _SHOWN
        return (*found[:_SHOWN], f"and {more} more") if more > 0 else tuple(found)

    def part(self, components: AbstractSet[Name], collections: AbstractSet[Name]) -> "Declaration":
        """What it says of these alone."""
        return Declaration(
            components={
                name: self.components[name] for name in components & self.components.keys()
            },
            collections={
                name: self.collections[name] for name in collections & self.collections.keys()
            },
            places={name: self.places[name] for name in collections & self.places.keys()},
        )


def declared_to_build(
    components: Mapping[str, ComponentDefinition], collections: Mapping[str, CollectionSettings]
) -> Declaration:
    """What a rebuilder acts by."""
    return Declaration(
        components={
            name: _digest(each.model_dump(mode="json", exclude_defaults=True, exclude={"required"}))
            for name, each in components.items()
        },
        collections={
            name: _digest(
                [
                    each.dimension,
                    each.metric,
                    each.source.model_dump(
                        mode="json", exclude_defaults=True, exclude={"url", "path"}
                    ),
                    *_policy(each),
                ]
            )
            for name, each in collections.items()
        },
        places={
            name: _digest(place)
            for name, each in collections.items()
            if (place := _place(each)) is not None
        },
    )


def declared_to_serve(components: Mapping[str, ComponentDefinition]) -> Declaration:
    """What a reader acts by: what it requires, and the kinds of users that it may load.

    A reader serves whatever is released. So a component that is required and of one of our kinds is
    the same as one that is not declared, and only others are included.
    """
    acted_by = {
        name: (each.kind if ":" in each.kind else None, each.required)
        for name, each in components.items()
    }
    return Declaration(
        components={
            name: _digest(list(each)) for name, each in acted_by.items() if each != (None, True)
        }
    )


def _differing(theirs: Mapping[str, str], ours: Mapping[str, str], what: str) -> Iterator[str]:
    for name in sorted(theirs.keys() | ours.keys()):
        if name not in ours:
            yield f"{what}{name} is declared there and no longer here"
        elif name not in theirs:
            yield f"{what}{name} is not declared there"
        elif theirs[name] != ours[name]:
            yield f"{what}{name} is declared differently there"


def _policy(settings: CollectionSettings) -> list[str | float]:
    """When changes are built, where that is not at once."""
    match settings.persistence:
        case "immediate":
            return []
        case "manual":
            return ["manual"]
        case "periodic":
            return ["periodic", settings.save_interval_seconds]


def _place(settings: CollectionSettings) -> str | None:
    match settings.source:
        case FolderSource() as folder:
            return str(folder.path)
        case TableSource() as table:
            return _database(table.url)
        case _:
            return None


def _database(url: SecretStr) -> str | None:
    """Which database it is, without password and options, which a digest would let others guess."""
    from sqlalchemy import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        parsed = make_url(url.get_secret_value())
    except (ArgumentError, ValueError):
        return None  # connecting reports what is wrong with it
    return str((parsed.get_backend_name(), parsed.host, parsed.port, parsed.database))


def _digest(value: Any) -> str:
    return sha256_hex(canonical_json(value))[:_DIGITS]
