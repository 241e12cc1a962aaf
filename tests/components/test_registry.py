"""Kinds by name, and definitions held against them."""

import subprocess
import sys
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

from indexrelay.components import check_kind, kind_class, kind_of
from indexrelay.components.errors import InvalidParametersError, KindNotFoundError
from indexrelay.components.kind import Built, Job, Kind, KindParameters
from indexrelay.components.layered import LayeredKind, LayeredParameters
from indexrelay.components.served import Served
from indexrelay.components.text_index import TextIndex
from indexrelay.components.vector_index import VectorIndex, VectorIndexParameters
from indexrelay.schemas.settings import ComponentDefinition
from indexrelay.schemas.versions import Check
from indexrelay.storage.entries import Entries

BUILT_IN = ["embedding_cache", "json_cache", "projection", "search", "text_index", "vector_index"]


class Parameters(KindParameters):
    size: int = 3


class UsersKind(Kind[Parameters, Served]):
    def build(self, job: Job) -> Built:
        raise NotImplementedError

    def verify(self, job: Job, built: Built, files: Mapping[str, Path]) -> Iterable[Check]:
        raise NotImplementedError

    def load(self, files: Mapping[str, Path]) -> Served:
        raise NotImplementedError


@pytest.fixture
def users_kind(monkeypatch: pytest.MonkeyPatch) -> Iterable[str]:
    monkeypatch.setitem(sys.modules, "users_kinds", sys.modules[__name__])
    kind_class.cache_clear()
    yield "users_kinds:UsersKind"
    kind_class.cache_clear()


def mistakes(kind: str, *inputs: str, **keys: object) -> list[str]:
    definition = ComponentDefinition.of(kind, *(inputs or ("tracks",)), **keys)
    return [str(mistake) for mistake in check_kind("voyager", definition)]


@pytest.mark.parametrize("name", BUILT_IN)
def test_the_kinds_that_come_along_are_found_by_name(name: str) -> None:
    assert issubclass(kind_class(name), Kind)


def test_a_users_class_is_found_by_module_and_name(users_kind: str) -> None:
    assert kind_class(users_kind) is UsersKind
    kind = kind_of(ComponentDefinition.of(users_kind, "tracks", size=5))
    assert kind.parameters == Parameters(size=5)


def test_a_kind_that_names_no_parameters_is_told_how(monkeypatch: pytest.MonkeyPatch) -> None:
    class Bare(LayeredKind):  # type: ignore[type-arg] # as users do
        def rows_of(self, entries: Entries) -> Any:
            raise NotImplementedError

        def load(self, files: Mapping[str, Path]) -> Served:
            raise NotImplementedError

    class Named(LayeredKind[LayeredParameters, Served]):
        rows_of, load = Bare.rows_of, Bare.load

    module = sys.modules[__name__]
    monkeypatch.setitem(sys.modules, "users_kinds", module)
    monkeypatch.setattr(module, "Bare", Bare, raising=False)
    monkeypatch.setattr(module, "Named", Named, raising=False)
    kind_class.cache_clear()
    told = "Bare names no parameters: write LayeredKind[PARAMETERS, SERVED]"
    found = mistakes("users_kinds:Bare", seed=7)
    assert [told in each for each in found] == [True, False]
    assert mistakes("users_kinds:Bare") == []
    assert not any("PARAMETERS" in each for each in mistakes("users_kinds:Named", seed=7))
    kind_class.cache_clear()


def test_threads_that_ask_at_once_get_the_same_class() -> None:
    kind_class.cache_clear()
    start = threading.Barrier(4)
    found: list[type[Kind[Any, Served]]] = []

    def ask() -> None:
        start.wait()
        found.append(kind_class("text_index"))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [TextIndex] * 4


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("vector_indx", "did you mean 'vector_index'?"),
        ("zebra", "; there is embedding_cache, json_cache"),
        ("no_such_module:Kind", "'no_such_module' cannot be imported"),
        (":Kind", "'' cannot be imported"),
        ("indexrelay.components.text_index:TextIndx", "did you mean 'TextIndex'?"),
        ("pathlib:Path", "is not a class derived from Kind"),
        ("json:dumps", "is not a class derived from Kind"),
    ],
)
def test_an_unknown_kind_is_refused_with_what_there_is(name: str, reason: str) -> None:
    with pytest.raises(KindNotFoundError) as caught:
        kind_class(name)
    assert reason in str(caught.value)
    (mistake,) = mistakes(name)
    assert mistake.startswith(f"components.voyager.kind = {name!r}: ")


