"""Builds both kinds, extends one by a small batch, and asks what a reader would ask."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from indexrelay.rebuilder import Rebuilder

DIMENSION = 16


def main() -> None:
    from examples.minimal.surroundings import surroundings
    from indexrelay.producers import Producer
    from indexrelay.reloaders import Reloader

    vectors = np.random.default_rng(0).standard_normal((100, DIMENSION))
    components: dict[str, dict[str, object]] = {
        "middle": {"kind": "middle:MiddleKind", "from": "tracks"},
        "alike": {"kind": "signs:SignIndex", "from": "tracks"},
    }
    with surroundings(dimension=DIMENSION, **components) as around:
        reloader = Reloader(around.settings, reader_id="web-1")
        with Producer.open(around.settings) as producer:
            with producer.batch("tracks") as batch:
                batch.upsert([f"track {row}" for row in range(100)], vectors)
            build(around.rebuilder)
            with producer.batch("tracks") as batch:
                batch.upsert(["new"], [vectors[7]], payloads=[{"title": "New"}])
                batch.delete(["track 7"])
            build(around.rebuilder)
        reloader.step()
        with reloader.acquire() as snapshot:
            print("the middle has", len(snapshot["middle"].vector), "numbers")
            for hit in snapshot["alike"].search(vectors[7], k=2):
                print(hit.id, hit.score, hit.payload)
        reloader.stop()


def build(rebuilder: "Rebuilder") -> None:
    result = rebuilder.step()
    for name, component in result.components.items() if result else ():
        checks = ", ".join(check.name for check in component.checks if check.name != "bytes")
        print(f"{name}: {component.mode}, passed {checks}")


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # where `examples` is found
    main()
