"""A bench for every test."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.reloaders.bench import Bench


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    bench.stop_readers()  # what they serve is closed now, and not in the middle of another test
