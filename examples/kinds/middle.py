"""The middle of a collection: the smallest kind."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from indexrelay.components import Built, Check, Files, Job, Kind, KindParameters, Vectors


@dataclass(frozen=True)
class Middle:
    vector: Vectors

    def close(self) -> None: ...


class MiddleKind(Kind[KindParameters, Middle]):
    def build(self, job: Job) -> Built:
        path, source = job.workdir / "middle.npy", job.collection
        total = sum(chunk.vectors.sum(axis=0) for chunk in source.chunks())
        np.save(path, total / max(1, source.count))
        return Built(files={"middle.npy": path}, entries=source.count)

    def verify(self, job: Job, built: Built, files: Files) -> Iterator[Check]:
        vector = self.load(files).vector
        yield Check(name="dimension", passed=vector.shape == (job.collection.dimension,))

    def load(self, files: Files) -> Middle:
        return Middle(np.load(files["middle.npy"]))
