"""What a process was started with, as digests: enough to see that its settings are others by now.

Settings are read once, at start. A rebuilder that was not started again goes on with those that it
has, and nobody sees it by what it builds: it builds well, and something else. So each process says
in its presence what its settings declare. No value can be read from it, and no password is in it.

Only what a role acts by counts, or every change would have everybody started again. What is left
out: a key that has its default value (a newer version has more keys than an older one), who
requires what (that is a reader's), and limits of a whole host, which hosts may differ in. Where a
folder or a database lies is kept apart: two hosts may reach the same one by different ways.
"""

from collections.abc import Iterator, Mapping
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
"""Hexadecimal ones of a digest that are kept: it is compared with one other, and is no key."""
_SHOWN: Final = 4
"""Differences that are named; more of them say no more."""


class Declaration(BaseModel):
    """What one process was started with, as far as it acts by it; digests by name."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    components: dict[Name, str] = Field(default_factory=dict)
    collections: dict[Name, str] = Field(default_factory=dict)
    places: dict[Name, str] = Field(default_factory=dict)
    """Of collections that lie outside of the catalog: where."""

    def differences(self, ours: "Declaration", *, same_host: bool = False) -> tuple[str, ...]:
        """What is otherwise here than in ``ours``, a clause each: ``map is declared differently``.

        Args:
            same_host: whether places mean the same for both.
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

    It serves whatever is released, so that a component that is not declared is as good as one that
    is required and of a kind of ours: only others differ from none at all.
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


def _place(settings: CollectionSettings) -> str | None:
    match settings.source:
        case FolderSource() as folder:
            return str(folder.path)
        case TableSource() as table:
            return _database(table.url)
        case _:
            return None


def _database(url: SecretStr) -> str | None:
    """Which database it is; a digest of a password, or of an option, would let others try some."""
    from sqlalchemy import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        parsed = make_url(url.get_secret_value())
    except (ArgumentError, ValueError):
        return None  # whoever connects says what is wrong with it
    return str((parsed.get_backend_name(), parsed.host, parsed.port, parsed.database))


def _digest(value: Any) -> str:
    return sha256_hex(canonical_json(value))[:_DIGITS]
