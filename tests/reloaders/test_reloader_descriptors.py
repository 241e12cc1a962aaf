"""Reloads go on where every file descriptor of the process is in use."""

import contextlib
import os
import resource
from collections.abc import Iterator

import pytest

from indexrelay.reloaders.reloader import RESERVED_DESCRIPTORS, DescriptorReserve
from tests.reloaders.bench import Bench, outcomes, texts


@contextlib.contextmanager
def no_descriptor_left() -> Iterator[None]:
    """Every descriptor that this process may have is in use."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(name) for name in os.listdir("/proc/self/fd"))  # noqa: PTH208 - names do
    taken: list[int] = []
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 10, hard))
        with contextlib.suppress(OSError):
            while True:
                taken.append(os.open(os.devnull, os.O_RDONLY))
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for each in taken:
            os.close(each)


def test_a_reader_reloads_where_no_descriptor_is_left(bench: Bench) -> None:
    bench.publish(voyager="v1", map="m1")
    reader = bench.reader()
    reader.step()
    bench.publish(voyager="v2", map="m2")
    with no_descriptor_left():
        with pytest.raises(OSError, match="Too many open files"):
            os.open(os.devnull, os.O_RDONLY)
        assert reader.step()
        assert texts(reader) == {"voyager": "v2", "map": "m2"}
        assert outcomes(reader) == {"voyager": "applied", "map": "applied"}
        with pytest.raises(OSError, match="Too many open files"):
            os.open(os.devnull, os.O_RDONLY)


def test_what_is_lent_is_taken_back_and_given_up_at_the_end() -> None:
    reserve = DescriptorReserve()
    with reserve.lent():
        assert len(reserve) == RESERVED_DESCRIPTORS, "there are others"
    with no_descriptor_left():
        with reserve.lent():
            assert len(reserve) == 0
            with open(os.devnull, "rb"):  # noqa: PTH123 - a plain file
                pass
        assert len(reserve) == RESERVED_DESCRIPTORS
    reserve.close()
    reserve.close()
    assert len(reserve) == 0


def test_what_others_have_taken_is_taken_back_when_there_is_some_again() -> None:
    reserve = DescriptorReserve()
    reserve.fill()
    with no_descriptor_left():
        stolen = []
        with reserve.lent():
            stolen = [os.open(os.devnull, os.O_RDONLY) for _ in range(RESERVED_DESCRIPTORS)]
        assert len(reserve) == 0
        for each in stolen:
            os.close(each)
        with reserve.lent():
            pass
        assert len(reserve) == RESERVED_DESCRIPTORS
    reserve.close()
