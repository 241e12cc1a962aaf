"""Four readers: a release that few take first, one that is taken back, and who may decide on it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from indexrelay.health.judge import judge
from indexrelay.health.status import Code, Problem, Verdict
from indexrelay.health.survey import Survey
from indexrelay.rebuilder import InlineRunner, Rebuilder
from indexrelay.rebuilder.rollout import choose_canaries, labels_of
from indexrelay.reloaders import Reloader
from indexrelay.schemas.clock import SystemClock
from indexrelay.schemas.gates import Doubt
from indexrelay.schemas.messages import LoadOutcome, ReaderState, RebuildStatus, Refusal
from indexrelay.schemas.settings import ComponentDefinition, ReleaseSettings, Settings
from indexrelay.schemas.versions import Release
from indexrelay.storage.audit import AuditLog
from indexrelay.streams import Keys, Presence, members_of
from indexrelay.testing.faults import corrupt_version
from indexrelay.testing.pipeline import Pipeline
from tests.streams.polling import eventually

LABELS = ("a", "b", "c", "d")
CANARY_SECONDS = 60.0


class Fleet:
    """A rebuilder and four readers, each of which does something only when it is told to."""

    def __init__(self, folder: Path, **releases: Any) -> None:
        self.settings = Settings.model_validate(
            {
                "collections": {"tracks": {"dimension": 4, "metric": "l2"}},
                "components": {"index": {"kind": "vector_index", "from": "tracks"}},
                "releases": {"canary_seconds": CANARY_SECONDS, **releases},
            }
        )
        self.pipeline = Pipeline(self.settings, folder)
        self.readers: list[Reloader] = []
        self.killed: list[Reloader] = []
        self.batches = 0

    def begin(self) -> None:
        """Release 1, which all four serve."""
        for label in LABELS:
            self.start(label)
        self.commit()
        self.look()
        assert {self.serves(label) for label in LABELS} == {self.release().components["index"]}

    def start(self, label: str, **reader: Any) -> Reloader:
        """One more process under a label, with a table ``[reader]`` of its own."""
        settings = self.pipeline.settings.model_copy(
            update={"reader": self.settings.reader.model_copy(update=reader)}
        )
        started = Reloader(
            settings,
            reader_id=label,
            store=self.pipeline.store,
            connection=self.pipeline.connection,
            clock=self.pipeline.clock,
        )
        self.readers.append(started)
        started.step()
        return started

    def end(self, label: str) -> None:
        """End every process under a label; its presence ends with it."""
        for reader in self.of(label):
            reader.stop()
            self.readers.remove(reader)

    def kill(self, label: str) -> None:
        """Every process under a label dies: its presence stays until it ends by itself."""
        ttl = self.settings.reader.presence_ttl_seconds
        members = [reader.state.member for reader in self.of(label)]
        self.killed += self.of(label)
        self.readers = [reader for reader in self.readers if reader not in self.killed]
        assert not self.decide()
        self.pipeline.clock.advance(0.9 * ttl)
        assert not self.decide()
        presence = Presence(
            self.pipeline.connection, Keys(self.pipeline.settings.namespace), "reader"
        )
        for member in members:
            presence.remove(member)

    def let_refuse(self, *labels: str) -> None:
        """Start readers again with memory for the version that serves, and for no other."""
        budget = self.pipeline.store.version("index", self.release().components["index"]).size
        for label in labels:
            self.end(label)
            self.start(label, memory_budget_bytes=budget)

    def of(self, label: str) -> list[Reloader]:
        return [reader for reader in self.readers if reader.reader_id == label]

    def batch(self) -> None:
        """Twenty entries more."""
        self.batches += 1
        with self.pipeline.producer.batch("tracks") as batch:
            vectors = np.random.default_rng(self.batches).normal(size=(20, 4)).astype(np.float32)
            batch.upsert([f"{self.batches}-{row}" for row in range(20)], vectors)

    def commit(self) -> None:
        """A batch, and the pass that builds it."""
        self.batch()
        result = self.pipeline.rebuild()
        assert result is not None
        assert result.status is RebuildStatus.SUCCESS

    def look(self) -> None:
        for reader in self.readers:
            reader.step()

    def decide(self) -> bool:
        """Readers look, then the rebuilder decides, then readers look at what came of it."""
        self.look()
        decided = self.pipeline.rebuilder.decide_on_release()
        self.look()
        return decided

    def wait(self, seconds: float = CANARY_SECONDS) -> bool:
        """Decide, let time pass, decide again; whether anything came of it."""
        first = self.decide()
        self.pipeline.clock.advance(seconds)
        return self.decide() or first

    def release(self) -> Release:
        newest = self.pipeline.store.newest_release()
        assert newest is not None
        return newest

    def canaries(self) -> tuple[str, ...]:
        canary = self.release().canary
        return () if canary is None else canary.readers

    def order(self, number: int) -> list[str]:
        """In which order readers would be asked to try a release."""
        keys = Keys(self.pipeline.settings.namespace)
        labels = labels_of(members_of(self.pipeline.connection, keys, ReaderState).known)
        found: list[str] = []
        while len(found) < len(labels):
            found += choose_canaries(
                labels, number=number, components={"index"}, count=1, without=found
            )
        return found

    def serves(self, label: str) -> str | None:
        (version,) = {reader.state.components["index"].version for reader in self.of(label)}
        return version

    def verdict(self) -> Verdict:
        pipeline = self.pipeline
        survey = Survey.opened(
            pipeline.settings,
            catalog=pipeline.catalog,
            store=pipeline.store,
            connection=pipeline.connection,
            clock=pipeline.clock,
        )
        return judge(survey.whole())

    def problem(self, code: Code) -> Problem:
        return next(each for each in self.verdict().problems if each.code is code)

    def close(self) -> None:
        for reader in (*self.readers, *self.killed):
            reader.stop()
        self.pipeline.close()


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    """With one canary for each release."""
    made = Fleet(tmp_path, canary_readers=1)
    made.begin()
    yield made
    made.close()


@pytest.fixture
def voters(tmp_path: Path) -> Iterator[Fleet]:
    """Without canaries: a release is for everyone, and is taken back by votes."""
    made = Fleet(tmp_path, enable_rollback=True)
    made.begin()
    yield made
    made.close()


def test_the_first_release_is_for_everyone(fleet: Fleet) -> None:
    assert fleet.release().number == 1
    assert fleet.canaries() == ()


def test_a_canary_serves_a_release_first_and_the_others_follow(fleet: Fleet) -> None:
    before = fleet.release().components["index"]
    fleet.commit()
    after = fleet.release().components["index"]
    (canary,) = fleet.canaries()
    fleet.look()
    assert {label: fleet.serves(label) for label in LABELS} == {
        label: after if label == canary else before for label in LABELS
    }
    assert not fleet.wait(CANARY_SECONDS - 1)
    assert fleet.wait(1)
    assert fleet.canaries() == ()
    assert fleet.release().number == 3
    assert {fleet.serves(label) for label in LABELS} == {after}


def test_a_waiting_canary_is_a_note_and_no_problem(fleet: Fleet) -> None:
    fleet.commit()
    fleet.look()
    (canary,) = fleet.canaries()
    verdict = fleet.verdict()
    assert {problem.code for problem in verdict.problems} <= {Code.NO_REBUILDER}
    (note,) = [note for note in verdict.notes if "is tried by" in note]
    assert note.startswith(f"release 2 is tried by {canary} since")


def test_a_reader_that_starts_without_redis_serves_what_those_do_who_wait(fleet: Fleet) -> None:
    before = fleet.release().components["index"]
    fleet.commit()
    with fleet.pipeline.without_redis():
        late = fleet.start("late")
    assert late.state.components["index"].version == before
    assert late.state.release == 2
    assert late.problems == ()


def test_where_one_canary_refuses_another_one_tries(fleet: Fleet) -> None:
    before = fleet.release().components["index"]
    first, second, *others = fleet.order(2)
    fleet.let_refuse(first)
    fleet.commit()
    assert fleet.canaries() == (first,)
    assert fleet.decide()
    assert fleet.canaries() == (second,)
    assert fleet.wait()
    after = fleet.release().components["index"]
    assert fleet.canaries() == ()
    assert {fleet.serves(label) for label in (second, *others)} == {after}
    assert fleet.serves(first) == before
    state = fleet.of(first)[0].state.components["index"]
    assert (state.outcome, state.refusal) == (LoadOutcome.FAILED, Refusal.MEMORY)


def test_a_release_that_two_canaries_refuse_is_taken_back_and_held(fleet: Fleet) -> None:
    before = fleet.release().components["index"]
    first, second, *_ = fleet.order(2)
    fleet.let_refuse(first, second)
    fleet.commit()
    assert fleet.decide()
    assert fleet.decide()
    release = fleet.release()
    assert (release.number, release.canary) == (4, None)
    assert release.components == {"index": before}
    assert release.reason.startswith("rolled back index of release 3: canaries refused it: ")
    assert {fleet.serves(label) for label in LABELS} == {before}
    (line,) = AuditLog.of(fleet.pipeline.settings).newest(1)
    assert (line["action"], line["subject"]) == ("rolled_back", "release 4")
    assert line["components"] == ["index"]
    problem = fleet.problem(Code.RELEASE_ROLLED_BACK)
    assert problem.subject == "index"
    assert "reader.memory_budget_bytes" in problem.what
    assert not problem.asked
    assert not fleet.verdict().well
    # The same is not built again by itself, and is once somebody has mended the cause.
    assert fleet.pipeline.rebuild() is None
    fleet.pipeline.store.lift("index", reason="there is more memory now")
    assert fleet.pipeline.rebuild() is not None
    assert fleet.canaries()


def test_a_canary_that_dies_is_followed_by_another_one(fleet: Fleet) -> None:
    fleet.commit()
    (first,) = fleet.canaries()
    fleet.decide()
    fleet.kill(first)
    assert fleet.decide()
    (second,) = fleet.canaries()
    assert second != first
    canary = fleet.release().canary
    assert canary is not None
    assert canary.doubted == {first: Doubt.DIED}
    assert fleet.wait()
    living = [label for label in LABELS if label != first]
    assert {fleet.serves(label) for label in living} == {fleet.release().components["index"]}
    assert fleet.canaries() == ()


def test_a_release_of_which_two_canaries_died_is_taken_back(fleet: Fleet) -> None:
    before = fleet.release().components
    fleet.commit()
    for _ in range(2):
        (canary,) = fleet.canaries()
        fleet.decide()
        fleet.kill(canary)
        assert fleet.decide()
    assert fleet.release().components == before
    assert fleet.release().holds["index"].refused
    assert "canaries died: " in fleet.release().reason


def test_canaries_that_are_stopped_are_replaced_without_doubt(fleet: Fleet) -> None:
    fleet.commit()
    gone = fleet.settings.reader.presence_ttl_seconds + 1
    for _ in range(2):
        (canary,) = fleet.canaries()
        fleet.decide()
        fleet.end(canary)
        fleet.pipeline.clock.advance(gone)
        assert fleet.decide()
    waiting = fleet.release().canary
    assert waiting is not None
    assert waiting.doubted == {}
    assert fleet.wait()
    assert (fleet.canaries(), fleet.release().holds) == ((), {})


def test_a_canary_that_is_started_again_under_its_label_goes_on(fleet: Fleet) -> None:
    fleet.commit()
    (canary,) = fleet.canaries()
    fleet.decide()
    fleet.end(canary)
    assert not fleet.decide()
    fleet.start(canary)
    assert not fleet.wait(CANARY_SECONDS - 1)
    assert fleet.wait(1)
    assert fleet.canaries() == ()


def test_a_canary_that_serves_nothing_and_says_nothing_is_replaced_in_time(fleet: Fleet) -> None:
    before = fleet.release().components
    fleet.commit()
    longest = fleet.settings.releases.canary_load_seconds + CANARY_SECONDS
    for _ in range(2):
        (canary,) = fleet.canaries()
        claim(fleet, canary, Refusal.DAMAGE)
        assert not fleet.pipeline.rebuilder.decide_on_release()
        fleet.pipeline.clock.advance(longest)
        claim(fleet, canary, Refusal.DAMAGE)
        assert fleet.pipeline.rebuilder.decide_on_release()
    release = fleet.release()
    assert (release.components, release.holds) == (before, {})
    assert "it did not serve it within 300 s" in release.reason


def test_a_canary_that_nobody_decides_on_is_a_problem(fleet: Fleet) -> None:
    fleet.commit()
    fleet.pipeline.clock.advance(3600)
    assert fleet.problem(Code.CANARY_WAITS).what.startswith("release 2 is tried by ")


def test_a_process_of_another_service_under_the_label_of_a_canary_stops_nothing(
    fleet: Fleet,
) -> None:
    first = fleet.order(2)[0]
    fleet.start(first, components=())
    fleet.commit()
    assert fleet.canaries() == (first,)
    fleet.decide()
    fleet.pipeline.clock.advance(CANARY_SECONDS)
    assert fleet.decide()
    assert fleet.canaries() == ()


def test_a_canary_that_never_came_is_waited_for_as_long_as_presence_lasts(fleet: Fleet) -> None:
    first = fleet.order(2)[0]
    fleet.commit()
    fleet.end(first)
    assert not fleet.decide()
    fleet.pipeline.clock.advance(fleet.settings.reader.presence_ttl_seconds + 1)
    assert fleet.decide()
    assert fleet.canaries() != (first,)


def test_while_a_label_cannot_be_read_its_reader_does_not_count_as_gone(fleet: Fleet) -> None:
    fleet.commit()
    (canary,) = fleet.canaries()
    fleet.decide()
    member = fleet.of(canary)[0].state.member
    fleet.end(canary)
    presence = Presence(
        fleet.pipeline.connection, Keys(fleet.pipeline.settings.namespace), "reader"
    )
    other = fleet.of(next(label for label in LABELS if label != canary))[0].state
    presence.publish(member, other.model_dump_json().encode(), ttl_seconds=60)
    assert not fleet.decide()


def test_a_batch_that_is_built_beside_a_canary_begins_its_time_again(fleet: Fleet) -> None:
    stays = fleet.release().components["index"]
    fleet.commit()
    (canary,) = fleet.canaries()
    fleet.decide()
    fleet.pipeline.clock.advance(CANARY_SECONDS - 1)
    fleet.commit()
    release = fleet.release()
    assert release.canary is not None
    assert (release.canary.readers, release.canary.components) == ((canary,), {"index": stays})
    assert not fleet.wait(CANARY_SECONDS - 1)
    assert fleet.wait(1)
    assert {fleet.serves(label) for label in LABELS} == {release.components["index"]}


def test_a_person_who_goes_back_ends_a_canary(fleet: Fleet) -> None:
    before = fleet.release().components
    fleet.commit()
    fleet.look()
    fleet.pipeline.store.rollback(1, reason="too loud")
    fleet.look()
    assert (fleet.release().components, fleet.release().canary) == (before, None)
    assert {fleet.serves(label) for label in LABELS} == {before["index"]}
    assert fleet.problem(Code.COMPONENT_HELD).asked


def test_a_hold_during_a_canary_stays_when_it_is_promoted(fleet: Fleet) -> None:
    fleet.commit()
    fleet.pipeline.store.hold("index", reason="for the demo")
    canary = fleet.release().canary
    assert canary is not None
    assert set(canary.holds) == {"index"}
    fleet.wait()
    assert fleet.canaries() == ()
    assert fleet.release().holds["index"].refused is None


def test_damage_that_is_none_neither_stops_nor_counts(fleet: Fleet) -> None:
    fleet.commit()
    fleet.look()
    (canary,) = fleet.canaries()
    claim(fleet, canary, Refusal.DAMAGE)
    assert not fleet.pipeline.rebuilder.decide_on_release()
    assert fleet.canaries() == (canary,)


def test_damage_ends_a_canary_without_a_hold_and_is_built_again(fleet: Fleet) -> None:
    before = fleet.release().components
    fleet.commit()
    corrupt_version(fleet.pipeline.store, "index")
    fleet.look()
    (canary,) = fleet.canaries()
    claim(fleet, canary, Refusal.DAMAGE)
    assert fleet.pipeline.rebuilder.decide_on_release()
    assert (fleet.release().components, fleet.release().holds) == (before, {})
    assert fleet.pipeline.rebuild() is not None


def claim(fleet: Fleet, label: str, refusal: Refusal, *, instance: str = "") -> None:
    """What somebody writes who has the password of a label."""
    (version,) = {fleet.release().components["index"]}
    state = fleet.of(label)[0].state
    component = state.components["index"].model_copy(
        update={
            "outcome": LoadOutcome.FAILED,
            "wanted": version,
            "refusal": refusal,
            "error": "so it says",
        }
    )
    said = state.model_copy(
        update={
            "instance": instance or state.instance,
            "components": {"index": component},
            "release": fleet.release().number,
        }
    )
    presence = Presence(
        fleet.pipeline.connection, Keys(fleet.pipeline.settings.namespace), "reader"
    )
    presence.publish(said.member, said.model_dump_json().encode(), ttl_seconds=60)


def test_without_canaries_one_of_four_that_refuses_takes_nothing_back(voters: Fleet) -> None:
    before = voters.release().components["index"]
    voters.let_refuse("a")
    voters.commit()
    voters.of("a")[0].step()  # while the others still load
    assert not voters.pipeline.rebuilder.decide_on_release()
    assert not voters.decide()
    assert voters.serves("a") == before
    assert {voters.serves(label) for label in "bcd"} == {voters.release().components["index"]}


def test_without_canaries_two_of_four_take_a_release_back(voters: Fleet) -> None:
    before = voters.release().components
    voters.let_refuse("a", "b")
    voters.commit()
    assert voters.decide()
    release = voters.release()
    assert release.components == before
    assert "2 of 4 reader(s) refused it, a: index: " in release.holds["index"].reason
    assert {voters.serves(label) for label in LABELS} == {before["index"]}
    assert voters.problem(Code.RELEASE_ROLLED_BACK).subject == "index"
    assert not voters.decide()


def test_what_has_nothing_to_go_back_to_stays(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, enable_rollback=True)
    try:
        for label in LABELS:
            fleet.start(label, memory_budget_bytes=1)
        fleet.commit()
        assert not fleet.decide()
        assert fleet.release().number == 1
    finally:
        fleet.close()


def test_all_processes_under_one_label_have_one_vote(voters: Fleet) -> None:
    voters.commit()
    voters.look()
    for number in range(5):
        claim(voters, "a", Refusal.LOAD, instance=f"{number:016x}")
    assert not voters.pipeline.rebuilder.decide_on_release()
    claim(voters, "b", Refusal.LOAD)
    assert voters.pipeline.rebuilder.decide_on_release()


def test_damage_that_readers_report_takes_nothing_back(voters: Fleet) -> None:
    voters.commit()
    voters.look()
    for label in LABELS:
        claim(voters, label, Refusal.DAMAGE)
    assert not voters.pipeline.rebuilder.decide_on_release()


def test_there_is_no_rollback_unless_the_settings_say_so(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path)
    try:
        fleet.begin()
        fleet.let_refuse("a", "b", "c")
        fleet.commit()
        assert not fleet.decide()
    finally:
        fleet.close()


def test_a_definition_that_was_refused_is_not_built_again_until_it_changes(voters: Fleet) -> None:
    voters.let_refuse("a", "b")
    voters.pipeline.clock.advance(1)
    with defined(voters, index="SQ8") as rebuilder:
        assert rebuilder.step() is not None
        voters.look()
        assert rebuilder.decide_on_release()
        assert rebuilder.step() is None
    with defined(voters, index="SQ8", seed=8) as rebuilder:
        assert rebuilder.step() is not None


@contextmanager
def defined(fleet: Fleet, **parameters: Any) -> Iterator[Rebuilder]:
    """A rebuilder that was started with other keys of the component."""
    pipeline = fleet.pipeline
    definition = ComponentDefinition.of("vector_index", "tracks", **parameters)
    rebuilder = Rebuilder(
        pipeline.settings.model_copy(update={"components": {"index": definition}}),
        catalog=pipeline.catalog,
        store=pipeline.store,
        connection=pipeline.connection,
        runner=InlineRunner(catalog=pipeline.catalog, store=pipeline.store, clock=pipeline.clock),
        clock=pipeline.clock,
    )
    yield rebuilder
    rebuilder.stop()


def test_what_a_canary_was_asked_last_is_asked_of_the_new_version(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, canary_readers=1, canary_min_overlap=0.9)
    try:
        fleet.begin()
        first, second, *_ = fleet.order(2)
        for label in (first, second):
            with fleet.of(label)[0].acquire() as snapshot:
                for row in range(5):
                    snapshot["index"].search(np.full(4, row, dtype=np.float32))
        fleet.commit()  # twenty entries beside twenty: half of the answers are others
        fleet.look()
        state = fleet.of(first)[0].state.components["index"]
        assert state.refusal is Refusal.ANSWERS
        assert "releases.canary_min_overlap is 0.9" in str(state.error)
        assert fleet.decide()
        assert fleet.decide()
        assert fleet.release().components == fleet.pipeline.store.release(1).components
    finally:
        fleet.close()


def test_a_canary_shows_how_many_of_its_answers_stayed(fleet: Fleet) -> None:
    (first, *_) = fleet.order(2)
    with fleet.of(first)[0].acquire() as snapshot:
        snapshot["index"].search(np.zeros(4, dtype=np.float32))
    fleet.commit()
    fleet.look()
    overlap = fleet.of(first)[0].state.components["index"].overlap
    assert overlap is not None
    assert 0 < overlap < 1


def test_nothing_is_built_while_a_canary_waits_and_all_of_it_afterwards(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, canary_readers=1)
    fleet.begin()
    pipeline = fleet.pipeline
    quick = {"quiet_seconds": 0, "block_seconds": 0.01, "presence_ttl_seconds": 0.3}
    rebuilder = Rebuilder(
        pipeline.settings.model_copy(
            update={
                "rebuilder": pipeline.settings.rebuilder.model_copy(update=quick),
                "releases": ReleaseSettings(canary_readers=1, canary_seconds=0.2),
            }
        ),
        catalog=pipeline.catalog,
        store=pipeline.store,
        connection=pipeline.connection,
        runner=InlineRunner(catalog=pipeline.catalog, store=pipeline.store, clock=SystemClock()),
    )
    rebuilder.start()
    try:
        fleet.batch()
        eventually(lambda: fleet.canaries() != ())
        fleet.batch()
        fleet.batch()

        def served() -> bool:
            fleet.look()
            (newest,) = {fleet.release().components["index"]}
            covers = pipeline.store.version("index", newest).covers
            return covers == {"tracks": 4} and {fleet.serves(each) for each in LABELS} == {newest}

        eventually(served)
    finally:
        rebuilder.stop()
        releases = pipeline.store.releases()
        fleet.close()
    # Each canary is followed by the same for everyone, and nothing comes in between.
    after = {release.previous: release for release in releases}
    canaries = [release for release in releases if release.canary is not None]
    assert len(canaries) == 2
    assert all(after[each.number].components == each.components for each in canaries)
    assert all(after[each.number].canary is None for each in canaries)
