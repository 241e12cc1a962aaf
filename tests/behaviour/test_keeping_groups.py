"""Whatever happens to the members of groups, no release and no reader ever has one of two states.

Run it for long with ``INDEXRELAY_EXAMPLES=500``.
"""

import os
import shutil
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from indexrelay.components.kind import Job
from indexrelay.schemas.settings import Settings
from indexrelay.schemas.versions import Release, agree, disagreements
from indexrelay.storage.artifacts import ArtifactError, ArtifactStore, StoreAccessError
from indexrelay.storage.errors import ReleaseUnreadableError
from indexrelay.streams import Keys, Lease
from indexrelay.testing import FakeClock, Pipeline
from tests.behaviour.member import Member

_EXAMPLES = int(os.environ.get("INDEXRELAY_EXAMPLES", "8"))
KIND = "tests.behaviour.member:Member"
INPUTS: Mapping[str, tuple[str, ...]] = {
    "index": ("tracks",),
    "chart": ("tracks",),
    "cache": ("chart",),
    "both": ("tracks", "songs"),
    "titles": ("songs",),
    "seed": ("tracks",),
    "grown": ("seed",),
}
"""``seed`` is never in a group: it is the parent outside of one."""
MEMBERS = tuple(name for name in INPUTS if name != "seed")
COLLECTIONS = ("tracks", "songs")
GROUPS = ("pair", "trio", None)
BEGINNING: Mapping[str, str | None] = {
    "index": "pair",
    "chart": "pair",
    "cache": "pair",
    "both": "trio",
    "titles": "trio",
    "grown": "pair",
    "seed": None,
}
names = st.sampled_from(MEMBERS)
anybody = st.sampled_from(tuple(INPUTS))


