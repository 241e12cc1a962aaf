"""What can go wrong with a pipeline under test."""

from collections.abc import Iterable

from indexrelay.schemas.errors import IndexRelayError


class NotSettledError(IndexRelayError):
    """Raised when a pipeline still has something to do after many rounds.

    Something is due again each time it was built: look at the kind's ``build``, or at a source that
    changes whenever it is read.
    """

    def __init__(self, rounds: int, last: Iterable[str]) -> None:
        self.rounds = rounds
        self.last = tuple(last)
        names = ", ".join(self.last) or "nothing"
        super().__init__(f"still busy after {rounds} rounds; the last one rebuilt: {names}")


class NothingToDamageError(IndexRelayError):
    """Raised when no release names a component that is to be damaged, or no file is its alone.

    Settle the pipeline first; give components that hold the same files different entries.
    """

    def __init__(self, component: str) -> None:
        super().__init__(f"no release names a file that belongs to {component!r} alone")
        self.component = component