def test_a_definition_becomes_a_kind_with_its_parameters() -> None:
    kind = kind_of(ComponentDefinition.of("vector_index", "tracks", index="HNSW32"))
    assert isinstance(kind, VectorIndex)
    assert kind.parameters == VectorIndexParameters(index="HNSW32")


def test_parameters_that_a_kind_does_not_take_are_refused() -> None:
    definition = ComponentDefinition.of("vector_index", "tracks", min_recal=0.9, seed=-1)
    with pytest.raises(InvalidParametersError) as caught:
        kind_of(definition)
    assert [mistake.key for mistake in caught.value.mistakes] == ["seed", "min_recal"]


def test_every_mistake_has_its_key_its_value_and_what_would_be_right() -> None:
    found = mistakes("vector_index", "tracks", "artists", min_recal=0.9, max_latency_ms=0)
    assert found == [
        "components.voyager.from = ['tracks', 'artists']: vector_index is made from at most 1",
        "components.voyager.max_latency_ms = 0: must be greater than 0",
        "components.voyager.min_recal = (hidden: number): no such key; did you mean 'min_recall'?",
    ]


def test_a_component_is_no_input_for_a_kind_that_reads_collections() -> None:
    for kind, wrong in (("vector_index", True), ("projection", True), ("json_cache", False)):
        keys = {"function": "json:dumps"} if kind == "json_cache" else {}
        definition = ComponentDefinition.of(kind, "artists", **keys)
        found = [str(each) for each in check_kind("voyager", definition, {"artists", "voyager"})]
        said = f"components.voyager.from = 'artists': artists is a component; {kind} is made from"
        assert [each.startswith(said) for each in found] == [True] * wrong


@pytest.mark.parametrize(
    "index", ["IVF64,Flatt", "IVF,Flat", "IVF0,Flat", "flat", "", "IDMap,Flat", "Flat\n", "HNSW"]
)
def test_an_index_that_faiss_does_not_have_is_a_mistake(index: str) -> None:
    (mistake,) = mistakes("vector_index", index=index)
    assert mistake.startswith(f"components.voyager.index = {index!r}: not a FAISS factory string")
    assert "IVF1024,Flat" in mistake


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        ({"index": "Flat", "nprobe": 4}, "nprobe does nothing for Flat, which has no lists"),
        ({"index": "IVF64,Flat", "ef_search": 4}, "nothing for IVF64,Flat, which is no HNSW"),
        ({"index": "NSG32", "ef_search": 4}, "nothing for NSG32, which is no HNSW"),
        ({"ef_search": 4}, "nothing for auto, which tunes a graph by itself"),
        ({"index": "SQ8", "max_bytes": 10}, "max_bytes does nothing for SQ8; it guides auto"),
        ({"index": "SQ8", "prefer": "latency"}, "prefer does nothing for SQ8; it guides auto"),
        ({"index": "SQ8", "max_build_seconds": 9}, "max_build_seconds does nothing for SQ8"),
    ],
)
def test_a_key_that_would_do_nothing_is_a_mistake(keys: dict[str, object], reason: str) -> None:
    (mistake,) = mistakes("vector_index", **keys)
    assert reason in mistake


def test_definitions_without_mistakes_have_none() -> None:
    assert mistakes("vector_index", index="OPQ16,IVF1024,PQ16x4fsr,RFlat", nprobe=8) == []
    assert mistakes("vector_index", max_bytes=1) == []
    assert mistakes("text_index", tokenizer="trigram") == []
    assert mistakes("embedding_cache") == []


def test_checking_a_definition_imports_nothing_heavy() -> None:
    program = f"""
import sys
from indexrelay.components import check_kind, kind_class
from indexrelay.schemas.settings import ComponentDefinition
for kind in {BUILT_IN}:
    kind_class(kind)
definition = ComponentDefinition.of("vector_index", "tracks", index="IVF64,Flat")
assert list(check_kind("voyager", definition)) == []
print(sorted({{"faiss", "sklearn", "scipy"}} & set(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_a_kind_whose_module_raises_is_refused_with_what_it_raised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "raising_kind.py").write_text("raise RuntimeError('no device')\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(KindNotFoundError, match="RuntimeError: no device"):
        kind_class("raising_kind:Thing")
