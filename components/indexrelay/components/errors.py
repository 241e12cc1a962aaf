"""What goes wrong with kinds, with their builds, and with what they serve."""

from collections.abc import Iterable
from pathlib import Path

from indexrelay.schemas.errors import IndexRelayError
from indexrelay.schemas.mistakes import Mistake


class KindNotFoundError(IndexRelayError):
    """Raised when a kind is neither installed nor importable as ``module:Class``."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"kind {name!r}: {reason}")
        self.name = name
        self.reason = reason


class ContractError(IndexRelayError):
    """Raised when a kind does not do what `Kind` asks for: change its class, then rebuild."""


class InvalidParametersError(IndexRelayError):
    """Raised when a definition's keys are not what its kind takes; ``mistakes`` lists every one."""

    def __init__(self, kind: str, mistakes: Iterable[Mistake]) -> None:
        self.kind = kind
        self.mistakes = tuple(mistakes)
        super().__init__(f"kind {kind!r}: " + "; ".join(str(mistake) for mistake in self.mistakes))


class UnusableInputError(IndexRelayError):
    """Raised when a component is made from something that its kind cannot use.

    Change ``from`` in the component's definition.
    """


class UnbuildableIndexError(IndexRelayError):
    """Raised when FAISS cannot make the index that was asked for over these vectors."""


class MemoryLimitError(IndexRelayError):
    """Raised when an index cannot be made as small as its definition's ``max_bytes`` asks."""


class DamagedFileError(IndexRelayError):
    """Raised when a file of a version is not what was written: cut short, or changed.

    The version has to be fetched or built again.
    """

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path.name} is damaged: {reason}")
        self.path = path
        self.reason = reason


class InvalidQueryError(IndexRelayError, ValueError):
    """Raised when a query cannot be answered as it stands; the message says what would be right."""


class ClosedVersionError(IndexRelayError, AttributeError):
    """Raised when something of a snapshot is used after the snapshot was given back.

    Ask inside the ``with reloader.acquire() as snapshot``, and take along only answers.
    """

    def __init__(self, what: str) -> None:
        super().__init__(
            f"this {what} was closed: a snapshot's parts may be used inside "
            "`with reloader.acquire() as snapshot` only"
        )


class UnknownEntryError(IndexRelayError, KeyError):
    """Raised when an id is asked for that this version does not hold."""

    def __init__(self, entry_id: str) -> None:
        super().__init__(entry_id)
        self.entry_id = entry_id

    def __str__(self) -> str:
        return f"there is no entry {self.entry_id!r} in this version"


class DocumentFunctionError(IndexRelayError):
    """Raised when a JSON cache's function cannot be imported, or called as its table says.

    Change ``function`` or ``arguments`` in the component's definition, or install its module where
    the rebuilder runs.
    """

    def __init__(self, function: str, reason: str) -> None:
        super().__init__(f"function {function!r}: {reason}")
        self.function = function
        self.reason = reason


class DocumentError(IndexRelayError):
    """Raised when what a JSON cache's function returned is not JSON; ``path`` is where.

    Change the function: leave the value out, or turn it into numbers, text, lists and objects.
    """

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"the document is not JSON at {path}: {reason}")
        self.path = path
        self.reason = reason
