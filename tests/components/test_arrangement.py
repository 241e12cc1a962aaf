"""Groups and diversity over the hits of any search, held against a look at all entries."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexrelay.components.arrangement import (
    MOST_CANDIDATES,
    Arrangement,
    gather,
    marginal_relevance,
    scaled,
    within_groups,
)
from indexrelay.components.errors import InvalidQueryError
from indexrelay.components.query import FilterObject, QueryOptions, narrowed
from indexrelay.components.served import Hit
from indexrelay.schemas.filters import (
    MAX_VALUES,
    FieldType,
    InvalidFilterError,
    parse_filter,
)
from indexrelay.storage.entries import Vectors

FIELDS = {
    "artist": FieldType.KEYWORD,
    "year": FieldType.NUMBER,
    "live": FieldType.BOOLEAN,
    "added": FieldType.DATETIME,
    "tags": FieldType.KEYWORDS,
}


def arrangement_of(
    group_by: Any = None, per_group: Any = 1, diversity: Any = None, fields: Any = FIELDS
) -> Arrangement | None:
    options = QueryOptions.of(
        10, {"group_by": group_by, "per_group": per_group, "diversity": diversity}
    )
    return Arrangement.of(options, fields)


class Entries:
    """Ranked entries of which a search finds those that a filter matches, and what was asked."""

    def __init__(
        self,
        payloads: Sequence[Any],
        *,
        falling: bool = True,
        asked_for: FilterObject | None = None,
    ) -> None:
        """``asked_for``: the filter of the query, which all of them match."""
        self.asked_for = asked_for
        self.hits = [
            Hit(f"e{row}", float(-row if falling else row), payload)
            for row, payload in enumerate(payloads)
        ]
        self.asked: list[tuple[int, FilterObject | None]] = []

    def find(self, depth: int, beyond: FilterObject | None) -> list[Hit]:
        self.asked.append((depth, beyond))
        full = set()
        if beyond is not None:
            parse_filter(narrowed(self.asked_for, beyond), FIELDS)  # it is one
            ((field, condition),) = beyond.items()
            full = {(field, each) for each in condition["$nin"]}
        left = [
            hit
            for hit in self.hits
            if not any(hit.payload.get(field) == each for field, each in full)
        ]
        return left[:depth]

    def search(self, k: int, *, narrows: bool = True, **asked: Any) -> list[Hit]:
        arrangement = arrangement_of(**asked)
        assert arrangement is not None
        return arrangement.search(
            self.find, k=k, entries=len(self.hits), vectors=self.vectors, narrows=narrows
        )

    def vectors(self, hits: Sequence[Hit]) -> Vectors:
        return np.array([hit.payload["vector"] for hit in hits], dtype=np.float32)


def firsts(hits: Sequence[Hit], field: str, per_group: int) -> list[Hit]:
    """Every hit that is among the first of its group."""
    seen: Counter[Any] = Counter()
    found = []
    for hit in hits:
        group = hit.payload.get(field)
        seen[group] += 1
        if group is None or seen[group] <= per_group:
            found.append(hit)
    return found


@pytest.mark.parametrize("narrows", [True, False])
@given(
    groups=st.lists(st.none() | st.sampled_from("abcd"), max_size=60),
    k=st.integers(1, 8),
    per_group=st.integers(1, 3),
    falling=st.booleans(),
)
def test_hits_are_the_first_of_their_groups_among_all_entries(
    narrows: bool, groups: list[str | None], k: int, per_group: int, falling: bool
) -> None:
    payloads = [{} if group is None else {"artist": group} for group in groups]
    entries = Entries(payloads, falling=falling)
    found = entries.search(k, group_by="artist", per_group=per_group, narrows=narrows)
    assert found == firsts(entries.hits, "artist", per_group)[:k]


def test_full_groups_are_left_out_of_the_next_search() -> None:
    entries = Entries([*({"artist": "a"} for _ in range(5000)), {"artist": "b"}, {}])
    found = entries.search(3, group_by="artist")
    assert [hit.id for hit in found] == ["e0", "e5000", "e5001"]
    assert entries.asked == [(6, None), (6, {"artist": {"$nin": ["a"]}})]


def test_more_is_asked_for_where_the_filter_of_the_query_has_no_room_for_full_groups() -> None:
    rows = [{"artist": "a", "year": 1}, {"artist": "b", "year": 2}] * 50 + [{"artist": "c"}]
    large = {"year": {"$in": list(range(MAX_VALUES - 1))}}
    entries = Entries(rows, asked_for=large)
    found = entries.search(3, group_by="artist")
    assert [hit.id for hit in found] == ["e0", "e1", "e100"]
    assert [depth for depth, beyond in entries.asked if beyond is None] == [6, 24, 96, 384]
    alike = Entries(rows[:2] * 50_000, asked_for=large)
    assert len(alike.search(3, group_by="artist")) == 2
    assert max(depth for depth, _ in alike.asked) == MOST_CANDIDATES


def test_a_search_that_cannot_leave_them_out_looks_among_so_many_candidates() -> None:
    entries = Entries([{"artist": "a"}] * 50_000)
    found = entries.search(3, group_by="artist", narrows=False)
    assert [hit.id for hit in found] == ["e0"]
    assert [depth for depth, _ in entries.asked] == [6, 24, 96, 384, 1536, 6144, MOST_CANDIDATES]


@pytest.mark.parametrize(
    ("field", "same", "other"),
    [
        ("year", [1990, 1990.0], 1991),
        ("live", [True, True], False),
        ("added", ["2024-01-01", "2024-01-01T00:00:00Z"], "2024-01-02"),
    ],
)
def test_values_that_compare_as_equal_are_one_group(
    field: str, same: list[Any], other: Any
) -> None:
    entries = Entries([{field: same[0]}, {field: same[1]}, {field: other}, {field: ["no"]}])
    found = entries.search(4, group_by=field)
    assert [hit.id for hit in found] == ["e0", "e2", "e3"], "another type counts as missing"


def test_a_field_inside_an_object_is_one() -> None:
    entries = Entries([{"album": {"name": name}} for name in "aab"])
    arrangement = arrangement_of("album.name", fields={"album.name": FieldType.KEYWORD})
    assert arrangement is not None
    found = arrangement.search(
        lambda depth, _: entries.hits[:depth],
        k=2,
        entries=3,
        vectors=entries.vectors,
        narrows=False,
    )
    assert [hit.id for hit in found] == ["e0", "e2"]


def test_diversity_passes_over_what_is_alike() -> None:
    # The second is nearly the first again; the third is rather unlike it, the fourth wholly.
    vectors = [[1.0, 0.0], [0.999, 0.01], [0.3, 1.0], [0.0, -1.0]]
    entries = Entries([{"vector": vector} for vector in vectors])
    assert [hit.id for hit in entries.search(2, diversity=0.0)] == ["e0", "e1"]
    assert [hit.id for hit in entries.search(2, diversity=0.5)] == ["e0", "e2"]
    assert [hit.id for hit in entries.search(2, diversity=1.0)] == ["e0", "e3"]
    assert [depth for depth, _ in entries.asked] == [2, 50, 50]


def test_groups_come_before_diversity() -> None:
    payloads = [
        {"artist": artist, "vector": vector}
        for artist, vector in (("a", [1, 0]), ("a", [0, 1]), ("b", [0.9, 0.1]), ("c", [0, 1]))
    ]
    entries = Entries(payloads)
    found = entries.search(2, group_by="artist", diversity=0.9)
    assert [hit.id for hit in found] == ["e0", "e3"]


def test_what_has_no_length_is_like_nothing() -> None:
    entries = Entries([{"vector": vector} for vector in ([1, 0], [1, 0], [0, 0])])
    assert [hit.id for hit in entries.search(2, diversity=0.7)] == ["e0", "e2"]


def test_nothing_found_is_nothing_arranged() -> None:
    assert Entries([]).search(5, group_by="artist", diversity=0.5) == []


def test_where_nothing_is_asked_for_there_is_no_arrangement() -> None:
    assert arrangement_of() is None


@pytest.mark.parametrize(
    ("asked", "error", "said"),
    [
        ({"per_group": 2}, InvalidQueryError, "per_group goes with group_by"),
        (
            {"group_by": "artist", "per_group": 0},
            InvalidQueryError,
            "per_group is a whole number and at least 1, not 0",
        ),
        (
            {"group_by": "album"},
            InvalidFilterError,
            "group_by: 'album' is no filterable field; there are added, artist, live, tags, year",
        ),
        ({"group_by": 3}, InvalidFilterError, "group_by: 3 is no filterable field"),
        ({"group_by": "tags"}, InvalidFilterError, "tags holds lists of keywords"),
        ({"diversity": 1.5}, InvalidQueryError, "diversity is a number from 0 to 1, not 1.5"),
        ({"diversity": True}, InvalidQueryError, "diversity is a number from 0 to 1, not True"),
        ({"diversity": float("nan")}, InvalidQueryError, "diversity is a number from 0 to 1"),
    ],
)
def test_what_cannot_be_arranged_is_refused(
    asked: dict[str, Any], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        arrangement_of(**asked)


@pytest.mark.parametrize("scores", [[], [2.0], [2.0, 2.0]])
def test_scores_without_a_difference_are_all_the_best(scores: list[float]) -> None:
    assert scaled(scores).tolist() == [1.0] * len(scores)


@given(
    groups=st.lists(st.none() | st.sampled_from("abc"), max_size=30), per_group=st.integers(1, 4)
)
def test_each_group_keeps_its_first(groups: list[str | None], per_group: int) -> None:
    kept = within_groups(groups, per_group)
    assert kept == [
        place
        for place, group in enumerate(groups)
        if group is None or groups[:place].count(group) < per_group
    ]
    counts = Counter(groups[place] for place in kept if groups[place] is not None)
    assert all(count <= per_group for count in counts.values())


def chosen_slowly(
    relevance: list[float], similarity: list[list[float]], diversity: float, k: int
) -> list[int]:
    """Carbonell and Goldstein's selection, one sum after the other."""
    chosen: list[int] = []
    while len(chosen) < min(k, len(relevance)):

        def marginal(place: int) -> float:
            if not chosen:
                return relevance[place]
            nearest = max(similarity[place][other] for other in chosen)
            return (1 - diversity) * relevance[place] - diversity * nearest

        left = [place for place in range(len(relevance)) if place not in chosen]
        chosen.append(max(left, key=lambda place: (marginal(place), -place)))
    return chosen


