"""Songs on a map, in two releases, and a service that answers for them."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexrelay.components.registry import check_kind
from indexrelay.schemas.settings_file import check_settings
from indexrelay.testing import Pipeline

SONGS = 60
GENRES = ("jazz", "rock", "soul")
HOSTILE = "<img src=x onerror=alert(1)>\x1b[31m \u202egnp.exe"

COMPONENTS: dict[str, dict[str, Any]] = {
    "chart": {"kind": "projection", "from": "songs"},
    "both": {"kind": "search", "from": "songs"},
    "sounds": {"kind": "vector_index", "from": "songs"},
    "words": {"kind": "text_index", "from": "songs"},
    "bare": {"kind": "vector_index", "from": "tones"},
    "bare_chart": {"kind": "projection", "from": "tones"},
    "whole_chart": {"kind": "projection", "from": ["songs", "tones"]},
    "ids": {"kind": "embedding_cache", "from": "songs"},
}


def embed(texts: list[str]) -> NDArray[np.float32]:
    """A vector for each text, of the song that it names."""
    numbers = [int("".join(filter(str.isdigit, text)) or 0) for text in texts]
    return vectors()[numbers]


def vectors() -> NDArray[np.float32]:
    return np.random.default_rng(4).normal(size=(SONGS, 4)).astype(np.float32)


def payload(number: int) -> dict[str, Any]:
    """Of song ``number``: some fields that tell songs apart, and some that do not."""
    found: dict[str, Any] = {
        "genre": GENRES[number % 3],
        "year": 1960 + number,
        "title": f"Song {number} {HOSTILE}",
        "same": 1,
        "a/b ?": number % 2,
    }
    return found | ({"live": True} if number % 2 else {"live": False, "huge": 10**30})


def two_releases(folder: Path) -> Iterator[Pipeline]:
    """Release 1 has all songs; in release 2 song 0 is gone and song 1 has moved."""
    settings = check_settings(
        {
            "collections": {
                "songs": {
                    "dimension": 4,
                    "filterable": {"genre": "keyword", "year": "number"},
                    "embedder": f"{__name__}:embed",
                },
                "tones": {"dimension": 4},
            },
            "components": COMPONENTS,
        },
        origin="the tests",
        check_kind=check_kind,
    )
    ids = [f"song-{number:02}" for number in range(SONGS)]
    with closing(Pipeline(settings, folder)) as pipeline:
        with pipeline.producer.batch("songs") as batch:
            batch.upsert(
                ids,
                vectors(),
                payloads=[payload(number) for number in range(SONGS)],
                texts=[f"song number {number} {HOSTILE}" for number in range(SONGS)],
            )
        with pipeline.producer.batch("tones") as batch:
            batch.upsert(["a", "b", "c"], vectors()[:3])
        pipeline.settle()
        with pipeline.producer.batch("songs") as batch:
            batch.delete(["song-00"])
            batch.upsert(["song-01"], -vectors()[1:2])
        pipeline.advance(10)
        yield pipeline
