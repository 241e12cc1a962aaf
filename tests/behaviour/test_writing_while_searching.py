"""Readers that run answer whole while jobs write, over a real server, and reach the last write."""

import threading
from pathlib import Path

import numpy as np
import pytest

from indexrelay.producers import Producer
from indexrelay.reloaders import Reloader
from indexrelay.schemas.settings import Settings
from indexrelay.streams import Connection
from indexrelay.testing.pipeline import Pipeline
from tests.streams.polling import eventually

DIMENSION = 8
ROUNDS = 24
PAIRS = 30


def make_settings() -> Settings:
    return Settings.model_validate(
        {
            "namespace": "live",
            "live": {"keys": ["k" * 32]},
            "collections": {"tracks": {"dimension": DIMENSION, "live": True}},
            "components": {"similar": {"kind": "vector_index", "from": "tracks", "index": "Flat"}},
        }
    )


class Asker(threading.Thread):
    """Searches again and again: of each pair that is written together both are found or none."""

    def __init__(self, reader: Reloader) -> None:
        super().__init__()
        self._reader = reader
        self.done = threading.Event()
        self.answers = 0
        self.wrong: list[object] = []

    def run(self) -> None:
        query = np.ones(DIMENSION, dtype=np.float32)
        before = 0
        while not self.done.is_set():
            with self._reader.acquire() as snapshot:
                generation = snapshot.live.get("tracks", 0)
                hits = snapshot["similar"].search(query, k=3 * PAIRS)
                rounds = {hit.id: hit.payload["round"] for hit in hits}
                left = {name[1:]: each for name, each in rounds.items() if name[0] == "l"}
                right = {name[1:]: each for name, each in rounds.items() if name[0] == "r"}
            if generation < before or left != right:
                self.wrong.append((before, generation, left, right))
            before = generation
            self.answers += 1


@pytest.mark.server
def test_what_is_written_together_is_found_together_while_others_search(
    tmp_path: Path, redis_connection: Connection
) -> None:
    pipeline = Pipeline(make_settings(), tmp_path)
    rng = np.random.default_rng(2)

    def write(producer: Producer, number: int) -> int:
        some = [str(place) for place in rng.choice(PAIRS, size=5, replace=False)]
        names = [side + each for each in some for side in "lr"]
        payloads = [{"round": number}] * len(names)
        with producer.batch("tracks") as batch:
            if number % 4 == 3:
                batch.delete(names)
            else:
                vectors = rng.standard_normal((len(names), DIMENSION))
                batch.upsert(names, vectors, payloads=payloads)
        return batch.commit.generation

    write(pipeline.producer, 0)
    pipeline.settle()
    readers = [
        Reloader(
            pipeline.settings, reader_id=name, store=pipeline.store, connection=redis_connection
        )
        for name in ("one", "two")
    ]
    for reader in readers:
        reader.start()
        assert reader.wait_ready(30)
    askers = [Asker(reader) for reader in readers]
    for asker in askers:
        asker.start()
    generation = 0
    with Producer(
        pipeline.settings, catalog=pipeline.catalog, connection=redis_connection
    ) as producer:
        for number in range(1, ROUNDS):
            generation = write(producer, number)
            if number == ROUNDS // 2:
                pipeline.rebuild()  # a release takes over what was written until now

    def followed() -> bool:
        states = [reader.state for reader in readers]
        return all(
            max(each.live["tracks"].generation, each.components["similar"].covers["tracks"])
            == generation
            for each in states
        )

    eventually(followed)
    for asker in askers:
        asker.done.set()
        asker.join()
        assert asker.wrong == []
        assert asker.answers > 0
    for reader in readers:
        reader.stop()
    pipeline.close()
