from concurrent.futures import ThreadPoolExecutor

from indexrelay.storage.catalog import Catalog


def test_a_new_fingerprint_takes_the_next_generation_and_the_same_one_keeps_it(
    tracks: Catalog,
) -> None:
    number = tracks.collections.number

    assert [number("tracks", look) for look in ("x", "x", "y", "y", "x")] == [1, 1, 2, 2, 3]


def test_marks_and_numbers_count_together(tracks: Catalog) -> None:
    assert tracks.collections.number("tracks", "x") == 1
    assert tracks.entries.mark("tracks", "b1").generation == 2
    assert tracks.collections.number("tracks", "x") == 2
    assert tracks.collections.number("tracks", "y") == 3


def test_many_who_see_one_new_fingerprint_take_one_generation(tracks: Catalog) -> None:
    with ThreadPoolExecutor(8) as threads:
        numbers = threads.map(lambda _: tracks.collections.number("tracks", "x"), range(32))

    assert set(numbers) == {1}
