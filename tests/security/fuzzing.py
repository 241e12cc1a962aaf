"""How long the fuzzers go on, and from which seeds.

In CI each of them runs so many rounds that it takes a minute at most, from seeds that are the same
each time. ``make fuzz MINUTES=30`` lets each go on for so long, from seeds that are new each time;
a failure names its seed, and ``INDEXRELAY_FUZZ_SEED=…`` begins with it again.
"""

import os
import secrets
import time
from collections.abc import Iterator
from typing import Final

MINUTES: Final = float(os.environ.get("INDEXRELAY_FUZZ_MINUTES", "0"))
_GIVEN: Final = os.environ.get("INDEXRELAY_FUZZ_SEED")


def seeds(rounds: int) -> Iterator[int]:
    """A seed for each round: ``rounds`` of them, or as many as there is time for."""
    end = time.monotonic() + 60 * MINUTES
    seed = int(_GIVEN) if _GIVEN is not None else secrets.randbits(32) if MINUTES else 0
    done = 0
    while done < rounds or time.monotonic() < end:
        yield seed
        seed += 1
        done += 1
