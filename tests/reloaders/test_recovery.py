"""A reader asks for a build of what is damaged: once, later again, and never of what is held."""

from collections.abc import Collection
from itertools import pairwise

import pytest

from indexrelay.reloaders.recovery import Recovery
from tests.reloaders.bench import Bench
from tests.reloaders.test_scrubber import blob_of, overwrite, scrubber
from tests.storage.artifacts.samples import MovedClock

VERSION = "a" * 64


class Desk:
    """Takes down requests, where there is a catalog."""

    def __init__(self) -> None:
        self.there = True
        self.asked: list[tuple[str, bool]] = []

    def request(
        self,
        request_id: str,
        components: Collection[str],
        reason: str,  # noqa: ARG002 - not looked at
        *,
        full: bool = False,
    ) -> bool:
        if self.there:
            assert [*components] == [request_id.split("-")[1]]
            self.asked.append((request_id, full))
        return self.there


class Damage:
    """What a reader cannot load, and what a person holds."""

    def __init__(self) -> None:
        self.versions: dict[str, str] = {}
        self.held: set[str] = set()


@pytest.fixture
def desk() -> Desk:
    return Desk()


@pytest.fixture
def damage() -> Damage:
    return Damage()


@pytest.fixture
def clock() -> MovedClock:
    return MovedClock()


@pytest.fixture
def recovery(desk: Desk, damage: Damage, clock: MovedClock) -> Recovery:
    return Recovery(desk, damaged=lambda: damage.versions, held=lambda: damage.held, clock=clock)


def test_damage_that_is_still_there_at_the_next_look_is_asked_for_once_and_in_full(
    recovery: Recovery, desk: Desk, damage: Damage
) -> None:
    damage.versions = {"map": VERSION}
    recovery.look()
    assert desk.asked == []  # a rebuilder that sees it builds by itself
    for _ in range(3):
        recovery.look()
    assert desk.asked == [(f"recovery-map-{VERSION}", True)]


def test_damage_that_was_repaired_meanwhile_is_not_asked_for(
    recovery: Recovery, desk: Desk, damage: Damage
) -> None:
    damage.versions = {"map": VERSION}
    recovery.look()
    damage.versions = {}
    recovery.look()
    damage.versions = {"map": "b" * 64}
    recovery.look()
    assert desk.asked == []


def test_what_a_person_holds_is_not_asked_for(
    recovery: Recovery, desk: Desk, damage: Damage
) -> None:
    damage.versions, damage.held = {"map": VERSION, "clap": VERSION}, {"map"}
    for _ in range(3):
        recovery.look()
    assert desk.asked == [(f"recovery-clap-{VERSION}", True)]


def test_one_version_after_another_that_is_damaged_is_asked_for_with_growing_pauses(
    recovery: Recovery, desk: Desk, damage: Damage, clock: MovedClock
) -> None:
    at: list[float] = []
    for _ in range(2000):  # more than five hours
        damage.versions = {"map": f"{len(desk.asked):064}"}
        before = len(desk.asked)
        recovery.look()
        if len(desk.asked) > before:
            at.append(clock.monotonic())
        clock.advance(10)
    pauses = [later - earlier for earlier, later in pairwise(at)]
    assert pauses[:5] == sorted(pauses[:5])
    assert pauses[0] >= 48  # a minute, less its jitter
    assert 5 <= len(pauses) <= 12
    damage.versions = {}
    recovery.look()
    clock.advance(10_000)
    damage.versions = {"map": VERSION}
    before = len(desk.asked)
    recovery.look()
    recovery.look()
    assert len(desk.asked) == before + 1
    clock.advance(75)
    damage.versions = {"map": "b" * 64}
    recovery.look()
    recovery.look()
    assert len(desk.asked) == before + 2  # after so long the pauses begin anew


def test_a_reader_without_the_catalog_says_once_that_its_presence_has_to_do(
    recovery: Recovery, desk: Desk, damage: Damage, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="indexrelay")
    desk.there = False
    damage.versions = {"map": VERSION}
    for _ in range(4):
        recovery.look()
    assert len([each for each in caplog.messages if "recovery.reported" in each]) == 1
    desk.there = True
    recovery.look()
    assert desk.asked == [(f"recovery-map-{VERSION}", True)]


def test_corrupt_and_missing_files_are_damage_and_a_load_that_fails_otherwise_is_not(
    bench: Bench,
) -> None:
    bench.publish(voyager="v1", clap="c1", map="rubbish")
    reader = bench.reader()
    reader.step()
    overwrite(blob_of(bench, "voyager"), "vX")
    scrubber(bench, reader).look()
    reader.step()
    blob_of(bench, "clap").unlink()
    late = bench.reader("late")
    late.step()
    assert reader._follower.damaged == {"voyager": bench.components["voyager"]}
    assert late._follower.damaged == {name: bench.components[name] for name in ("voyager", "clap")}
