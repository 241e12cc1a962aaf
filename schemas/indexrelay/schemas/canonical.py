"""One way to write a JSON value, so that equal values have equal digests.

Sorted keys, no white space, UTF-8, no NaN. Digests of definitions, manifests and releases are taken
over these bytes; the same bytes are what is written to disk.
"""

import hashlib
import json
from typing import Any


def canonical_json(value: Any) -> bytes:
    """Write ``value`` (JSON types only) in its one canonical form.

    Raises:
        ValueError: a NaN or an infinity is in it.
        TypeError: something in it is not a JSON type.
    """
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode()


def sha256_hex(data: bytes) -> str:
    """The sha256 of ``data`` in lower-case hexadecimal."""
    return hashlib.sha256(data).hexdigest()
