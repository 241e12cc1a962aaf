"""A reader asks for a build of what is damaged: once, later again, and never of what is held."""

from collections.abc import Iterator, Mapping
from contextlib import closing
from itertools import pairwise
from pathlib import Path

import pytest

from indexrelay.components.errors import CorruptFileError
from indexrelay.reloaders.catalog import CatalogAccess
from indexrelay.reloaders.recovery import Recovery
from indexrelay.schemas.settings import Settings
from indexrelay.storage.catalog import Catalog
from tests.reloaders.bench import Bench, make_settings
from tests.reloaders.kinds import ServedWords, Words
from tests.reloaders.test_scrubber import blob_of, overwrite, scrubber
from tests.storage.artifacts.samples import MovedClock

VERSION = "a" * 64


class Desk:
    """The inbox of a catalog, as a reader reaches it."""

    def __init__(self, settings: Settings, clock: MovedClock) -> None:
        self.access = CatalogAccess(settings, clock)
        self.catalog = Catalog.open(settings.catalog_url, clock=clock)

    @property
    def asked(self) -> list[tuple[str, bool]]:
        """What is not answered yet."""
        requests = self.catalog.inbox.open_requests()
        for each in requests:
            assert [*each.components] == [each.request_id.split("-")[1]]
        return [(each.request_id, each.full) for each in requests]

    def answer(self) -> None:
        """Whatever came of the builds."""
        self.catalog.inbox.finish([request_id for request_id, _ in self.asked])

    def close(self) -> None:
        self.access.close()
        self.catalog.close()


class Damage:
    """What a reader cannot load, and what a person holds."""

    def __init__(self) -> None:
        self.versions: dict[str, str] = {}
        self.held: set[str] = set()


@pytest.fixture
def desk(tmp_path: Path, clock: MovedClock) -> Iterator[Desk]:
    with closing(Desk(make_settings(tmp_path), clock)) as desk:
        yield desk


@pytest.fixture
def damage() -> Damage:
    return Damage()


@pytest.fixture
def clock() -> MovedClock:
    return MovedClock()


def make_recovery(access: CatalogAccess, damage: Damage, clock: MovedClock) -> Recovery:
    return Recovery(access, damaged=lambda: damage.versions, held=lambda: damage.held, clock=clock)


@pytest.fixture
def recovery(desk: Desk, damage: Damage, clock: MovedClock) -> Recovery:
    return make_recovery(desk.access, damage, clock)


def test_damage_that_is_still_there_at_the_next_look_is_asked_for_once_and_in_full(
    recovery: Recovery, desk: Desk, damage: Damage
) -> None:
    damage.versions = {"map": VERSION}
    recovery.look()
    assert desk.asked == []  # a rebuilder that sees it builds by itself
    for _ in range(3):
        recovery.look()
    assert desk.asked == [(f"recovery-map-{VERSION}-1", True)]


def test_what_a_build_did_not_repair_is_asked_for_again_by_all_readers_together(
    recovery: Recovery, desk: Desk, damage: Damage, clock: MovedClock
) -> None:
    readers = [recovery, make_recovery(desk.access, damage, clock)]
    damage.versions = {"map": VERSION}

    def look(seconds: float) -> list[str]:
        clock.advance(seconds)
        for reader in readers:
            reader.look()
        return [request_id for request_id, _ in desk.asked]

    assert look(0) == []
    assert look(10) == look(600) == [f"recovery-map-{VERSION}-1"]  # nobody has built it yet
    desk.answer()
    assert look(0) == []
    assert look(600) == [f"recovery-map-{VERSION}-2"]
    desk.answer()
    readers.append(
        make_recovery(desk.access, damage, clock)
    )  # has no part in what was asked before
    assert look(10) == look(10) == []
    assert look(600) == [f"recovery-map-{VERSION}-3"]


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
    assert desk.asked == [(f"recovery-clap-{VERSION}-1", True)]


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
    tmp_path: Path, damage: Damage, clock: MovedClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="indexrelay")
    settings = make_settings(tmp_path)
    access = CatalogAccess(settings, clock)
    recovery = make_recovery(access, damage, clock)
    damage.versions = {"map": VERSION}
    for _ in range(4):
        recovery.look()
    assert len([each for each in caplog.messages if "recovery.reported" in each]) == 1
    clock.advance(60)
    with closing(access), closing(Desk(settings, clock)) as desk:  # now there is one
        recovery.look()
        assert desk.asked == [(f"recovery-map-{VERSION}-1", True)]


def test_corrupt_and_missing_files_are_damage_and_a_load_that_fails_otherwise_is_not(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = Words.load

    def refusing(kind: Words, files: Mapping[str, Path]) -> ServedWords:
        if files["part0"].read_text() == "cut":
            raise CorruptFileError(files["part0"], "a test")
        return load(kind, files)

    monkeypatch.setattr(Words, "load", refusing)
    bench.publish(voyager="v1", clap="c1", map="rubbish")
    reader = bench.reader()
    reader.step()
    overwrite(blob_of(bench, "voyager"), "vX")
    scrubber(bench, reader).look()
    reader.step()
    blob_of(bench, "clap").unlink()
    late = bench.reader("late")
    late.step()
    assert reader.damaged == {"voyager": bench.components["voyager"]}
    assert late.damaged == {name: bench.components[name] for name in ("voyager", "clap")}
    bench.publish(clap="cut", voyager="v2", map="m2")
    manifest = bench.settings.artifacts_dir / "versions" / "voyager"
    (gone,) = manifest.glob(f"{bench.components['voyager']}*")
    overwrite(gone, "{}")
    late.step()
    assert late.damaged == {name: bench.components[name] for name in ("voyager", "clap")}
