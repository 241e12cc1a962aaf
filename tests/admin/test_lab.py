"""The search lab: one question to two sides, errors at their field, and versions that close."""

import gc
import weakref
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from indexrelay.admin.lab import LabRequest, SearchLab
from indexrelay.admin.version_cache import Named, VersionCache
from indexrelay.components.embedder import Embedders
from indexrelay.components.served import Hit
from indexrelay.testing import Pipeline
from tests.admin.songs import HOSTILE, vectors

DEEP: dict[str, Any] = {"genre": "jazz"}
for _ in range(200):
    DEEP = {"$not": DEEP}
FIRST = vectors()[1].tolist()


def ask(song_client: httpx.Client, *sides: str | tuple[str, int], **asked: Any) -> Any:
    answer = song_client.post("lab/search", json=question(*sides, **asked))
    assert answer.status_code == 200, answer.text
    return answer.json()


def question(*sides: str | tuple[str, int], **asked: Any) -> dict[str, Any]:
    named = [(each, None) if isinstance(each, str) else each for each in sides]
    return {
        "sides": [{"component": name, "release": release} for name, release in named],
        **asked,
    }


def ids(side: dict[str, Any]) -> list[str]:
    return [hit["id"] for hit in side["hits"]]


def test_two_releases_answer_one_question_and_are_compared(song_client: httpx.Client) -> None:
    found = ask(song_client, ("sounds", 1), ("sounds", 2), vector=FIRST, k=5)
    before, now = found["sides"]
    assert (before["release"], now["release"]) == (1, 2)
    assert ids(before)[0] == "song-01"
    assert "song-01" not in ids(now)
    assert found["overlap_at_k"] == len(set(ids(before)) & set(ids(now))) / 5
    assert found["only_first"] == found["only_second"] >= 1
    for hit in now["hits"]:
        other = hit["other_rank"]
        assert other == (ids(before).index(hit["id"]) + 1 if hit["id"] in ids(before) else None)
    assert now["explanation"]["plan"] == "unfiltered"
    assert now["explanation"]["stages"]


def test_two_components_answer_a_text_each_by_what_it_has(song_client: httpx.Client) -> None:
    found = ask(song_client, "both", "sounds", text="song number 7", k=3)
    both, sounds = found["sides"]
    assert both["asked_by"] == ["text", "vector"]
    assert sounds["asked_by"] == ["vector"]
    assert ids(both)[0] == ids(sounds)[0] == "song-07"
    assert both["hits"][0]["text"] == f"song number 7 {HOSTILE}"
    assert both["hits"][0]["arms"]["vector"]["rank"] == 1
    assert set(both["explanation"]["arms"]) == {"vector", "text"}
    assert sounds["hits"][0]["arms"] is None


def test_filters_weights_and_ids_reach_the_component(song_client: httpx.Client) -> None:
    [side] = ask(song_client, "both", text="song", k=20, filter={"genre": "jazz"})["sides"]
    assert {hit["payload"]["genre"] for hit in side["hits"]} == {"jazz"}
    assert side["explanation"]["arms"]["vector"]["matches"] == 19
    [words] = ask(song_client, "both", text="7", weights={"vector": 0, "text": 1}, k=1)["sides"]
    assert set(words["hits"][0]["arms"]) == {"text"}
    [like] = ask(song_client, "sounds", id="song-05", k=3)["sides"]
    assert "song-05" not in ids(like)
    assert like["asked_by"] == ["id"]


def test_what_only_one_side_cannot_answer_stands_in_its_answer(song_client: httpx.Client) -> None:
    found = ask(song_client, ("sounds", 1), ("sounds", 2), id="song-00", k=3)
    assert len(found["sides"][0]["hits"]) == 3
    assert found["sides"][1]["error"]["field"] == "id"
    assert found["overlap_at_k"] is None


@pytest.mark.parametrize(
    ("asked", "field", "says"),
    [
        (question("bare", text="a"), "text", "no embedder"),
        (question("bare", text="a"), "text", "give a vector or an id"),
        (question("sounds", text="a", filter={"genr": 1}), "filter", "genre"),
        (question("sounds", vector=[1, 2]), "vector", "4"),
        (question("sounds", id="nobody"), "id", "nobody"),
        (question("sounds", id="song-05", weights={"text": 1}), "weights", "leave it empty"),
        (question("both", id="song-05", weights={"text": 1}), "weights", "nothing to weigh"),
        (question("chart", id="song-05"), "sides.0.component", "it has no search"),
        (question("nobody", id="song-05"), "sides.0.component", "it has bare"),
        (question(("sounds", 99), id="song-05"), "sides.0.release", "99"),
        (question("words", vector=FIRST), "vector", "a text"),
    ],
)
def test_a_mistake_names_its_field(
    song_client: httpx.Client, asked: dict[str, Any], field: str, says: str
) -> None:
    answer = song_client.post("lab/search", json=asked)
    assert answer.status_code == 422
    problem = answer.json()
    assert problem["errors"][0]["field"] == field
    assert says in problem["detail"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"k": 0},
        {"k": 201},
        {"k": "ten"},
        {"vector": [float(10**39)]},
        {"vector": ["1"]},
        {"weights": {"text": -1}},
        {"weights": {"title": 1}},
        {"weights": {"text": 0, "vector": 0}},
        {"filter": "genre"},
        {"id": ""},
        {"text": "a", "id": "b"},
        {"sides": []},
        {"more": 1},
        {"filter": DEEP, "text": "a"},
    ],
)
def test_no_question_that_is_wrong_is_a_fault_of_ours(
    song_client: httpx.Client, wrong: dict[str, Any]
) -> None:
    asked = {"id": "song-05"} if not {"text", "vector", "id"} & wrong.keys() else {}
    answer = song_client.post("lab/search", json={**question("sounds", **asked), **wrong})
    assert answer.status_code == 422, answer.text


