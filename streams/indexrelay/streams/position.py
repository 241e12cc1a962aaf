"""Where in a stream: an entry's id as a pair of numbers, since its bytes do not sort."""

from typing import Final, NamedTuple


class Position(NamedTuple):
    """Milliseconds and sequence number; ``0-0`` comes before every entry."""

    milliseconds: int
    sequence: int

    @classmethod
    def of(cls, entry_id: bytes) -> "Position":
        """Read ``b"<milliseconds>-<sequence>"``."""
        milliseconds, _, sequence = entry_id.partition(b"-")
        return cls(int(milliseconds), int(sequence or 0))

    def to_bytes(self) -> bytes:
        """The id as Redis writes it."""
        return b"%d-%d" % self


START: Final = Position(0, 0)
LAST: Final = Position(2**64 - 1, 2**64 - 1)
"""The greatest id; a stream that has given it takes nothing more."""
