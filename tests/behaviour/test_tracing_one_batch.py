"""One batch is one trace, from the job to the readers, where the settings ask for traces."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from indexrelay.schemas.settings import Settings
from indexrelay.schemas.tracing import Tracing, tracing_of
from indexrelay.testing import MakePipeline, Pipeline
from tests.testing.test_pipeline import CACHE, commit

GIVEN = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


class Spans:
    """What a provider of this test recorded; the process's own provider can be set only once."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))

    def take(self) -> list[Any]:
        found = list(self._exporter.get_finished_spans())
        self._exporter.clear()
        return found

    def named(self) -> dict[str, Any]:
        found = self.take()
        assert len({each.name for each in found}) == len(found)
        return {each.name.removeprefix("indexrelay."): each for each in found}


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[Spans]:
    recorded = Spans()
    monkeypatch.setattr(trace, "get_tracer", recorded.provider.get_tracer)
    yield recorded
    recorded.provider.shutdown()


@pytest.fixture
def pipeline(indexrelay_pipeline: MakePipeline) -> Pipeline:
    return indexrelay_pipeline(
        collections={"tracks": {"dimension": 3, "metric": "l2"}},
        components={"cache": CACHE},
        monitoring={"traces": True},
    )


def follow(pipeline: Pipeline, reader_id: str = "a") -> None:
    """A reader reads what was announced, and looks."""
    reader = pipeline.reader(reader_id)
    reader._watch.wait(0.0, threading.Event())
    reader.step()


def test_a_batch_is_one_trace_from_the_job_to_the_reader(spans: Spans, pipeline: Pipeline) -> None:
    follow(pipeline)
    with pipeline.producer.batch("tracks", "first", traceparent=GIVEN) as batch:
        batch.upsert(["one"], [[1, 2, 3]])
    pipeline.rebuild()
    follow(pipeline)
    found = spans.named()
    assert list(found) == ["batch", "build", "gates", "release", "rebuild", "load"]
    assert {f"{each.context.trace_id:032x}" for each in found.values()} == {GIVEN[3:35]}
    parents = {name: each.parent.span_id for name, each in found.items()}
    assert f"{parents['batch']:016x}" == GIVEN[36:52]
    assert parents["rebuild"] == found["batch"].context.span_id
    for name in ("build", "release", "load"):
        assert parents[name] == found["rebuild"].context.span_id
    assert parents["gates"] == found["build"].context.span_id
    assert found["batch"].attributes["indexrelay.batch_id"] == "first"
    assert found["build"].attributes["indexrelay.component"] == "cache"
    assert found["release"].attributes["indexrelay.release"] == 1
    assert found["load"].attributes["indexrelay.applied"] == ("cache",)
    assert all(each.status.is_unset for each in found.values())


def test_a_pass_of_several_batches_belongs_to_the_first_and_is_linked_to_the_others(
    spans: Spans, pipeline: Pipeline
) -> None:
    commit(pipeline, "one")
    with pipeline.producer.batches() as batches:
        for each in ("two", "three"):
            with batches.batch("tracks") as batch:
                batch.upsert([each], [[1, 2, 3]])
    batches_traced = spans.take()
    assert all(each.parent is None for each in batches_traced)
    pipeline.rebuild()
    rebuild = spans.named()["rebuild"]
    first, *others = (each.context for each in batches_traced)
    assert rebuild.parent.span_id == first.span_id
    assert {each.context.span_id for each in rebuild.links} == {each.span_id for each in others}


def test_what_fails_is_marked_and_its_text_stays_out_of_the_trace(
    spans: Spans, pipeline: Pipeline
) -> None:
    pipeline.fail_build("cache", error="the password is hunter2")
    commit(pipeline, "one")
    pipeline.rebuild()
    found = spans.named()
    assert (found["build"].status.is_ok, found["build"].status.description) == (False, "failed")
    assert "release" not in found
    assert "hunter2" not in str([each.to_json() for each in found.values()])
    with pytest.raises(ZeroDivisionError), Tracing().span("mine", parent=None):
        raise ZeroDivisionError("hunter2")
    (mine,) = spans.take()
    assert mine.status.description == "ZeroDivisionError"
    assert not mine.events


@pytest.mark.parametrize("given", ["", "nonsense", f"00-{'0' * 32}-{'0' * 16}-01", "00-ff"])
def test_a_context_that_is_none_begins_a_trace_of_its_own(spans: Spans, given: str) -> None:
    with Tracing().span("mine", parent=given, others=[given]) as context:
        assert context is not None
    (mine,) = spans.take()
    assert (mine.parent, len(mine.links)) == (None, 0)


def test_without_a_provider_contexts_are_handed_on_and_nothing_is_recorded() -> None:
    with Tracing().span("mine", parent=GIVEN) as context:
        assert context == GIVEN
    with Tracing().span("mine", parent=None) as context:
        assert context is None


def test_without_the_setting_there_are_no_spans(spans: Spans, tmp_path: Path) -> None:
    assert tracing_of(Settings()) is None
    pipeline = Pipeline(
        Settings.model_validate(
            {"collections": {"tracks": {"dimension": 3}}, "components": {"cache": CACHE}}
        ),
        tmp_path,
    )
    commit(pipeline, "one")
    pipeline.settle()
    pipeline.close()
    assert spans.take() == []
