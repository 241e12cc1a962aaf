"""One root for everything that indexrelay raises on its own account.

Each portion derives its errors from `IndexRelayError` and says "Raised when …". Errors of the
network and of the database are not renamed: they are chained, so that the cause stays visible.
"""


class IndexRelayError(Exception):
    """The root of every error that indexrelay raises; catching it catches nothing else."""


class UnreadableEventError(IndexRelayError):
    """Raised when bytes taken from a stream are not an event of a version that we can read.

    The bytes belong into the dead letters, unchanged: they may be readable by a later release.
    """

    def __init__(self, reason: str, raw: bytes) -> None:
        super().__init__(reason)
        self.reason = reason
        self.raw = raw


class UnknownNameError(IndexRelayError):
    """Raised when something is named that there is not: the caller's mistake, nothing was done."""


class MissingExtraError(IndexRelayError):
    """Raised when an optional dependency is used that is not installed."""

    def __init__(self, module: str, extra: str) -> None:
        super().__init__(
            f"{module} is not installed; install it with: pip install 'indexrelay[{extra}]'"
        )
        self.module = module
        self.extra = extra
