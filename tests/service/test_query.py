"""Which method of a served object answers a request, and what is said where none does."""

import pytest

from indexrelay.components.errors import InvalidQueryError
from indexrelay.components.served import Hit
from indexrelay.service.query import SearchRequest, search


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
        search(HalfSearchable(), request_)
