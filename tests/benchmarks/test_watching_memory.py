"""The memory of a process while it is watched."""

import os
from pathlib import Path

import numpy as np
import pytest

from full_build import watching

pytestmark = pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="needs Linux")
HELD = 64 << 20


def test_private_memory_is_what_no_file_backs(tmp_path: Path) -> None:
    with watching(os.getpid()) as before:
        pass
    with watching(os.getpid()) as holding:
        held = np.ones(HELD, dtype=np.uint8)
    assert holding.private - before.private >= 0.9 * len(held)
    del held
    file = tmp_path / "mapped"
    file.write_bytes(bytes(HELD))
    with watching(os.getpid()) as mapping:
        mapped = np.memmap(file, mode="r")
        assert mapped.sum() == 0
    assert mapping.resident - before.resident >= 0.9 * len(mapped)
    assert mapping.private - before.private < 0.5 * len(mapped)
