"""Where the version that a release wants is corrupt, the newest whole one before it serves."""

from pathlib import Path

import pytest

from indexrelay.reloaders.fallback import earlier_versions
from indexrelay.schemas.messages import LoadOutcome
from indexrelay.schemas.versions import Hold, Release
from tests.reloaders.bench import Bench, make_settings, outcomes, state_of, texts
from tests.reloaders.test_scrubber import blob_of, overwrite, scrubber
from tests.storage.artifacts.samples import MOMENT


def release(number: int, *held: str, **components: str) -> Release:
    holds = {name: Hold(reason="a test", since=MOMENT) for name in held}
    # Unchecked, so that versions may be called "1" and "2".
    return Release.model_construct(
        number=number,
        components=components,
        holds=holds,
        created_at=MOMENT,
        reason="a test",
        previous=number - 1,
    )


def order(wanted: dict[str, str], *releases: Release) -> list[dict[str, str]]:
    return list(earlier_versions(wanted, releases))


@pytest.mark.parametrize(
    ("releases", "expected"),
    [
        ([release(3, a="3"), release(2, a="2"), release(1, a="1")], ["2", "1"]),
        ([release(3, a="3"), release(2, a="3"), release(1, a="1")], ["1"]),
        ([release(3, a="3"), release(2, b="2"), release(1, a="1")], ["1"]),
        ([release(1, a="3")], []),
        # Held at 3 without another change, then built on from there.
        ([release(4, "a", a="3"), release(3, a="3"), release(2, a="2")], ["2"]),
        # A person went back from 5 and 4 to 3: neither of them may stand in.
        (
            [
                *(release(6, "a", a="3"), release(5, a="5"), release(4, a="4")),
                *(release(3, a="3"), release(2, a="2"), release(1, a="1")),
            ],
            ["2", "1"],
        ),
        # … nor when the hold is a thing of the past.
        (
            [
                *(release(7, a="7"), release(6, "a", a="3"), release(5, a="5")),
                *(release(3, a="3"), release(2, a="2")),
            ],
            ["3", "2"],
        ),
    ],
)
def test_earlier_versions_come_newest_first_and_never_one_that_was_rolled_back(
    releases: list[Release], expected: list[str]
) -> None:
    wanted = {"a": releases[0].components["a"]}
    assert order(wanted, *releases) == [{"a": version} for version in expected]


def test_the_versions_of_a_group_come_from_one_release() -> None:
    wanted = {"a": "3", "b": "3"}
    found = order(
        wanted,
        release(3, a="3", b="3"),
        release(2, a="2"),
        release(1, a="1", b="1"),
    )
    assert found == [{"a": "2"}, {"a": "1", "b": "1"}]


def test_of_a_release_come_all_versions_and_then_those_that_were_one_group_in_it() -> None:
    wanted = {"a": "2", "b": "2", "c": "2"}
    joined = release(1, a="1", b="1", c="1").model_copy(update={"groups": {"a": "x", "b": "x"}})
    found = order(wanted, release(2, a="2", b="2", c="2"), joined)
    assert found == [{"a": "1", "b": "1", "c": "1"}, {"a": "1", "b": "1"}]


@pytest.mark.parametrize("before", ["new", "alone"])
def test_a_group_stands_in_as_it_was_before_a_member_joined_that_cannot_be_loaded(
    bench: Bench, before: str
) -> None:
    groups = {"voyager": "songs", "map": "songs"}
    if before == "alone":
        bench.publish(clap="c0")  # at another state than the others
    bench.publish(groups=groups, voyager="v1", map="m1")
    running = bench.reader("running")
    running.step()
    bench.publish(groups={**groups, "clap": "songs"}, voyager="v2", map="m2", clap="c2")
    good = blob_of(bench, "clap")
    overwrite(good, "cX")
    alone = {"clap": "c0"} if before == "alone" else {}
    running.step()
    assert texts(running) == {"voyager": "v1", "map": "m1", **alone}
    starting = bench.reader("starting")
    starting.step()
    assert texts(starting) == {"voyager": "v1", "map": "m1"}
    assert state_of(starting, "clap").outcome is LoadOutcome.FAILED
    assert not starting.step()  # looked at again, and left as it is
    overwrite(good, "c2")
    for reader in (running, starting):
        assert reader.step()
        assert texts(reader) == {"voyager": "v2", "map": "m2", "clap": "c2"}


def test_a_group_that_is_served_does_not_go_back_to_before_a_member_joined(bench: Bench) -> None:
    """What is corrupt is withdrawn, and the others stay where they are."""
    bench.publish(groups={"voyager": "songs"}, voyager="v1")
    groups = {"voyager": "songs", "map": "songs"}
    bench.publish(groups=groups, voyager="v2", map="m2")
    reader = bench.reader()
    reader.step()
    overwrite(blob_of(bench, "map"), "mX")
    scrubber(bench, reader).look()
    reader.step()
    assert texts(reader) == {"voyager": "v2"}


def test_a_reader_that_starts_on_a_corrupt_release_serves_the_version_before(
    bench: Bench,
) -> None:
    bench.publish(voyager="v1", clap="c1")
    second = bench.publish(voyager="v2", clap="c2")
    overwrite(blob_of(bench, "voyager"), "vX")
    reader = bench.reader()
    assert reader.step()
    assert texts(reader) == {"voyager": "v1", "clap": "c2"}
    assert outcomes(reader) == {"voyager": "failed", "clap": "applied"}
    assert state_of(reader, "voyager").wanted == second.components["voyager"]
    assert (reader.state.release, reader.ready) == (2, True)
    overwrite(blob_of(bench, "voyager"), "v2")
    assert reader.step()
    assert texts(reader) == {"voyager": "v2", "clap": "c2"}


