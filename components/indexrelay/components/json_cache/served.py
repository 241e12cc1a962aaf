"""A document as a reader serves it: bytes that are ready to go out, and the value on demand."""

import gzip
import json
from typing import Any

from indexrelay.schemas.canonical import sha256_hex


class CachedDocument:
    """Immutable; safe to use from many threads.

    Both forms are held in memory: they are sent whole, and `JsonCacheParameters.max_bytes` bounds
    them. The parsed value can be many times larger than its text, so it is made when first asked
    for.
    """

    def __init__(self, body: bytes, gzipped: bytes) -> None:
        self.body = body
        """The document: canonical JSON in UTF-8."""
        self.gzipped = gzipped
        """`body` for a client that accepts gzip."""
        self.etag = f'"{sha256_hex(body)}"'
        """A strong entity tag of `body`, quoted as HTTP wants it (RFC 9110, section 8.8.3)."""
        self._parsed: dict[str, Any] = {}

    def __len__(self) -> int:
        """Bytes of `body`."""
        return len(self.body)

    @property
    def document(self) -> Any:
        """The parsed document, the same object each time: do not change it."""
        if "document" not in self._parsed:
            # No lock: in a child that was forked meanwhile nobody would ever let go of it.
            self._parsed.setdefault("document", json.loads(self.body))
        return self._parsed["document"]

    def close(self) -> None:
        """Nothing is held open; what was handed out stays usable."""


def unpack(gzipped: bytes) -> bytes:
    """The body inside; raises `OSError` or `EOFError` where it is damaged."""
    return gzip.decompress(gzipped)
