"""Equal content has equal digests, and only what matters is in them."""

import random
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from indexrelay.schemas.names import canonical_json
from indexrelay.schemas.settings import ComponentDefinition
from indexrelay.schemas.versions import BlobRef, Release, VersionManifest
from tests.schemas.sample_events import DIGEST, NOON, OTHER

BASE = ComponentDefinition.of("vector_index", "tracks", "artists", nprobe=16, index="auto")


@pytest.mark.parametrize(
    "other",
    [
        ComponentDefinition.of("text_index", "tracks", "artists", nprobe=16, index="auto"),
        ComponentDefinition.of("vector_index", "tracks", nprobe=16, index="auto"),
        ComponentDefinition.of("vector_index", "artists", "tracks", nprobe=16, index="auto"),
        ComponentDefinition.of("vector_index", "tracks", "artists", nprobe=17, index="auto"),
        ComponentDefinition.of("vector_index", "tracks", "artists", index="auto"),
        ComponentDefinition.of("vector_index", "tracks", "artists", nprobe="16", index="auto"),
    ],
    ids=["kind", "fewer inputs", "order of inputs", "value", "key left out", "type of a value"],
)
def test_what_a_version_is_built_as_changes_the_digest(other: ComponentDefinition) -> None:
    assert other.digest != BASE.digest


@pytest.mark.parametrize(
    "keys",
    [
        {"group": "maps"},
        {"required": False},
        {"max_shrink": 0.1},
        {"build_timeout_seconds": 3},
        {"build_memory_bytes": 10**9},
    ],
    ids=lambda keys: next(iter(keys)),
)
def test_how_it_is_built_or_served_does_not_change_the_digest(keys: dict[str, object]) -> None:
    other = ComponentDefinition.of(
        "vector_index", "tracks", "artists", index="auto", nprobe=16, **keys
    )
    assert other.digest == BASE.digest
    assert other != BASE


def test_one_input_may_be_written_without_a_list() -> None:
    short = ComponentDefinition.model_validate({"kind": "k", "from": "tracks"})
    assert short == ComponentDefinition.of("k", "tracks")


def test_a_definition_is_the_same_after_its_own_json() -> None:
    again = ComponentDefinition.model_validate_json(BASE.model_dump_json(by_alias=True))
    assert again == BASE
    assert again.digest == BASE.digest


@pytest.mark.parametrize("value", [datetime(2026, 1, 1, tzinfo=UTC), float("nan"), {"x": {1}}])
def test_a_value_that_json_cannot_express_is_no_parameter(value: object) -> None:
    with pytest.raises(ValidationError, match="must be JSON"):
        ComponentDefinition.of("k", "tracks", since=value)


@given(
    table=st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), st.integers()),
    seed=st.randoms(),
)
def test_the_order_of_keys_does_not_change_the_bytes(
    table: dict[str, int], seed: random.Random
) -> None:
    shuffled = list(table.items())
    seed.shuffle(shuffled)
    assert canonical_json(dict(shuffled)) == canonical_json(table)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), [float("-inf")]])
def test_canonical_json_has_no_nan(value: object) -> None:
    with pytest.raises(ValueError, match="JSON"):
        canonical_json(value)


def manifest(**changes: object) -> VersionManifest:
    return VersionManifest.model_validate(
        {
            "component": "voyager",
            "kind": "vector_index",
            "definition": DIGEST,
            "covers": {"tracks": 7},
            "epochs": {"tracks": "5f3a"},
            "files": {"index.faiss": BlobRef(digest=OTHER, size=10)},
            "entries": 3,
            "created_at": NOON,
            **changes,
        }
    )


def test_a_version_is_named_by_its_bytes() -> None:
    one = manifest()
    again = VersionManifest.model_validate_json(one.canonical())
    assert (again, again.id) == (one, one.id)
    assert manifest(entries=4).id != one.id
    assert one.size == 10


@pytest.mark.parametrize(
    "changes",
    [
        {"files": {"../index": {"digest": OTHER, "size": 1}}},
        {"files": {"index": {"digest": "../../etc/passwd", "size": 1}}},
        {"component": "../voyager"},
        {"build_seconds": float("inf")},
    ],
    ids=["label", "digest", "component", "infinity"],
)
def test_a_manifest_never_supplies_a_path(changes: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        manifest(**changes)


def release(**changes: object) -> Release:
    return Release.model_validate(
        {
            "number": 2,
            "components": {"voyager": DIGEST},
            "created_at": NOON,
            "reason": "batch",
            "previous": 1,
            **changes,
        }
    )


def test_a_release_carries_the_digest_of_its_content() -> None:
    sealed = release().sealed()
    assert sealed.intact
    assert Release.model_validate_json(sealed.canonical()).intact
    assert not release().intact


@pytest.mark.parametrize(
    "changes",
    [
        {"number": 3},
        {"components": {"voyager": OTHER}},
        {"reason": "other"},
        {"previous": 0},
        {"groups": {"voyager": "maps"}},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_a_changed_release_is_not_intact(changes: dict[str, object]) -> None:
    assert not release(**changes, digest=release().sealed().digest).intact
