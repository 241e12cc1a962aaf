"""The table of golden figures over the versions of one component."""

from datetime import UTC, datetime
from typing import Any

import pytest
from rich.console import Console

from indexrelay.components.golden import HIT_RATE, KNOWN, NDCG
from indexrelay.console.golden import golden_figures, golden_sheet, sparkline
from indexrelay.schemas.versions import BlobRef, Check, VersionManifest


def version(
    hit_rate: float | None,
    ndcg: float | None,
    *,
    sha256: str = "a" * 64,
    floor: float | None = None,
    **parameters: Any,
) -> VersionManifest:
    """A version that golden queries were asked of."""
    return manifest(
        {"golden": {"file": "queries.jsonl", "sha256": sha256}, **parameters},
        Check(name=KNOWN, passed=True, measured=1),
        Check(name=HIT_RATE, passed=True, measured=hit_rate, limit=floor),
        Check(name=NDCG, passed=True, measured=ndcg),
    )


def manifest(parameters: dict[str, Any], *checks: Check) -> VersionManifest:
    return VersionManifest(
        component="find",
        kind="vector_index",
        definition="0" * 64,
        parameters=parameters,
        covers={"docs": 1},
        epochs={"docs": "e"},
        files={"base": BlobRef(digest="0" * 64, size=1)},
        entries=1,
        checks=checks,
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
    )


def page(*versions: VersionManifest | None) -> str:
    rows = [(str(9 - row), "1 h ago", each) for row, each in enumerate(versions)]
    sheet = golden_sheet(rows)
    assert sheet is not None
    console = Console(width=120, no_color=True)
    with console.capture() as captured:
        console.print(sheet)
    return captured.get()


def test_each_version_has_its_figures_and_a_line_shows_their_course() -> None:
    shown = page(version(0.9, 0.8, floor=0.85), None, version(1, 0.4), version(0.5, 0.0))
    assert "Golden queries  ▁▄▇" in shown
    assert "0.9 (≥ 0.85)" in shown
    assert "hit rate@10" in shown
    assert [line.split()[0] for line in shown.splitlines() if "queries.jsonl" in line] == [
        "9",
        "7",
        "6",
    ]


@pytest.mark.parametrize("other", [{"sha256": "b" * 64}, {"golden_k": 5}])
def test_a_version_that_was_asked_otherwise_says_so_and_is_not_in_the_line(
    other: dict[str, Any],
) -> None:
    shown = page(version(1, 0.8), version(1, 0.9), version(1, 0.1, **other))
    assert "Golden queries  ▇▇" in shown
    assert "other queries" in shown.splitlines()[-2] + shown.splitlines()[-1]


def test_where_no_query_could_be_asked_there_is_no_figure() -> None:
    asked = version(None, None)
    found = golden_figures(asked)
    assert found is not None
    assert (found.hit_rate, found.ndcg, found.known) == (None, None, 1)
    assert "queries.jsonl" in page(asked)


def test_a_version_without_golden_queries_has_none() -> None:
    plain = manifest({}, Check(name="count", passed=True))
    assert golden_figures(plain) is None
    assert golden_sheet([("1", "1 h ago", plain), ("0", "", None)]) is None


def test_a_users_own_key_of_that_name_is_not_taken_for_golden_queries() -> None:
    own = manifest({"golden": "ratio"}, Check(name=NDCG, passed=True, measured=0.5))
    assert golden_figures(own) is None


def test_a_bar_stands_for_each_share() -> None:
    assert sparkline([0, 0.5, 1]) == "▁▅█"
    assert sparkline([-1, 2]) == "▁█"
    assert sparkline([]) == ""
