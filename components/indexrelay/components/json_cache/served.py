"""A document as a reader serves it: bytes that are ready to go out, and the value on demand."""

import gzip
import json
import zlib
from pathlib import Path
from typing import Any

from indexrelay.components.errors import DamagedFileError
from indexrelay.schemas.canonical import sha256_hex


class CachedDocument:
    """Immutable; safe to use from many threads.

    Both forms are held in memory: they are sent whole, and `JsonCacheParameters.max_bytes` bounds
    them. The parsed value can be many times larger than its text, so it is made when first asked
    for.
    """

    def __init__(self, body: bytes, gzipped: bytes, *, path: Path = Path("document")) -> None:
        """``path``: where the body comes from, for the words of an error."""
        self._path = path
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
        """The parsed document, the same object each time: do not change it.

        Raises:
            DamagedFileError: it is no JSON.
        """
        if "document" not in self._parsed:
            try:
                parsed = json.loads(self.body)
            except (ValueError, RecursionError) as error:
                raise DamagedFileError(self._path, f"it is no JSON: {error}") from error
            # No lock: in a child that was forked meanwhile nobody would ever let go of it.
            self._parsed.setdefault("document", parsed)
        return self._parsed["document"]

    def close(self) -> None:
        """Nothing is held open; what was handed out stays usable."""


def check_packed(path: Path, gzipped: bytes, body: bytes) -> None:
    """See that ``gzipped`` holds ``body``; unpacks no more than that.

    Raises:
        DamagedFileError: it holds something else, more, or nothing that can be unpacked.
    """
    unpacker = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)  # 16: as gzip writes it
    try:
        same = unpacker.decompress(gzipped, len(body) + 1) == body and unpacker.eof
    except zlib.error as error:
        raise DamagedFileError(path, str(error)) from error
    if not same or unpacker.unused_data:
        raise DamagedFileError(path, "it does not hold the document")


def unpack(gzipped: bytes) -> bytes:
    """The body inside; raises `OSError` or `EOFError` where it is damaged."""
    return gzip.decompress(gzipped)
