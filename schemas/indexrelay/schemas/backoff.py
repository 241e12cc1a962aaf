"""How long to wait before something that failed is tried again.

The wait doubles with every failure in a row, up to a longest one, and is then moved by up to a
fifth: what failed together (fifty readers on one full disk) does not come back together. The move
is not drawn, it follows from the key and the count, so that two processes that ask about the same
thing agree, and a test needs no chance.
"""

import hashlib
from typing import Final

SHARE: Final = 0.2
"""The move, as a share of the wait, either way."""
_MOST_DOUBLINGS = 62
"""Something may be tried for weeks, and a float ends at 2 ** 1024."""


def backoff_seconds(count: int, *, first: float, longest: float, key: str) -> float:
    """The wait after the ``count``-th failure in a row, from 1.

    Args:
        count: failures in a row.
        first: seconds after the first one.
        longest: seconds that no wait exceeds before it is moved.
        key: what failed, and where it matters who tried: equal keys give equal waits.
    """
    wait = min(first * 2.0 ** min(count - 1, _MOST_DOUBLINGS), longest)
    drawn = hashlib.sha256(f"{key}\n{count}".encode()).digest()
    place = int.from_bytes(drawn[:8], "big") / 2**63 - 1.0  # in [-1, 1)
    return wait * (1.0 + SHARE * place)