def test_what_can_be_asked_says_why_a_component_takes_no_text(song_client: httpx.Client) -> None:
    found = song_client.get("lab").json()
    components = {each["component"]: each for each in found["components"]}
    assert set(components) == {"both", "sounds", "words", "bare"}
    assert components["sounds"]["questions"] == ["vector", "id", "text"]
    assert components["sounds"]["by_text"] is None
    assert "no embedder" in components["bare"]["by_text"]
    assert components["both"]["filterable"] == {"genre": "keyword", "year": "number"}
    assert [each["number"] for each in found["releases"]] == [2, 1]


def test_few_versions_stay_open_and_the_others_are_closed(songs: Pipeline) -> None:
    versions = VersionCache(
        songs.store, definitions=songs.settings.components, clock=songs.clock, most=2
    )
    lab = SearchLab(songs.settings, versions, embedders=Embedders(songs.settings))
    older = versions.open(versions.named("sounds", versions.release(1)))
    value = weakref.ref(older.value)
    for release in (2, 1, 2):
        for component in ("both", "sounds"):
            lab.search(LabRequest.model_validate(question((component, release), id="song-05")))
    assert len(versions) == 2
    assert older.value.search_by_id("song-05", k=1), "who still uses it is not disturbed"
    versions.close()
    assert len(versions) == 0
    del older
    gc.collect()
    assert value() is None
    versions.close()


def test_a_component_whose_files_are_corrupt_says_so_and_the_other_side_answers(
    songs: Pipeline, song_versions: VersionCache
) -> None:
    lab = SearchLab(songs.settings, song_versions, embedders=Embedders(songs.settings))
    opened = songs.store.open_version("words", songs.store.release(2).components["words"])
    path = next(iter(opened.files.values()))
    data = path.read_bytes()
    path.chmod(0o600)
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    try:
        found = lab.search(
            LabRequest.model_validate(question("words", "sounds", text="song 3", k=2))
        )
    finally:
        path.write_bytes(data)
        path.chmod(0o400)
    broken, whole = found.sides
    assert broken.error is not None
    assert "indexrelay rebuild words" in broken.error.detail
    assert len(whole.hits) == 2


class Broken:
    """What a user's kind may serve: its search raises, or finds what cannot be shown."""

    def __init__(self, found: list[Any] | None) -> None:
        self.found = found

    def search(self, vector: Any, *, k: int = 10) -> Any:
        if self.found is None:
            raise RuntimeError(f"no {k} like {vector}: {HOSTILE}")
        return self.found

    def search_by_id(self, entry_id: str, *, k: int = 10) -> Any:
        return self.search(entry_id, k=k)

    def close(self) -> None: ...


@pytest.mark.parametrize(
    ("found", "says"),
    [
        (None, "RuntimeError: no 2 like song-05"),
        ([Hit("a", 1.0, {1, 2})], "TypeError"),
        ([Hit("a", 1.0, float("nan"))], "ValueError"),
        (["a"], "AttributeError"),
    ],
)
def test_a_search_of_a_users_kind_that_fails_is_named_and_the_other_side_answers(
    songs: Pipeline,
    song_versions: VersionCache,
    monkeypatch: pytest.MonkeyPatch,
    found: list[Any] | None,
    says: str,
) -> None:
    lab = SearchLab(songs.settings, song_versions, embedders=Embedders(songs.settings))
    whole = song_versions.open

    def opened(named: Named) -> Any:
        served = whole(named)
        if named.release.number == 2 or named.component != "sounds":
            return served
        return SimpleNamespace(value=Broken(found), manifest=served.manifest)

    monkeypatch.setattr(song_versions, "open", opened)
    asked = question(("sounds", 1), ("sounds", 2), id="song-05", k=2)
    broken, other = lab.search(LabRequest.model_validate(asked)).sides
    assert broken.error is not None
    assert f"the search of sounds failed: {says}" in broken.error.detail
    assert len(other.hits) == 2
