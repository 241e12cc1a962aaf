"""Which method of a served object answers a request, and what is said where none does."""

from contextlib import closing
from pathlib import Path
from typing import Any, Unpack

import pytest

from indexrelay.components.errors import InvalidQueryError
from indexrelay.components.query import TextKeywords
from indexrelay.components.served import Hit
from indexrelay.components.vector_index import VectorIndex, VectorIndexParameters
from indexrelay.schemas.filters import InvalidFilterError
from indexrelay.service.bodies import SearchRequest
from indexrelay.service.dispatch import (
    Search,
    both,
    count,
    get,
    neighbours,
    scroll,
    search,
    search_many,
)
from tests.components.jobs import clustered, make_job, make_snapshot, run


class HalfSearchable:
    """Takes a vector, and lacks `search_by_id`."""

    def search(self, vector: object, *, k: int = 10) -> list[Hit]:
        raise AssertionError(f"asked for {vector!r} and {k}")

    def close(self) -> None:
        """Nothing is open."""


@pytest.mark.parametrize(
    "request_", [SearchRequest(vector=[1.0]), SearchRequest(id="a"), SearchRequest(text="a")]
)
def test_a_search_by_vector_without_one_by_id_is_named(request_: SearchRequest) -> None:
    with pytest.raises(InvalidQueryError, match="takes a vector, and it lacks search_by_id"):
        search(HalfSearchable(), Search.of(request_))


class HasOtherCount:
    """Methods of a kind of one's own that only have the same names."""

    def search(self, text: str, *, k: int = 10) -> list[Hit]:
        raise AssertionError(text, k)

    def get(self, word: str) -> str:
        raise AssertionError(word)

    def count(self, word: str) -> str:
        raise AssertionError(word)

    def close(self) -> None:
        """Nothing is open."""


def test_a_method_that_only_has_the_name_is_not_asked() -> None:
    for ask in (
        lambda: count(HasOtherCount(), None),
        lambda: get(HasOtherCount(), ["a"]),
        lambda: scroll(HasOtherCount(), None, after=None, limit=1),
        lambda: neighbours(HasOtherCount(), ["a"], k=1),
    ):
        with pytest.raises(InvalidQueryError, match="this component answers no"):
            ask()


class TakesKeywords:
    """Declares its options as a `TypedDict`, by name or by text."""

    def search(self, vector: object, *, k: int = 10, **options: Unpack[TextKeywords]) -> list[Hit]:
        return [Hit(f"{vector} {k} {options}", 1.0, None)]

    def search_by_id(
        self, entry_id: str, *, k: int = 10, **options: "Unpack[TextKeywords]"
    ) -> list[Hit]:
        return [Hit(f"{entry_id} {k} {options}", 1.0, None)]

    def close(self) -> None:
        """Nothing is open."""


@pytest.mark.parametrize("asked", [{"vector": [1.0]}, {"id": "a"}])
def test_options_that_are_declared_together_are_passed_on(asked: dict[str, Any]) -> None:
    served = TakesKeywords()
    request_ = SearchRequest(**asked, filter={"a": 1}, explain=True)
    (hit,) = search(served, Search.of(request_), forced=None, max_payload_bytes=7)
    assert hit.id.endswith("10 {'filter': {'a': 1}, 'explain': True, 'max_payload_bytes': 7}")
    with pytest.raises(InvalidQueryError, match="takes no diversity here; it takes k, filter"):
        search(served, Search.of(SearchRequest(**asked, diversity=0.5)))


FORCED = {"tenant": "a"}


@pytest.mark.parametrize(
    ("given", "together"),
    [(None, FORCED), ({}, {"$and": [FORCED, {}]}), ({"x": 1}, {"$and": [FORCED, {"x": 1}]})],
)
def test_a_forced_filter_is_and_ed_to_the_given_one(
    given: dict[str, int] | None, together: dict[str, object]
) -> None:
    assert both(FORCED, given) == together
    assert both(None, given) == given


@pytest.mark.parametrize("filterable", [{}, {"year": "number"}])
def test_a_forced_filter_by_a_field_that_is_not_declared_lets_nothing_through(
    tmp_path: Path, filterable: dict[str, str]
) -> None:
    source = make_snapshot(clustered(30, 4), payloads=['{"tenant": "a"}'] * 30)
    kind = VectorIndex(VectorIndexParameters.model_validate({"filterable": filterable}))
    done = run(kind, make_job(tmp_path / "work", source))
    with closing(kind.load(done.files)) as served:
        known = source.ids[0]
        for ask in (
            lambda: search(served, Search.of(SearchRequest(vector=[1.0] * 4)), forced=FORCED),
            lambda: search(served, Search.of(SearchRequest(id=known)), forced=FORCED),
            lambda: search_many(served, clustered(2, 4), {}, forced=FORCED),
            lambda: get(served, [known], forced=FORCED),
            lambda: count(served, None, forced=FORCED),
            lambda: scroll(served, None, after=None, limit=1, forced=FORCED),
            lambda: neighbours(served, [known], k=1, forced=FORCED),
        ):
            with pytest.raises(InvalidFilterError):
                ask()