class Groups(RuleBasedStateMachine):
    """One installation in one process, its settings changed under it, and two readers."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="ir-"))
        self.declared = dict.fromkeys(INPUTS, "")
        """By component that the settings declare: its colour."""
        self.groups = dict(BEGINNING)
        self.clock = FakeClock()
        self.old: list[Pipeline] = []
        self.pipeline = self.opened()
        self.readers_started = 0
        self.readers = [self.pipeline.reader("one"), self.pipeline.reader("two")]
        self.leases: dict[str, Lease] = {}
        self.checked = 0
        self.batches = 0

    # What the settings say.

    def declared_settings(self) -> Settings:
        return Settings.model_validate(
            {
                "data_dir": self.folder,
                "collections": {name: {"dimension": 2, "metric": "l2"} for name in COLLECTIONS},
                "components": {
                    name: {
                        "kind": KIND,
                        "from": list(INPUTS[name]),
                        "colour": colour,
                        "max_shrink": 1,
                        **({"group": self.groups[name]} if self.groups[name] else {}),
                    }
                    for name, colour in self.declared.items()
                },
            }
        )

    def opened(self) -> Pipeline:
        return Pipeline(self.declared_settings(), self.folder, clock=self.clock)

    def restart(self) -> None:
        """A rebuilder with the settings as they are now; readers keep those that they have."""
        self.old.append(self.pipeline)
        self.clock.advance(1)
        self.pipeline = self.opened()
        self.clock.advance(1)
        self.leases = {}

    # What happens.

    @initialize()
    def begin(self) -> None:
        for collection in COLLECTIONS:
            self.commit(collection)

    @rule(collection=st.sampled_from(COLLECTIONS))
    def commit(self, collection: str) -> None:
        self.batches += 1
        self.clock.advance(0.001)
        with self.pipeline.producer.batch(collection) as batch:
            batch.upsert([f"entry-{self.batches}"], np.ones((1, 2), dtype=np.float32))

    @rule()
    def rebuild(self) -> None:
        self.pipeline.rebuild()

    @rule(name=anybody, collection=st.sampled_from(COLLECTIONS))
    def rebuild_while_a_batch_comes(self, name: str, collection: str) -> None:
        """A commit between the builds of one pass."""

        def built(job: Job) -> None:
            if job.component == name:
                Member.built = staticmethod(lambda _job: None)
                self.commit(collection)

        Member.built = staticmethod(built)
        try:
            self.pipeline.rebuild()
        finally:
            Member.built = staticmethod(lambda _job: None)

    @rule(collection=st.sampled_from(COLLECTIONS))
    def rebuild_while_batches_keep_coming(self, collection: str) -> None:
        """A commit in each build of one pass."""
        Member.built = staticmethod(lambda _job: self.commit(collection))
        try:
            self.pipeline.rebuild()
        finally:
            Member.built = staticmethod(lambda _job: None)

    @rule()
    def rebuild_and_die_before_the_release(self) -> None:
        with pytest.MonkeyPatch.context() as patch:

            def refuse(store: ArtifactStore, *_args: Any, **_keys: Any) -> None:
                raise StoreAccessError(store.root, "write", OSError(28, "No space left on device"))

            patch.setattr(ArtifactStore, "commit_release", refuse)
            self.pipeline.rebuild()

    @rule(number=st.integers(0, 1))
    def read(self, number: int) -> None:
        self.readers[number].step()

    @rule(number=st.integers(0, 1))
    def start(self, number: int) -> None:
        """Another reader, which has served nothing yet."""
        self.readers_started += 1
        self.readers[number] = self.pipeline.reader(f"started-{self.readers_started}")

    @rule(seconds=st.sampled_from((1.0, 30.0, 3600.0)))
    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule(name=anybody)
    def fail(self, name: str) -> None:
        self.pipeline.fail_build(name)

    @rule(name=anybody)
    def heal(self, name: str) -> None:
        self.pipeline.heal_build(name)

    @rule(name=anybody)
    def build_elsewhere(self, name: str) -> None:
        """Another host has the lease, and takes its time."""
        lease = Lease(
            self.pipeline.connection,
            Keys(self.pipeline.settings.namespace).lease(name),
            owner="elsewhere",
            ttl_seconds=3600,
        )
        if name not in self.leases and lease.acquire():
            self.leases[name] = lease

    @rule()
    def end_elsewhere(self) -> None:
        for lease in self.leases.values():
            lease.release()
        self.leases = {}

    @rule(name=anybody)
    def pause(self, name: str) -> None:
        self.pipeline.catalog.attempts.pause(name, "a test")

    @rule(name=anybody)
    def resume(self, name: str) -> None:
        self.pipeline.catalog.attempts.resume(name)

    @rule(name=anybody)
    def hold(self, name: str) -> None:
        with suppress(ArtifactError):
            self.pipeline.store.hold(name, reason="a test")

    @rule(name=anybody)
    def lift(self, name: str) -> None:
        with suppress(ArtifactError):
            self.pipeline.store.lift(name, reason="a test")

    @rule(back=st.integers(1, 4), name=st.none() | anybody)
    def roll_back(self, back: int, name: str | None) -> None:
        newest = self.pipeline.store.newest_release()
        if newest is not None and newest.number > back:
            with suppress(ArtifactError):
                self.pipeline.store.rollback(
                    newest.number - back,
                    reason="a test",
                    components=None if name is None else [name],
                )

    @rule(name=names, group=st.sampled_from(GROUPS))
    def regroup(self, name: str, group: str | None) -> None:
        self.groups[name] = group
        self.restart()

    @rule(name=anybody)
    def remove(self, name: str) -> None:
        gone = {name} | {child for child, inputs in INPUTS.items() if name in inputs}
        self.declared = {each: c for each, c in self.declared.items() if each not in gone}
        self.restart()

    @rule(name=anybody)
    def add(self, name: str) -> None:
        for each in (*INPUTS[name], name):
            if each in INPUTS:
                self.declared.setdefault(each, "")
        self.restart()

    @rule(name=anybody, colour=st.sampled_from(("", "red")))
    def redefine(self, name: str, colour: str) -> None:
        if name in self.declared:
            self.declared[name] = colour
            self.restart()

    @rule(name=anybody)
    def ask_for(self, name: str) -> None:
        if name in self.declared:
            self.pipeline.producer.request_rebuild([name], reason="a test")

    @rule(name=anybody)
    def corrupt(self, name: str) -> None:
        newest = self.pipeline.store.newest_release()
        if newest is not None and name in newest.components:
            with suppress(ArtifactError):
                self.pipeline.corrupt(name)

    # What must be.

    @invariant()
    def no_release_has_a_group_of_two_states(self) -> None:
        for number in self.pipeline.store.release_numbers():
            if number <= self.checked:
                break
            torn = torn_groups(self.pipeline.store, self.pipeline.store.release(number))
            assert not torn, f"release {number}: {torn}"
        self.checked = max(self.pipeline.store.release_numbers(), default=0)

    @invariant()
    def no_reader_serves_a_group_of_two_states(self) -> None:
        for reader in self.readers:
            with reader.acquire() as snapshot:
                versions = {name: snapshot.manifest(name) for name in snapshot}
                if not versions:
                    continue
                groups = self.pipeline.store.release(snapshot.release).groups
                ids = dict(snapshot.versions)
                for one, other in combinations(sorted(versions), 2):
                    if groups.get(one) is None or groups.get(one) != groups.get(other):
                        continue
                    pair = [(name, ids[name], versions[name]) for name in (one, other)]
                    assert agree(*pair) or self.was_apart(one, other, ids, snapshot.release), (
                        one,
                        other,
                        disagreements({each[0]: each[2] for each in pair}, ids),
                    )

    def was_apart(self, one: str, other: str, ids: Mapping[str, str], upto: int) -> bool:
        """Whether a release named both as they are served, and not as members of one group."""
        for number in range(1, upto + 1):
            with suppress(ReleaseUnreadableError):
                release = self.pipeline.store.release(number)
                if all(release.components.get(name) == ids[name] for name in (one, other)):
                    group = release.groups.get(one)
                    if group is None or group != release.groups.get(other):
                        return True
        return False

    def teardown(self) -> None:
        """Nothing is wrong any more: then everything is soon at one state, and current."""
        try:
            self.everything_comes_together()
        finally:
            for pipeline in (self.pipeline, *self.old):
                pipeline.close()
            shutil.rmtree(self.folder)

    def everything_comes_together(self) -> None:
        self.end_elsewhere()
        store, attempts = self.pipeline.store, self.pipeline.catalog.attempts
        for name in INPUTS:
            self.pipeline.heal_build(name)
            attempts.resume(name)
        newest = store.newest_release()
        if newest is not None:
            store.lift(*newest.holds, reason="the end")
        for collection in COLLECTIONS:
            self.commit(collection)  # news: whoever was given up is tried again
        self.pipeline.advance(4000)
        self.pipeline.advance(4000)
        for reader in self.readers:
            reader.retry_failed()
            reader.step()
        newest = store.newest_release()
        assert (set() if newest is None else set(newest.components)) == set(self.declared)
        for name, version in {} if newest is None else newest.components.items():
            for collection, covered in store.version(name, version).covers.items():
                generation = self.pipeline.catalog.collections.get(collection).generation
                assert covered == generation, f"{name} is at {covered} of {collection}"
        declared = {name: self.groups[name] for name in self.declared if self.groups[name]}
        assert newest is None or newest.groups == declared
        self.no_release_has_a_group_of_two_states()
        self.no_reader_serves_a_group_of_two_states()


def torn_groups(store: ArtifactStore, release: Release) -> list[str]:
    """What is wrong with the groups of a release."""
    found: list[str] = []
    for group in sorted(set(release.groups.values())):
        versions = {}
        for name, theirs in release.groups.items():
            if theirs == group:
                with suppress(ArtifactError):
                    versions[name] = store.version(name, release.components[name])
        found += disagreements(versions, release.components)
    return found


@pytest.mark.timeout(600)  # for many examples
def test_no_release_and_no_reader_has_a_group_of_two_states_whatever_happens() -> None:
    run_state_machine_as_test(
        Groups,
        settings=settings(
            max_examples=_EXAMPLES,
            stateful_step_count=25,
            deadline=None,
            phases=(Phase.explicit, Phase.reuse, Phase.generate),
            suppress_health_check=list(HealthCheck),
        ),
    )
