"""Something that is due every so often, on whatever clock its caller reads."""


class Timer:
    """Due at the first look, and then again each time its period has passed."""

    def __init__(self, period_seconds: float) -> None:
        self._period_seconds = period_seconds
        self._next: float | None = None

    def due(self, now: float) -> bool:
        """Whether it is time; if so, the next time is a period from ``now``."""
        if self._next is not None and now < self._next:
            return False
        self._next = now + self._period_seconds
        return True

    def hasten(self) -> None:
        """Be due at the next look."""
        self._next = None
