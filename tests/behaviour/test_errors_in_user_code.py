"""Wherever a kind or a function of a user's own raises, log and page show where."""

import importlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from indexrelay.health.judge import judge
from indexrelay.health.status import Code, Verdict
from indexrelay.health.survey import Survey
from indexrelay.testing.pipeline import Pipeline
from tests.fixtures.logs import capture_logs

MakePipeline = Callable[..., Pipeline]

MODULE = """
from indexrelay.components.kind import Built, Kind
from indexrelay.schemas.versions import Check

class Thing(Kind):
    FAILS = ""

    def __init__(self, parameters):
        super().__init__(parameters)
        self.may("__init__")

    def may(self, step):
        if step == self.FAILS:
            raise KeyError("genre")  # the line

    def build(self, job):
        self.may("build")
        (job.workdir / "thing").write_text("x")
        return Built(files={"thing": job.workdir / "thing"}, entries=1)

    def verify(self, job, built, files):
        self.may("verify")
        yield Check(name="first", passed=True)
        self.may("between two checks")

    def load(self, files):
        self.may("load")
        return Value(self)

class Value:
    def __init__(self, kind):
        self.kind = kind

    def close(self):
        self.kind.may("close")

def document(inputs):
    Thing.may(Thing, "function")
    return [1]
"""
STEPS = ["__init__", "build", "verify", "between two checks", "load", "close", "function"]
LINE = MODULE.splitlines().index('            raise KeyError("genre")  # the line') + 1


@pytest.fixture
def users_module(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> ModuleType:
    """Of a name that no other test has: a kind is looked up once in a process."""
    name = f"users_{request.node.name.partition('[')[0]}_{abs(hash(request.node.name))}"
    (tmp_path / f"{name}.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    return importlib.import_module(name)


def made(make: MakePipeline, module: ModuleType) -> Pipeline:
    name = module.__name__
    pipeline = make(
        collections={"tracks": {"dimension": 2}},
        components={
            "thing": {"kind": f"{name}:Thing", "from": "tracks"},
            "page": {"kind": "json_cache", "from": "tracks", "function": f"{name}:document"},
            "good": {"kind": "embedding_cache", "from": "tracks"},
        },
    )
    with pipeline.producer.batch("tracks") as batch:
        batch.upsert(["a"], [[1, 2]])
    return pipeline


def judged(pipeline: Pipeline) -> Verdict:
    survey = Survey(
        pipeline.settings,
        catalog=lambda: pipeline.catalog,
        store=lambda: pipeline.store,
        clock=pipeline.clock,
    )
    return judge(survey.whole())


@pytest.mark.parametrize("step", STEPS)
def test_the_place_in_a_users_code_is_in_the_log_and_on_every_page(
    indexrelay_pipeline: MakePipeline, users_module: ModuleType, step: str
) -> None:
    pipeline = made(indexrelay_pipeline, users_module)
    users_module.Thing.FAILS = step
    component = "page" if step == "function" else "thing"
    with capture_logs() as events:
        result = pipeline.rebuild()
    assert result is not None
    assert component in result.indexes_failed
    assert "good" in result.indexes_rebuilt
    [logged] = [
        each["error"]
        for each in events
        if each["event"] == "component.failed" and each["component"] == component
    ]
    [problem] = [
        each
        for each in judged(pipeline).problems
        if each.code is Code.COMPONENT_FAILED and each.subject == component
    ]
    where = f"{users_module.__name__}.py:{LINE} in Thing.may: raise KeyError"
    shown = {
        "log": logged,
        "result": result.components[component].error or "",
        "components show": pipeline.catalog.attempts.all()[component].error,
        "status": problem.what,
    }
    for door, said in shown.items():
        assert "KeyError: 'genre'" in said, (door, said)
        assert where in said, (door, said)


def test_a_kind_that_cannot_say_whether_it_is_outdated_keeps_no_other_from_being_built(
    indexrelay_pipeline: MakePipeline, users_module: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = made(indexrelay_pipeline, users_module)
    pipeline.settle()
    monkeypatch.setattr(users_module.Thing, "FAILS", "outdated")
    monkeypatch.setattr(
        users_module.Thing,
        "outdated",
        classmethod(lambda kind, _manifest: kind.may(kind, "outdated")),
        raising=False,
    )
    with pipeline.producer.batch("tracks") as batch:
        batch.upsert(["b"], [[1, 2]])
    result = pipeline.rebuild()
    assert result is not None
    assert set(result.indexes_rebuilt) == {"thing", "page", "good"}
    [problem] = [each for each in judged(pipeline).problems if each.code is Code.KIND_RAISES]
    assert problem.subject == "thing"
    assert f"{users_module.__name__}.py:{LINE} in Thing.may: raise KeyError" in problem.what


@pytest.mark.parametrize("step", ["__init__", "load"])
def test_the_place_in_a_users_code_is_in_a_readers_log_and_in_its_reports(
    indexrelay_pipeline: MakePipeline, users_module: ModuleType, step: str
) -> None:
    pipeline = made(indexrelay_pipeline, users_module)
    pipeline.settle()
    users_module.Thing.FAILS = step
    with capture_logs() as events:
        reader = pipeline.reader("web")
    where = f"{users_module.__name__}.py:{LINE} in Thing.may: raise KeyError"
    assert where in (reader.state.components["thing"].error or "")
    assert any(where in str(each.get("error", "")) for each in events)
    assert reader.state.components["good"].error is None
