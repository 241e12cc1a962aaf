"""A kind for tests of groups, which lets a test act in the middle of a build."""

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import ClassVar

from indexrelay.components.kind import Built, Job, Kind, KindParameters
from indexrelay.schemas.versions import Check

FILE = "member.json"


class Served:
    """What a member was built from."""

    def __init__(self, entries: int) -> None:
        self.entries = entries

    def close(self) -> None:
        """Nothing is kept open."""


class MemberParameters(KindParameters):
    colour: str = ""


class Member(Kind[MemberParameters, Served]):
    """Counts entries."""

    built: ClassVar[Callable[[Job], None]] = staticmethod(lambda _job: None)
    """Called when a build has read its sources."""

    def build(self, job: Job) -> Built:
        entries = sum(snapshot.count for snapshot in job.collections.values())
        entries += sum(parent.manifest.entries for parent in job.components.values())
        file = job.workdir / FILE
        file.write_text(json.dumps({"component": job.component, "entries": entries}))
        type(self).built(job)
        return Built(files={FILE: file}, entries=entries)

    def verify(self, job: Job, built: Built, files: Mapping[str, Path]) -> Iterable[Check]:  # noqa: ARG002 - the contract
        yield Check(name="count", passed=json.loads(files[FILE].read_bytes())["entries"] >= 0)

    def load(self, files: Mapping[str, Path]) -> Served:
        return Served(json.loads(files[FILE].read_bytes())["entries"])
