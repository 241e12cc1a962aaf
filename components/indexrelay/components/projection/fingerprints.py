"""Tells an entry whose vector changed from one that was only handed over again.

A map keeps no vectors: they are many times its size. It keeps 8 bytes of a hash of each, so that an
entry of which the payload changed, or nothing at all, stays exactly where it is.
"""

from hashlib import blake2b
from typing import Final

import numpy as np
from numpy.typing import NDArray

from indexrelay.storage.entries import Vectors

FINGERPRINTS: Final = "fingerprints.npy"
"""Of the entries that the map was laid out from."""
DELTA_FINGERPRINTS: Final = "delta_fingerprints.npy"
"""Of those that were placed since."""

Fingerprints = NDArray[np.uint64]


def fingerprints(vectors: Vectors) -> Fingerprints:
    """One for each row of ``vectors``, shape ``(n,)``; a microsecond each."""
    digests = (
        blake2b(row, digest_size=8).digest() for row in np.ascontiguousarray(vectors, dtype="<f4")
    )
    return np.frombuffer(b"".join(digests), dtype="<u8").astype(np.uint64)
