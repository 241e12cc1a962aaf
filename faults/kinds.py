"""A kind whose file lists the entries it was built from, so that no loss stays unseen."""

import hashlib
import json
import os
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from faults.history import content_digest
from indexrelay.components.kind import Built, Job, Kind, KindParameters
from indexrelay.schemas.versions import Check

FILE = "entries.json"


class Roll:
    """The entries that a component was built from, as they were loaded."""

    def __init__(self, raw: bytes) -> None:
        self.blob = hashlib.sha256(raw).hexdigest()
        self.ids: list[str] = json.loads(raw)
        self.content = content_digest(self.ids)

    def close(self) -> None:
        """Nothing is kept open."""


class RollCallParameters(KindParameters):
    """How a build goes wrong."""

    behaviour: str = "fine"
    seconds: float = 0.0
    """How long a build takes at least."""
    orders: str = ""
    """A folder: a file in it with the name of the component holds what its next builds do,
    ``fail``, or how many seconds they take."""


class RollCall(Kind[RollCallParameters, Roll]):
    """Writes down the ids of all entries."""

    def build(self, job: Job) -> Built:
        parameters = self.parameters
        _misbehave(parameters.behaviour)
        time.sleep(parameters.seconds)  # the work of a build that takes so long
        if parameters.orders:
            _obey(Path(parameters.orders) / job.component)
        ids = [
            name
            for snapshot in job.collections.values()
            for each in snapshot.chunks()
            for name in each.ids
        ]
        ids += [name for parent in job.components.values() for name in parent.value.ids]
        file = job.workdir / FILE
        file.write_text(json.dumps(sorted(set(ids))))
        return Built(files={FILE: file}, entries=len(set(ids)))

    def verify(self, job: Job, built: Built, files: Mapping[str, Path]) -> Iterable[Check]:  # noqa: ARG002 - the contract
        parameters = self.parameters
        if parameters.behaviour == "gate_raises":
            raise ValueError("the gate raised")
        yield Check(name="count", passed=len(json.loads(files[FILE].read_bytes())) == built.entries)

    def load(self, files: Mapping[str, Path]) -> Roll:
        return Roll(files[FILE].read_bytes())


def _obey(order: Path) -> None:
    try:
        words = order.read_text()
    except FileNotFoundError:
        return
    if words == "fail":
        raise ValueError("ordered to fail")
    time.sleep(float(words))


def _misbehave(behaviour: str) -> None:
    match behaviour:
        case "exits":
            os._exit(7)
        case "hangs":
            while True:
                time.sleep(60)  # killed by the limit: nothing waits for it
        case "eats":
            held = [np.ones(10_000_000) for _ in range(100)]
            raise AssertionError(f"8 GB fitted: {len(held)}")