def test_one_that_is_corrupt_as_well_is_passed_over(bench: Bench) -> None:
    corrupt: list[Path] = []
    for number in (1, 2, 3):
        bench.publish(voyager=f"v{number}")
        corrupt.append(blob_of(bench, "voyager"))
    for path in corrupt[1:]:
        overwrite(path, "vX")
    reader = bench.reader()
    reader.step()
    assert texts(reader) == {"voyager": "v1"}


def test_numbers_that_the_store_lost_are_passed_over(bench: Bench) -> None:
    bench.publish(voyager="v1")
    bench.publish(voyager="v2")
    corrupt = blob_of(bench, "voyager")
    bench.store.renumber(lost=1000, reason="readers were ahead")
    overwrite(corrupt, "vX")
    reader = bench.reader()
    reader.step()
    assert texts(reader) == {"voyager": "v1"}


def test_what_stands_in_and_turns_out_to_be_corrupt_is_replaced_by_what_is_older(
    bench: Bench,
) -> None:
    paths = []
    for number in (1, 2, 3):
        bench.publish(voyager=f"v{number}")
        paths.append(blob_of(bench, "voyager"))
    overwrite(paths[2], "vX")
    reader = bench.reader()
    reader.step()
    assert texts(reader) == {"voyager": "v2"}
    overwrite(paths[1], "vX")
    scrubber(bench, reader).look()
    assert reader.step()
    assert texts(reader) == {"voyager": "v1"}


def test_a_group_stands_in_as_a_group(bench: Bench) -> None:
    groups = {"voyager": "songs", "map": "songs"}
    bench.publish(groups=groups, voyager="v1", map="m1", clap="c1")
    bench.publish(groups=groups, voyager="v2", map="m2", clap="c2")
    reader = bench.reader()
    reader.step()
    overwrite(blob_of(bench, "map"), "mX")
    scrubber(bench, reader).look()
    assert reader.step()
    assert texts(reader) == {"voyager": "v1", "map": "m1", "clap": "c2"}
    bench.publish(groups=groups, map="m3")
    reader.step()
    assert texts(reader) == {"voyager": "v2", "map": "m3", "clap": "c2"}


def test_versions_of_two_states_are_no_fallback_for_a_group(bench: Bench) -> None:
    groups = {"voyager": "songs", "map": "songs"}
    bench.publish(groups=groups, voyager="v1", map="m1")
    bench.publish(voyager="v2")  # not a group then: the one is ahead of the other
    bench.publish(groups=groups, voyager="v3", map="m3")
    overwrite(blob_of(bench, "map"), "mX")
    reader = bench.reader()
    reader.step()
    assert texts(reader) == {"voyager": "v1", "map": "m1"}


def test_who_left_the_release_does_not_stay_beside_a_group_that_goes_back(bench: Bench) -> None:
    groups = dict.fromkeys(("voyager", "map", "clap"), "songs")
    bench.publish(groups=groups, voyager="v1", map="m1", clap="c1")
    bench.publish(groups=groups, voyager="v2", map="m2", clap="c2")
    served = blob_of(bench, "map")
    reader = bench.reader()
    reader.step()
    del bench.components["clap"]
    bench.publish(groups={"voyager": "songs", "map": "songs"}, voyager="rubbish", map="m3")
    reader.step()
    assert texts(reader) == {"voyager": "v2", "map": "m2", "clap": "c2"}
    overwrite(served, "mX")
    scrubber(bench, reader).look()
    assert reader.step()
    assert texts(reader) == {"voyager": "v1", "map": "m1"}


def test_a_rollback_to_a_corrupt_version_does_not_bring_back_what_it_went_back_from(
    bench: Bench,
) -> None:
    bench.publish(voyager="v1")
    bench.publish(voyager="v2")
    good = blob_of(bench, "voyager")
    bench.publish(voyager="v3")
    bench.store.rollback(2, reason="bad songs")
    reader = bench.reader()
    reader.step()
    assert texts(reader) == {"voyager": "v2"}
    overwrite(good, "vX")
    scrubber(bench, reader).look()
    reader.step()
    assert texts(reader) == {"voyager": "v1"}


@pytest.mark.parametrize("budget", [4, 5])
def test_an_earlier_version_that_the_budget_has_no_room_for_does_not_stand_in(
    bench: Bench, budget: int
) -> None:
    bench.settings = make_settings(bench.folder, memory_budget_bytes=budget)
    bench.publish(clap="c1", voyager="v-1")
    bench.publish(voyager="v2")
    overwrite(blob_of(bench, "voyager"), "vX")
    reader = bench.reader()
    reader.step()
    expected = {"clap": "c1", "voyager": "v-1"} if budget == 5 else {"clap": "c1"}
    assert texts(reader) == expected


def test_one_that_has_room_only_without_what_is_corrupt_stands_in_after_that(bench: Bench) -> None:
    bench.settings = make_settings(bench.folder, memory_budget_bytes=3)
    bench.publish(voyager="v1")
    bench.publish(voyager="v2")
    reader = bench.reader()
    reader.step()
    overwrite(blob_of(bench, "voyager"), "vX")
    scrubber(bench, reader).look()
    reader.step()
    assert texts(reader) == {}
    reader.step()
    assert texts(reader) == {"voyager": "v1"}
    bench.clock.advance(600)
    assert not reader.step()