# Quarters and eighths: sums of them are exact, so that ties are ties.
_eighths = st.integers(-8, 8).map(lambda number: number / 8)


@given(size=st.integers(0, 7), k=st.integers(1, 9), quarter=st.integers(0, 4), data=st.data())
def test_marginal_relevance_chooses_as_the_slow_way_does(
    size: int, k: int, quarter: int, data: st.DataObject
) -> None:
    relevance = data.draw(st.lists(_eighths, min_size=size, max_size=size))
    row = st.lists(_eighths, min_size=size, max_size=size)
    similarity = data.draw(st.lists(row, min_size=size, max_size=size))
    matrix = np.array(similarity, dtype=np.float32).reshape(size, size)
    chosen = marginal_relevance(
        np.array(relevance, dtype=np.float64),
        lambda place: matrix[:, place],
        diversity=quarter / 4,
        k=k,
    )
    assert chosen.tolist() == chosen_slowly(relevance, similarity, quarter / 4, k)


def test_without_diversity_the_order_stays() -> None:
    relevance = np.array([0.9, 0.8, 0.7])
    alike = np.ones((3, 3), dtype=np.float32)
    order = marginal_relevance(relevance, lambda place: alike[place], diversity=0.0, k=3)
    assert order.tolist() == [0, 1, 2]


def test_an_entry_like_one_above_it_gives_way_to_one_that_differs() -> None:
    relevance = np.array([0.90, 0.89, 0.60])
    similar = np.array([[1, 0.99, 0.1], [0.99, 1, 0.1], [0.1, 0.1, 1]], dtype=np.float32)
    order = marginal_relevance(relevance, lambda place: similar[place], diversity=0.5, k=2)
    assert order.tolist() == [0, 2]


@given(
    groups=st.lists(st.sampled_from("abcdef"), max_size=60),
    k=st.integers(1, 10),
    first=st.integers(1, 10),
)
def test_an_answer_is_full_or_nothing_is_left_to_ask(groups: list[str], k: int, first: int) -> None:
    asked: list[int] = []

    def find(depth: int) -> list[str]:
        asked.append(depth)
        return groups[:depth]

    def arrange(found: list[str]) -> list[str]:
        return [found[place] for place in within_groups(found, 1)][:k]

    answer = gather(find, arrange, k=k, first=first, most=len(groups))
    assert answer == [groups[place] for place in within_groups(groups, 1)][:k]
    assert asked == sorted(set(asked)), "each time more than before"
