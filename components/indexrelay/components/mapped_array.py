"""Opens an ``.npy`` file by mapping it, and refuses one that does not hold what it should."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from indexrelay.components.errors import DamagedFileError


def mapped_array(path: Path, shape: tuple[int | None, ...], dtype: DTypeLike) -> NDArray[Any]:
    """Map an array read-only; ``None`` in ``shape`` stands for any length.

    Raises:
        DamagedFileError: the file is cut short, or holds another shape or type.
        OSError: it cannot be opened.
    """
    try:
        array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise DamagedFileError(path, str(error)) from error
    lengths = zip(array.shape, shape, strict=False)
    fits = len(array.shape) == len(shape) and all(want in (None, have) for have, want in lengths)
    if not fits or array.dtype != dtype:
        raise DamagedFileError(
            path, f"it holds {array.dtype} {array.shape} instead of {np.dtype(dtype)} {shape}"
        )
    return array.view(np.ndarray)  # the same pages; `np.memmap` only makes every index slower
