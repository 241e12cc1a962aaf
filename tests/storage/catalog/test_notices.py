"""The row of who tells people: of several that want it one gets it, on either database."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

from indexrelay.storage.catalog import Catalog
from indexrelay.storage.catalog.notices import NOBODY, NoticeHolder
from indexrelay.testing import FakeClock


def test_of_several_that_take_it_at_once_one_has_it(
    url: str, catalog: Catalog, clock: FakeClock
) -> None:
    catalogs = [Catalog.open(url, clock=clock) for _ in range(4)]
    together = Barrier(4)

    def take(number: int) -> list[bool]:
        taken = []
        for _ in range(3):
            seen = catalogs[number].notices.read()
            together.wait(20)
            taken.append(catalogs[number].notices.take(str(number), seen=seen) is not None)
            together.wait(20)
        catalogs[number].close()
        return taken

    with ThreadPoolExecutor(4) as pool:
        taken = list(pool.map(take, range(4)))
    assert [sum(each) for each in zip(*taken, strict=True)] == [1] * 3
    holder = catalog.notices.read()
    assert holder is not None
    assert holder.beat == 3


def test_who_was_taken_for_gone_writes_nothing_over_its_successor(catalog: Catalog) -> None:
    first = catalog.notices.take("a", seen=None)
    assert first is not None
    first = catalog.notices.renew(first, owner="a", state={"told": ["x"]})
    assert first is not None
    second = catalog.notices.take("b", seen=catalog.notices.read())
    assert second == NoticeHolder(owner="b", beat=3, state={"told": ["x"]})
    assert catalog.notices.renew(first, owner="a", state={}) is None
    assert catalog.notices.take("a", seen=first) is None
    assert catalog.notices.renew(second, owner=NOBODY, state={}) is not None
    assert catalog.notices.read() == NoticeHolder(owner=NOBODY, beat=4, state={})
