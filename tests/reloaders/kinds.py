"""A kind whose loads can be made to fail, and whose served objects say whether they were closed."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from indexrelay.components.kind import Built, Job, Kind, KindParameters
from indexrelay.schemas.versions import Check

WORDS = "tests.reloaders.kinds:Words"


class ServedWords:
    """What a file said; counts how often it was closed."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.closed = 0

    def read(self) -> str:
        assert not self.closed, f"{self.text} was closed under its user"
        return self.text

    def close(self) -> None:
        self.closed += 1
        if self.text == "unclosable":
            raise OSError(5, "Input/output error")


class Words(Kind[KindParameters, ServedWords]):
    """One file of text. ``memory``, ``disk`` and ``bad PATH`` fail to load while PATH is.

    ``counted PATH`` never loads, and adds one letter to PATH each time.
    """

    def build(self, job: Job) -> Built:
        raise NotImplementedError

    def verify(self, job: Job, built: Built, files: Mapping[str, Path]) -> Iterable[Check]:
        raise NotImplementedError

    def load(self, files: Mapping[str, Path]) -> ServedWords:
        text = files["part0"].read_text()
        fault, _, path = text.partition(" ")
        if fault == "rubbish":
            raise ValueError("the format cannot be read")
        if fault == "counted":
            with Path(path).open("a") as tries:
                tries.write("x")
            raise ValueError("it always fails")
        if fault == "bad" and Path(path).exists():
            raise ValueError("what the kind reads besides cannot be read")
        if fault == "memory" and Path(path).exists():
            raise MemoryError
        if fault == "disk" and Path(path).exists():
            raise OSError(5, "Input/output error", path)
        return ServedWords(text)
