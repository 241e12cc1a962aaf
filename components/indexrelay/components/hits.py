"""One answer of a search, whatever was searched, and how many of them are wanted."""

import operator
from dataclasses import dataclass
from typing import Any, Final

from indexrelay.components.errors import InvalidQueryError

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
