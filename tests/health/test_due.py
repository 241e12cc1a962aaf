"""What is due is a function of facts; here are the facts, one at a time."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from indexrelay.health.due import find_due, inputs_digest
from indexrelay.health.facts import Facts, RetryPolicy, SourceFact
from indexrelay.schemas.clock import JITTER_SHARE, backoff_seconds
from indexrelay.schemas.settings import ComponentDefinition
from indexrelay.schemas.versions import Hold, Release, VersionManifest
from indexrelay.storage.catalog import Attempt, Pause

NOW = datetime(2026, 1, 1, tzinfo=UTC)
PAUSE = Pause(component="index", reason="cost", since=NOW)
PATIENCE = RetryPolicy(cooldown_seconds=10, max_cooldown_seconds=600, max_consecutive_failures=3)
DEFINITIONS = {
    "index": ComponentDefinition.of("vector_index", "tracks"),
    "plot": ComponentDefinition.of("projection", "tracks"),
    "plot_cache": ComponentDefinition.of("json_cache", "plot", function="a:b"),
}


def version(
    name: str,
    *,
    generation: int = 3,
    parents: dict[str, str] | None = None,
    definition: str | None = None,
    epoch: str = "e1",
) -> VersionManifest:
    return VersionManifest(
        component=name,
        kind=DEFINITIONS[name].kind,
        definition=definition or DEFINITIONS[name].digest,
        covers={"tracks": generation},
        epochs={"tracks": epoch},
        parents=parents or {},
        files={},
        entries=10,
        created_at=NOW,
    )


def facts(*, generation: int = 3, **changes: Any) -> Facts:
    """A healthy system; ``changes`` replace single facts."""
    plot = version("plot")
    versions = {
        "index": version("index"),
        "plot": plot,
        "plot_cache": version("plot_cache", parents={"plot": plot.id}),
    }
    healthy = Facts(
        definitions=DEFINITIONS,
        sources={"tracks": SourceFact(epoch="e1", generation=generation)},
        release=release_of(versions),
        versions=versions,
        since=NOW,
        now=NOW,
    )
    return replace(healthy, **changes)


def release_of(versions: dict[str, VersionManifest], **changes: Any) -> Release:
    return Release(
        number=7,
        components={name: manifest.id for name, manifest in versions.items()},
        created_at=NOW,
        reason="test",
        previous=6,
        **changes,
    )


def due(given: Facts) -> dict[str, str]:
    return dict(find_due(given, PATIENCE).reasons)


def attempt(
    name: str,
    *,
    failures: int = 1,
    generation: int = 4,
    parents: dict[str, str] | None = None,
    transient: bool = False,
) -> Attempt:
    return Attempt(
        component=name,
        failures=failures,
        error="it broke",
        inputs=inputs_digest(DEFINITIONS[name], parents or {}),
        targets={"tracks": generation},
        transient=transient,
        failed_at=NOW,
        first_failed_at=NOW,
    )


def test_nothing_is_due_in_a_healthy_system() -> None:
    assert due(facts()) == {}


def test_everything_is_due_at_the_very_first_parents_first() -> None:
    given = facts(release=None, versions={})
    assert list(due(given)) == ["index", "plot", "plot_cache"]


def test_a_new_generation_makes_due_what_is_made_from_it_and_its_descendants() -> None:
    assert due(facts(generation=4)) == {
        "index": "tracks is at generation 4, it covers 3",
        "plot": "tracks is at generation 4, it covers 3",
        "plot_cache": "plot is built again",
    }


def test_a_dropped_and_recreated_collection_is_due_whatever_its_number() -> None:
    given = facts(sources={"tracks": SourceFact(epoch="e2", generation=1)})
    assert due(given)["index"] == "tracks was created again"


def test_nothing_is_built_from_a_collection_that_never_had_a_batch() -> None:
    given = facts(
        release=None, versions={}, sources={"tracks": SourceFact(epoch="e1", generation=0)}
    )
    assert due(given) == {}


def test_nothing_is_due_because_of_a_source_that_cannot_be_read() -> None:
    assert due(facts(sources={})) == {}


def test_a_changed_definition_is_due() -> None:
    versions = {**facts().versions, "index": version("index", definition="0" * 64)}
    given = facts(versions=versions, release=release_of(versions))
    assert due(given) == {"index": "its definition changed"}


def test_a_version_that_its_kind_would_make_otherwise_today_is_due_unless_it_is_held() -> None:
    given = facts(outdated={"index": "texts are cut in another way since"})
    assert due(given)["index"] == "texts are cut in another way since"
    assert given.release is not None
    hold = {"index": Hold(reason="test", since=NOW)}
    held = replace(given, release=given.release.model_copy(update={"holds": hold}))
    assert "index" not in due(held)


def test_a_child_whose_parent_has_another_version_is_due() -> None:
    versions = {**facts().versions, "plot": version("plot", generation=3, epoch="e1")}
    versions["plot_cache"] = version("plot_cache", parents={"plot": "f" * 64})
    assert due(facts(versions=versions, release=release_of(versions))) == {
        "plot_cache": "plot has a new version"
    }


def test_corrupt_files_are_due_and_so_is_what_is_made_from_them() -> None:
    given = facts(corrupt={"plot": "blob x is missing"})
    assert due(given) == {
        "plot": "its files are corrupt: blob x is missing",
        "plot_cache": "plot is built again",
    }


def test_what_is_made_from_a_collection_and_a_held_component_does_not_run_in_circles() -> None:
    """It would cover no more than the component does, however often it is built."""
    definitions = {**DEFINITIONS, "both": ComponentDefinition.of("x", "tracks", "index")}
    index = version("index", generation=3)
    both = VersionManifest(
        component="both",
        kind="x",
        definition=definitions["both"].digest,
        covers={"tracks": 3},
        epochs={"tracks": "e1"},
        parents={"index": index.id},
        files={},
        entries=10,
        created_at=NOW,
    )
    versions = {"index": index, "both": both}
    release = release_of(versions, holds={"index": Hold(reason="rollback", since=NOW)})
    given = facts(
        generation=9,
        definitions={"index": definitions["index"], "both": definitions["both"]},
        versions=versions,
        release=release,
    )
    assert due(given) == {}
    assert "both" in due(replace(given, release=release_of(versions)))


def test_a_held_component_is_not_due_until_its_definition_changes() -> None:
    versions = dict(facts().versions)
    held = release_of(versions, holds={"index": Hold(reason="rollback", since=NOW)})
    assert "index" not in due(facts(generation=9, release=held))
    versions = {**versions, "index": version("index", definition="0" * 64)}
    held = release_of(versions, holds={"index": Hold(reason="rollback", since=NOW)})
    assert "index" in due(facts(versions=versions, release=held))


def test_a_held_component_is_not_due_even_when_asked_for() -> None:
    held = release_of(dict(facts().versions), holds={"index": Hold(reason="rollback", since=NOW)})
    assert due(facts(release=held, requested={"index"})) == {}


def test_a_paused_component_is_due_only_when_someone_asks() -> None:
    assert "index" not in due(facts(generation=4, paused={"index": PAUSE}))
    assert "index" in due(facts(generation=4, paused={"index": PAUSE}, requested={"index"}))


def test_asking_makes_a_current_component_due() -> None:
    assert due(facts(requested={"index"})) == {"index": "someone asked for it"}


@pytest.mark.parametrize(("failures", "seconds"), [(1, 10), (2, 20)])
def test_a_failed_component_is_left_alone_until_its_cooldown_is_over(
    failures: int, seconds: int
) -> None:
    given = facts(generation=4, attempts={"index": attempt("index", failures=failures)})
    wait = backoff_seconds(failures, first=10, longest=600, key="index")
    assert abs(wait - seconds) <= JITTER_SHARE * seconds
    early = find_due(replace(given, now=NOW + timedelta(seconds=wait - 1)), PATIENCE)
    assert "index" not in early.reasons
    assert early.retry_at == NOW + timedelta(seconds=wait)
    late = find_due(replace(given, now=NOW + timedelta(seconds=wait)), PATIENCE)
    assert "index" in late.reasons
    assert late.retry_at is None


def test_a_component_that_may_fail_often_is_tried_again_within_the_longest_cooldown() -> None:
    patient = replace(PATIENCE, max_consecutive_failures=5000)
    given = facts(generation=4, attempts={"index": attempt("index", failures=4000)})
    retry_at = find_due(given, patient).retry_at
    assert retry_at is not None
    assert retry_at - NOW <= timedelta(seconds=720)


def test_after_enough_failures_only_new_input_a_new_definition_or_a_request_helps() -> None:
    tried = {"index": attempt("index", failures=3)}
    later = NOW + timedelta(days=30)
    assert "index" not in due(facts(generation=4, attempts=tried, now=later))
    assert "index" in due(facts(generation=5, attempts=tried, now=later))
    assert "index" in due(facts(generation=4, attempts=tried, now=later, requested={"index"}))
    given = facts(generation=4, attempts=tried, now=later)
    changed = {
        **DEFINITIONS,
        "index": ComponentDefinition.of("vector_index", "tracks", index="Flat"),
    }
    assert "index" in due(replace(given, definitions=changed))


def test_a_failing_component_does_not_keep_others_from_being_due() -> None:
    given = facts(generation=4, attempts={"index": attempt("index", failures=3)})
    assert set(due(given)) == {"plot", "plot_cache"}


def test_a_failed_child_is_tried_again_when_its_parent_is_rebuilt() -> None:
    plot = facts().versions["plot"]
    tried = {"plot_cache": attempt("plot_cache", failures=3, parents={"plot": plot.id})}
    assert "plot_cache" in due(facts(generation=4, attempts=tried))


def test_what_others_built_under_later_settings_is_left_to_them() -> None:
    index = version("index", definition="0" * 64).model_copy(
        update={"created_at": NOW + timedelta(seconds=1)}
    )
    versions = {**facts().versions, "index": index}
    given = facts(generation=9, versions=versions, release=release_of(versions))
    assert "index" not in due(given)
    assert "index" in due(replace(given, since=NOW + timedelta(seconds=2)))


def test_what_failed_for_a_cause_outside_is_tried_for_as_long_as_that_lasts() -> None:
    tried = {"index": attempt("index", failures=50, transient=True)}
    later = NOW + timedelta(days=1)
    assert "index" in due(facts(generation=4, attempts=tried, now=later))
