"""Where somebody wrote in a reader's place what no reader writes, remembered for an hour.

What is found there is mended within seconds, and would come again as long as somebody has the
password. A look from outside mostly falls between the two; so whoever mends it says so for a while.
"""

from datetime import timedelta
from typing import Final

from indexrelay.schemas.clock import Clock
from indexrelay.schemas.results import ForeignWrites

_KEPT: Final = timedelta(hours=1)
_MOST_LABELS: Final = 20
"""Those that were seen last; a state names them all."""


class ForeignWriteLog:
    """Counts them by label; noted by one thread, read by any."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._seen: tuple[ForeignWrites, ...] = ()
        """The latest at last; replaced as a whole."""

    def note(self, label: str, what: str) -> None:
        """It was seen, or mended, once more."""
        now = self._clock.now()
        before = next((each for each in self._seen if each.label == label), None)
        noted = ForeignWrites(
            label=label,
            times=1 if before is None else before.times + 1,
            first_at=now if before is None else before.first_at,
            last_at=now,
            last=what,
        )
        others = tuple(each for each in self.recent if each.label != label)
        self._seen = (*others, noted)[-_MOST_LABELS:]

    @property
    def recent(self) -> tuple[ForeignWrites, ...]:
        """Those of the last hour."""
        oldest = self._clock.now() - _KEPT
        return tuple(each for each in self._seen if each.last_at >= oldest)
