"""Whoever keeps a part of a snapshot too long is told so."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from indexrelay.components.errors import ClosedVersionError
from indexrelay.components.registry import kind_of
from indexrelay.schemas.settings import ComponentDefinition
from tests.components.jobs import clustered, make_job, make_snapshot, run

QUESTIONS: dict[str, Callable[[Any], object]] = {
    "vector_index": lambda index: index.search([1.0] * 5),
    "search": lambda search: search.search([1.0] * 5, "word"),
    "embedding_cache": lambda cache: cache.get("e000007"),
    "projection": lambda plot: plot.get("e000007"),
}


@pytest.mark.parametrize("kind_name", sorted(QUESTIONS))
def test_use_after_close_raises_a_clear_error_and_no_missing_attribute(
    kind_name: str, tmp_path: Path
) -> None:
    kind = kind_of(ComponentDefinition.of(kind_name, "tracks"))
    served = kind.load(run(kind, make_job(tmp_path, make_snapshot(clustered(300, 5)))).files)
    QUESTIONS[kind_name](served)
    served.close()
    with pytest.raises(ClosedVersionError, match=r"with reloader\.acquire"):
        QUESTIONS[kind_name](served)
    with pytest.raises(AttributeError, match="no attribute 'serach'"):
        served.serach  # noqa: B018 - asking is the point
