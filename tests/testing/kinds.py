"""A kind that never comes to rest."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import ClassVar

from indexrelay.components.kind import Built, Job, Kind, KindParameters
from indexrelay.schemas.versions import Check


class Nothing:
    """What it serves."""

    def close(self) -> None:
        """Nothing to let go of."""


class Restless(Kind[KindParameters, Nothing]):
    """Each of its builds makes a new batch, so it is due again when it is done."""

    after_build: ClassVar[Callable[[], None]]

    def build(self, job: Job) -> Built:
        (snapshot,) = job.collections.values()
        file = job.workdir / "generation.txt"
        file.write_text(str(snapshot.generation))
        type(self).after_build()
        return Built(files={"generation.txt": file}, entries=snapshot.count)

    def verify(self, job: Job, built: Built, files: Mapping[str, Path]) -> Iterable[Check]:  # noqa: ARG002 - nothing to judge
        return ()

    def load(self, files: Mapping[str, Path]) -> Nothing:  # noqa: ARG002 - nothing to open
        return Nothing()
