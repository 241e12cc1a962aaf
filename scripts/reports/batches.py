"""Section A: what a batch replaces, and what its id stands for."""
# ruff: noqa: INP001 - a script: nothing is installed from this folder

from collections.abc import Callable
from pathlib import Path

import numpy as np

from indexrelay.producers import Batch, Producer
from indexrelay.schemas.settings import Settings
from indexrelay.storage.catalog import Catalog
from scripts.reports.report import Report

VECTORS = np.eye(2)


def after(folder: Path, *steps: Callable[[Batch], object], same_id: bool = False) -> str:
    """The entries after two entries with texts and payloads, and a batch for each of ``steps``."""
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


REPORTS = (
    Report(
        item="A4",
        tried="embedded again, without texts and payloads",
        wanted=r"\['a', 'b'\] \['x', 'y'\] \['1', '2'\] at 2",
        attempt=lambda folder: after(folder, lambda b: b.upsert(["a", "b"], VECTORS[::-1])),
    ),
    Report(
        item="A4",
        tried="texts and payloads set and cleared without vectors",
        wanted=r"\['a', 'b'\] \['z', None\] \[None, '3'\] at 2",
        attempt=lambda folder: after(folder, set_and_clear),
    ),
    Report(
        item="A4",
        tried="the text of an entry that is not there",
        wanted=r"UnknownEntriesError: .* 1 entries that 'tracks' does not hold: 'c'",
        attempt=lambda folder: after(folder, lambda b: b.set_texts(["a", "c"], ["z", "z"])),
    ),
    Report(
        item="A5",
        tried="the same batch id with other content",
        wanted=r"BatchContentError: batch 'monday' of 'tracks' .* generation 1 .*digest.*digest",
        attempt=lambda folder: after(
            folder, lambda b: b.upsert(["a", "b"], VECTORS, ["x", "z"], [1, 2]), same_id=True
        ),
    ),
    Report(
        item="A5",
        tried="the same batch again, in another order of calls",
        wanted=r"\['a', 'b'\] \['x', 'y'\] \['1', '2'\] at 1",
        attempt=lambda folder: after(folder, in_another_order, same_id=True),
    ),
)
