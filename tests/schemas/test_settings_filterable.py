"""Which fields a collection declares, and how they reach the components that search it."""

import re
from typing import Any

import pytest
from pydantic import ValidationError

from indexrelay.schemas.filters import MAX_FIELDS
from indexrelay.schemas.settings import CollectionSettings, ComponentDefinition, Settings

KINDS = ("vector_index", "text_index", "search", "projection", "json_cache", "embedding_cache")


def declared(filterable: dict[str, str], **more: Any) -> Settings:
    return Settings.model_validate(
        {
            "collections": {"tracks": {"dimension": 3, "filterable": filterable}},
            "components": {
                kind: {"kind": kind, "from": "tracks", **more.get(kind, {})} for kind in KINDS
            },
        }
    )


def test_fields_reach_the_kinds_that_search_and_no_others() -> None:
    settings = declared({"year": "number", "album.label": "keyword"})
    for kind in KINDS:
        fields = settings.components[kind].parameters.get("filterable")
        searches = kind in ("vector_index", "text_index", "search")
        assert fields == ({"year": "number", "album.label": "keyword"} if searches else None)


def test_without_fields_every_definition_keeps_its_digest() -> None:
    settings = declared({})
    for kind in KINDS:
        before = ComponentDefinition.of(kind, "tracks")
        assert settings.components[kind] == before
        assert settings.components[kind].digest == before.digest


def test_other_fields_are_another_definition_of_what_searches() -> None:
    one, other = declared({"year": "number"}), declared({"year": "keyword"})
    changed = {
        kind for kind in KINDS if one.components[kind].digest != other.components[kind].digest
    }
    assert changed == {"vector_index", "text_index", "search"}


def test_fields_are_declared_once() -> None:
    same = declared({"year": "number"}, vector_index={"filterable": {"year": "number"}})
    assert (
        same.components["vector_index"] == declared({"year": "number"}).components["vector_index"]
    )
    with pytest.raises(ValidationError, match="declared once, in the collection"):
        declared({"year": "number"}, text_index={"filterable": {"genre": "keyword"}})


@pytest.mark.parametrize("name", ["", "$year", "a..b", ".a", "a.", "a.$b", "a\nb", "x" * 129])
def test_a_field_has_a_name_that_a_filter_can_say(name: str) -> None:
    with pytest.raises(ValidationError, match=re.escape("is no name of a field")):
        CollectionSettings.model_validate({"dimension": 3, "filterable": {name: "number"}})


def test_a_collection_declares_a_bounded_number_of_fields_of_known_types() -> None:
    many = {f"field{number}": "number" for number in range(MAX_FIELDS + 1)}
    for wrong in (many, {"year": "float"}, {"year": None}, ["year"]):
        with pytest.raises(ValidationError):
            CollectionSettings.model_validate({"dimension": 3, "filterable": wrong})
