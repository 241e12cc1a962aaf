"""Keeps readers that began together from doing everything together ever after.

A fleet is started at once, by a deployment or after an outage, and without this each of its readers
would look, poll and renew its presence in the same moment as all others, for as long as they run.
So the first look waits for a small part of a second, and each period is cut by up to a fifth,
another cut each time. Both only ever make something earlier than it is promised, but for that
first part. What follows a release is not spread: that everyone takes it up at once is the point.

Nothing is drawn: the parts follow from the member id, so that two processes differ and a test needs
no chance.
"""

import hashlib
from typing import Final

SHARE: Final = 0.2
"""By how much a period is cut at most."""


class Spread:
    """The parts of one reader; for use by one thread."""

    def __init__(self, member: str, *, start_seconds: float) -> None:
        """``start_seconds``: over how long the first looks of a fleet are spread."""
        self._member = member
        self._periods = 0
        self.first_look_seconds = start_seconds * self._part("start")
        """How long this reader's first look waits."""

    def cut(self, period_seconds: float) -> float:
        """The period's length this time, from four fifths of it to all of it."""
        self._periods += 1
        return period_seconds * (1.0 - SHARE * self._part(str(self._periods)))

    def _part(self, of: str) -> float:
        """In [0, 1), as even among readers as a hash is."""
        digest = hashlib.sha256(f"{self._member}\n{of}".encode()).digest()
        return int.from_bytes(digest[:8], "big") / 2**64
