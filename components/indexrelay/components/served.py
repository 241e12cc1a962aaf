"""What a reader gets from a kind and hands to its callers.

`VersionFiles` are the files of a version as `Kind.load` gets them. `Hit` is one answer of a search,
whatever was searched. `Closable` gives an object that was closed a clear error: a reader closes a
version when its last user has let go of it, and whoever keeps a part of a snapshot beyond its
``with`` reads what to do instead of the name of a private attribute.
"""

import operator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final

from indexrelay.components.errors import ClosedVersionError, DamagedFileError, InvalidQueryError


class VersionFiles(dict[str, Path]):
    """Where each file lies; one that the kind needs and the version lacks is damage."""

    def __missing__(self, name: str) -> Path:
        raise DamagedFileError(Path(name), "the version does not have it")


_MOST: Final = 2**31 - 1
"""More than any index holds; SQLite and FAISS take no larger number than some."""


@dataclass(slots=True)
class Hit:
    """An entry that was found.

    Every search makes its own, so nobody is harmed by what is done to one. Frozen it would cost
    three times as much to make, which ten hits of a query of 50 microseconds show.
    """

    id: str
    score: float
    """How well it fits; each search says in its docstring which way it counts."""
    payload: Any
    """The entry's JSON payload, parsed; ``None`` where it has none."""


def check_payload_bytes(found: int, most: int | None) -> None:
    """See that the payloads of the hits may be read.

    Raises:
        InvalidQueryError: they have more bytes than ``most``; ``None``: any number.
    """
    if most is not None and found > most:
        raise InvalidQueryError(
            f"the payloads of these hits have more than {most} bytes; ask for fewer, with a lower k"
        )


def checked_k(k: Any) -> int:
    """How many hits are wanted, whatever kind of whole number says so (numpy's, too).

    Raises:
        InvalidQueryError: it is none, or less than 1.
    """
    try:
        number = operator.index(k)
    except TypeError:
        number = 0
    if number < 1 or isinstance(k, bool):
        raise InvalidQueryError(f"k is a whole number and at least 1, not {k!r:.100}")
    return min(number, _MOST)


class Closable:
    """Derive from it, name what `close` deletes in ``_closed_by``, and delete it there.

    It costs an open object nothing: Python asks here only for attributes that are missing.
    """

    _closed_by: ClassVar[frozenset[str]] = frozenset()

    if not TYPE_CHECKING:  # or a misspelt attribute would be no type error any more

        def __getattr__(self, name: str) -> Any:
            if name in self._closed_by:
                raise ClosedVersionError(type(self).__name__)
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
