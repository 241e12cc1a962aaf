"""A kind that does whatever its file says, as a library in C might."""

import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Final

from indexrelay.components.errors import CorruptFileError
from indexrelay.components.kind import Built, Job, Kind, KindParameters
from indexrelay.schemas.versions import Check

CONTENT: Final = "content"
PREFIX: Final = "please "
KIND: Final = f"{__name__}:Trusting"


class Opened:
    """What it serves."""

    def __init__(self, text: str) -> None:
        self.text = text

    def close(self) -> None:
        pass


class Trusting(Kind[KindParameters, Opened]):
    """Its one file is opened in a sandbox first."""

    sandboxed: ClassVar[frozenset[str]] = frozenset({CONTENT})

    def build(self, job: Job) -> Built:
        raise NotImplementedError

    def verify(self, job: Job, built: Built, files: Mapping[str, Path]) -> list[Check]:
        raise NotImplementedError

    def load(self, files: Mapping[str, Path]) -> Opened:
        text = files[CONTENT].read_text()
        if text.startswith(PREFIX):
            act(text.removeprefix(PREFIX), files[CONTENT])
        return Opened(text)


def act(what: str, path: Path) -> None:
    """What a crafted file makes of a library."""
    match what:
        case "crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        case "abort":
            os.abort()
        case "loop":
            while True:
                pass
        case "eat":
            bytearray(8 << 30)
        case "corrupt":
            raise CorruptFileError(path, "it says so itself")
        case "be killed":
            os.kill(os.getpid(), signal.SIGKILL)
        case "want a disk":
            raise OSError(28, "No space left on device")
