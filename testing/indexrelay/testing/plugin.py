"""The pytest plugin: found by its entry point, loaded in every pytest run of an environment.

So importing it costs next to nothing; FAISS, scikit-learn and fakeredis are imported when a test
first asks for a pipeline.

    def test_a_new_track_is_found(indexrelay_pipeline):
        pipeline = indexrelay_pipeline(
            collections={"tracks": {"dimension": 3}},
            components={"similar": {"kind": "vector_index", "from": "tracks"}},
        )
        reader = pipeline.reader("a")
        with pipeline.producer.batch("tracks") as batch:
            batch.upsert(["one"], [[1, 0, 0]])
        pipeline.settle()
        with reader.acquire() as snapshot:
            assert snapshot["similar"].search([1, 0, 0], k=1)[0].id == "one"
"""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from indexrelay.schemas.errors import missing_extra, require

try:
    import pytest
except ModuleNotFoundError as error:
    raise missing_extra(error) from error

if TYPE_CHECKING:
    from indexrelay.schemas.settings import Settings
    from indexrelay.testing.pipeline import Pipeline


class MakePipeline(Protocol):
    """What the fixture ``indexrelay_pipeline`` hands to a test."""

    def __call__(self, settings: "Settings | None" = None, /, **tables: Any) -> "Pipeline":
        """Make a pipeline.

        Args:
            settings: the application's own, as ``load_settings`` read them; their places (Redis,
                catalog, artifacts, data folder) are replaced by the test's own.
            tables: tables as in ``indexrelay.toml``, instead of ``settings``' or as all there is.

        Raises:
            SettingsError: with every mistake in the tables, as an application would report them.
            MissingExtraError: fakeredis is not installed.
        """
        ...


@pytest.fixture
def indexrelay_pipeline(tmp_path: Path) -> "Iterator[MakePipeline]":
    """Make pipelines on fakeredis with injected time, and close them after the test."""
    with ExitStack() as stack:
        made = 0

        def make(settings: "Settings | None" = None, /, **tables: Any) -> "Pipeline":
            nonlocal made
            made += 1
            require("fakeredis")  # named with its extra before anything is made
            from indexrelay.components.registry import check_kind
            from indexrelay.schemas.settings_file import check_settings
            from indexrelay.testing.pipeline import Pipeline

            given = settings.model_dump(by_alias=True) if settings is not None else {}
            whole = check_settings(
                {**given, **tables}, origin="indexrelay_pipeline", check_kind=check_kind
            )
            pipeline = Pipeline(whole, tmp_path / f"indexrelay-{made}")
            stack.callback(pipeline.close)
            return pipeline

        yield make
