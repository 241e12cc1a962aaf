"""An installation with notes that agents ask about, built once for all of these tests."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from fastapi import FastAPI

from indexrelay.reloaders import Reloader
from indexrelay.schemas.settings import Settings
from indexrelay.schemas.settings_file import load_settings
from indexrelay.service.app import create_app
from indexrelay.testing import Pipeline

CONFIG = """
namespace = "agents"
data_dir = "data"

[reader]
poll_seconds = 0.1
start_spread_seconds = 0

[collections.notes]
dimension = 3
live = true
filterable = { topic = "keyword" }

[components.near]
kind = "vector_index"
from = "notes"
index = "Flat"

[components.words]
kind = "text_index"
from = "notes"
"""
TEXTS = {
    "refund": ("a refund takes five days", "billing"),
    "invoice": ("invoices are sent on Monday", "billing"),
    "long": ("a login lasts " + "very " * 1000 + "long", "access"),
}


@dataclass(frozen=True)
class Notes:
    """The folder of the installation, and its settings."""

    folder: Path
    settings: Settings


@pytest.fixture(scope="package")
def notes(tmp_path_factory: pytest.TempPathFactory) -> Notes:
    folder = tmp_path_factory.mktemp("notes")
    config = folder / "indexrelay.toml"
    config.write_text(CONFIG, encoding="utf-8")
    settings = load_settings(config)
    with closing(Pipeline(settings, folder / "data")) as pipeline:
        with pipeline.producer.batch("notes") as batch:
            batch.upsert(
                list(TEXTS),
                np.eye(3, dtype=np.float32),
                texts=[text for text, _ in TEXTS.values()],
                payloads=[{"topic": topic} for _, topic in TEXTS.values()],
            )
        pipeline.settle()
    return Notes(folder, settings)


@pytest.fixture(scope="package")
def app(notes: Notes) -> Iterator[FastAPI]:
    """The service on a reader that has looked, and looks no more."""
    reader = Reloader(notes.settings, reader_id="agents")
    reader.step()
    yield create_app(reader)
    reader.stop()
