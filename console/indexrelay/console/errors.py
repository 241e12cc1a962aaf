"""What can go wrong for a person at the command line, and what they can do about it."""

from indexrelay.schemas.errors import IndexRelayError


class CorpusError(IndexRelayError):
    """Raised when the demo's text cannot be read or is too little; says what would be enough."""


class CommandError(IndexRelayError):
    """Raised when a command cannot do what it was asked; the message says what to do instead."""


class ProcessEndedError(IndexRelayError):
    """Raised when a child process ends that should have gone on; carries the end of its log."""

    def __init__(self, name: str, *, code: int, tail: str) -> None:
        said = f"; it last said:\n{tail}" if tail else ""
        super().__init__(f"{name} ended with exit code {code}{said}")
        self.name = name
        self.code = code
