"""A search component from its settings to its answers, over a whole pipeline."""

from collections.abc import Sequence

import pytest

from indexrelay.components.search import HybridHit, HybridQuery
from indexrelay.schemas.filters import InvalidFilterError
from indexrelay.testing.plugin import MakePipeline

SETTINGS = {
    "collections": {
        "tracks": {
            "dimension": 3,
            "filterable": {"artist": "keyword", "album.year": "number"},
        }
    },
    "components": {
        "find": {
            "kind": "search",
            "from": "tracks",
            "text": {"tokenizer": "english"},
            "rerank": f"{__name__}:oldest_first",
            "rerank_hits": 20,
        }
    },
}
TRACKS = {
    "calm": ([1.0, 0.0, 0.1], "a calm sea at night", "Ada", 1999),
    "loud": ([0.0, 1.0, 0.1], "loud trains", "Bo", 2004),
    "sea": ([0.9, 0.1, 0.0], "songs of the seas", "Ada", 2010),
    "rain": ([0.1, 0.2, 1.0], "rain on the roof", "Cy", 1980),
}


def oldest_first(query: HybridQuery, hits: Sequence[HybridHit]) -> list[float]:
    """What the settings name."""
    assert query.vector is not None
    assert query.text is not None
    return [-float(hit.payload["album"]["year"]) for hit in hits]


def test_a_search_is_declared_built_reranked_filtered_and_grouped(
    indexrelay_pipeline: MakePipeline,
) -> None:
    pipeline = indexrelay_pipeline(**SETTINGS)
    reader = pipeline.reader("a")
    with pipeline.producer.batch("tracks") as batch:
        batch.upsert(
            list(TRACKS),
            [vector for vector, _, _, _ in TRACKS.values()],
            texts=[text for _, text, _, _ in TRACKS.values()],
            payloads=[
                {"artist": artist, "album": {"year": year}}
                for _, _, artist, year in TRACKS.values()
            ],
        )
    pipeline.settle()
    with reader.acquire() as snapshot:
        find = snapshot["find"]
        fused = find.search(
            vector=[1, 0, 0], text="a song of the sea", weights={"text": 2}, rerank=False
        )
        assert [hit.id for hit in fused][:2] == ["sea", "calm"], "English endings are cut off"
        assert {arm: found.rank for arm, found in fused[0].arms.items()} == {"vector": 2, "text": 1}
        reranked = find.search(vector=[1, 0, 0], text="sea", k=4)
        assert [hit.id for hit in reranked] == ["rain", "calm", "loud", "sea"]
        asked = {"vector": [1, 0, 0], "text": "sea", "rerank": False}
        late = find.search(**asked, filter={"album.year": {"$gte": 2000}})
        assert {hit.id for hit in late} == {"sea", "loud"}
        by_artist = find.search(**asked, k=3, group_by="artist")
        assert sorted(hit.payload["artist"] for hit in by_artist) == ["Ada", "Bo", "Cy"]
        assert find.get(["rain"])[0].text == "rain on the roof"
        with pytest.raises(InvalidFilterError, match=r"there are album\.year, artist"):
            find.search(**asked, group_by="genre")


def test_both_halves_follow_a_batch_in_one_version(indexrelay_pipeline: MakePipeline) -> None:
    pipeline = indexrelay_pipeline(**SETTINGS)
    reader = pipeline.reader("a")
    with pipeline.producer.batch("tracks") as batch:
        ids = [f"t{row:03d}" for row in range(60)]
        batch.upsert(
            ids,
            [[1.0, row / 60, 0.1] for row in range(60)],
            texts=["trains"] * 60,
            payloads=[{"album": {"year": 1990}}] * 60,
        )
    pipeline.settle()
    with pipeline.producer.batch("tracks") as batch:
        batch.upsert(
            ["t007"], [[-1.0, 0.0, 0.0]], texts=["lanterns"], payloads=[{"album": {"year": 2020}}]
        )
        batch.delete(["t008"])
    pipeline.settle()
    with reader.acquire() as snapshot:
        hits = snapshot["find"].search(vector=[-1, 0, 0], text="lantern", k=100, rerank=False)
        assert {arm: found.rank for arm, found in hits[0].arms.items()} == {"vector": 1, "text": 1}
        assert hits[0].id == "t007"
        assert len(hits) == 59
        assert snapshot["find"].count({"album.year": 2020}) == 1
