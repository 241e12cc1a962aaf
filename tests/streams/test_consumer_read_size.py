"""How many entries are asked for: as many as are wanted, fewer where they are large."""

from indexrelay.streams.consumer import MOST_BYTES, ReadSize


def test_as_many_as_are_wanted_while_they_are_small() -> None:
    size = ReadSize()
    assert size.of(500) == 500
    size.brought(500, [400] * 500)
    assert size.of(1000) == 1000


def test_fewer_after_large_ones_and_more_again_after_small_ones() -> None:
    size = ReadSize()
    size.brought(500, [MOST_BYTES // 10] * 500)
    assert size.of(500) == 10
    size.brought(10, [MOST_BYTES * 3])
    assert size.of(500) == 3
    size.brought(3, [400] * 3)
    assert size.of(500) == 6
    for _ in range(20):
        asked = size.of(500)
        size.brought(asked, [400] * asked)
    assert size.of(500) == 500
    assert size.of(10**9) == 10**9


def test_a_read_that_broke_off_asks_for_less_each_time_down_to_one() -> None:
    size, asked = ReadSize(), []
    for _ in range(5):
        asked.append(size.of(500))
        size.broke_off(asked[-1])
    assert asked == [500, 62, 7, 1, 1]


def test_an_idle_stream_makes_room_for_more_again() -> None:
    size = ReadSize()
    size.broke_off(500)
    size.brought(62, [])
    assert size.of(500) == 124
