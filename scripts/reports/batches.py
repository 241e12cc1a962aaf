"""Section A: what a batch replaces, and what its id stands for."""
# ruff: noqa: INP001 - a script: nothing is installed from this folder

from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import numpy as np

from indexrelay.producers import Batch, Producer
from indexrelay.schemas.settings import Settings
from indexrelay.storage.catalog import Catalog
from scripts.reports.report import Attempt, reports

VECTORS = np.eye(2)
Step: TypeAlias = Callable[[Batch], object]


def after(*steps: Step, same_id: bool = False) -> Attempt:
    """The entries after two entries with texts and payloads, and a batch for each of ``steps``."""

    def attempt(folder: Path) -> str:
        settings = Settings.model_validate(
            {"data_dir": folder, "collections": {"tracks": {"dimension": 2}}}
        )
        catalog = Catalog.open(settings.catalog_url)
        try:
            with Producer(settings, catalog=catalog) as producer:
                with producer.batch("tracks", "monday") as batch:
                    batch.upsert(["a", "b"], VECTORS, ["x", "y"], [1, 2])
                for step in steps:
                    with producer.batch("tracks", "monday" if same_id else None) as batch:
                        step(batch)
            with catalog.entries.snapshot("tracks") as snapshot:
                (chunk,) = snapshot.chunks()
                return f"{chunk.ids} {chunk.texts} {chunk.payloads} at {snapshot.generation}"
        finally:
            catalog.close()

    return attempt


def set_and_clear(batch: Batch) -> None:
    """Change texts and payloads, and no vector."""
    batch.set_texts(["a"], ["z"])
    batch.clear_texts(["b"])
    batch.set_payloads(["b"], [3])
    batch.clear_payloads(["a"])


def in_another_order(batch: Batch) -> None:
    """The first batch, said otherwise."""
    batch.upsert(["b"], VECTORS[1:], ["y"], [2])
    batch.upsert(["a"], VECTORS[:1], None, [1])
    batch.set_texts(["a"], ["x"])


def repeated(step: Step) -> Attempt:
    """The first batch's id again."""
    return after(step, same_id=True)


FIRST = r"\['a', 'b'\] \['x', 'y'\] \['1', '2'\] at "
AB = ["a", "b"]
REPORTS = (
    *reports(
        "A4",
        ("embedded again, without the rest", f"{FIRST}2", after(lambda b: b.upsert(AB, VECTORS))),
        ("set and cleared by themselves", r".* \['z', None\] \[None, '3'\]", after(set_and_clear)),
        ("a text of nothing", "Unknown.* hold: 'c'", after(lambda b: b.set_texts(["a", "c"], AB))),
    ),
    *reports(
        "A5",
        ("other content", "Batch.*'monday' .*digest.*digest", repeated(lambda b: b.delete(["a"]))),
        ("the same in another order of calls", f"{FIRST}1", repeated(in_another_order)),
    ),
)
