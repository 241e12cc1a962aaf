"""Where in a stream: an entry's id as a pair of numbers, since its bytes do not sort."""

from typing import Final, NamedTuple

_MAX_SEQUENCE: Final = 2**64 - 1


class Position(NamedTuple):
    """Milliseconds and sequence number; ``0-0`` comes before every entry."""

    milliseconds: int
    sequence: int

    @classmethod
    def of(cls, entry_id: bytes) -> "Position":
        """Read ``b"<milliseconds>-<sequence>"``."""
        milliseconds, _, sequence = entry_id.partition(b"-")
        return cls(int(milliseconds), int(sequence or 0))

    def before(self) -> "Position":
        """The last position before this one; ``0-0`` has none and stays."""
        if self.sequence:
            return Position(self.milliseconds, self.sequence - 1)
        if self.milliseconds:
            return Position(self.milliseconds - 1, _MAX_SEQUENCE)
        return self

    def to_bytes(self) -> bytes:
        """The id as Redis writes it."""
        return b"%d-%d" % self


START: Final = Position(0, 0)
