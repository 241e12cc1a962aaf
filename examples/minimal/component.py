"""A component of a kind of your own: the middle of a collection.

To declare it takes one table; the class is named where an installed kind would be:

    [components.middle]
    kind = "examples.minimal.component:Middle"
    from = "tracks"
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from indexrelay.components import Built, Check, Files, Job, Kind, KindParameters, Vectors


@dataclass(frozen=True)
class Served:
    vector: Vectors

    def close(self) -> None:
        """Nothing is held open."""


class Middle(Kind[KindParameters, Served]):
    def build(self, job: Job) -> Built:
        path, source = job.workdir / "middle.npy", job.collection
        total = sum(chunk.vectors.sum(axis=0) for chunk in source.chunks())
        np.save(path, total / max(1, source.count))
        return Built(files={"middle.npy": path}, entries=source.count)

    def verify(self, job: Job, built: Built, files: Files) -> Iterator[Check]:
        source, vector = job.collection, self.load(files).vector
        yield Check(name="dimension", passed=vector.shape == (source.dimension,))
        yield Check(name="finite", passed=bool(np.isfinite(vector).all()))
        yield Check(name="count", passed=built.entries == source.count, measured=built.entries)

    def load(self, files: Files) -> Served:
        return Served(np.load(files["middle.npy"], allow_pickle=False))


def main() -> None:
    from examples.minimal.producer import job
    from examples.minimal.surroundings import surroundings
    from indexrelay.reloaders import Reloader

    kind = "examples.minimal.component:Middle"
    with surroundings(middle={"kind": kind, "from": "tracks"}) as around:
        job(around.settings)
        result = around.rebuilder.step()
        for check in result.components["middle"].checks if result else ():
            print(f"{'✓' if check.passed else '✗'} {check.name}")
        reloader = Reloader(around.settings, reader_id="web-1")
        reloader.step()
        with reloader.acquire() as snapshot:
            print("the middle:", ", ".join(f"{x:.2f}" for x in snapshot["middle"].vector))
        reloader.stop()


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # where `examples` is found
    main()
