"""A job commits whether Redis is there or not, and uses it again when it is back."""

from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from indexrelay.producers import NotServedError, Producer
from indexrelay.producers.errors import NoRunningServerError
from indexrelay.producers.events import open_connection
from indexrelay.schemas.settings import Settings
from indexrelay.storage.catalog import Catalog
from indexrelay.streams import EmbeddedServer, Keys
from tests.fixtures.logs import capture_logs
from tests.producers.presence import Readers, reader

ROW = np.ones((1, 3), np.float32)


def settings_in(folder: Path, url: str | None = None) -> Settings:
    return Settings.model_validate(
        {
            "data_dir": folder,
            "redis": {"url": url, "timeout_seconds": 0.5},
            "collections": {"tracks": {"dimension": 3}},
        }
    )


def commit_one(producer: Producer, name: str) -> bool:
    with producer.batch("tracks") as batch:
        batch.upsert([name], ROW)
    assert batch.commit.upserts == 1
    return batch.announced


def test_a_commit_stands_while_no_server_was_ever_started(tmp_path: Path) -> None:
    with Producer.open(settings_in(tmp_path)) as producer, capture_logs() as logs:
        assert not commit_one(producer, "a")
    (warning,) = [line for line in logs if line["log_level"] == "warning"]
    assert warning["event"] == "event.not_added"
    assert "indexrelay up" in warning["error"]


def test_a_commit_stands_while_the_server_does_not_answer(tmp_path: Path) -> None:
    url = f"unix://{tmp_path}/nobody.sock"
    with Producer.open(settings_in(tmp_path, url)) as producer:
        assert not commit_one(producer, "a")


def test_waiting_without_any_server_says_what_to_start(tmp_path: Path) -> None:
    with Producer.open(settings_in(tmp_path)) as producer:
        with producer.batch("tracks") as batch:
            batch.upsert(["a"], ROW)
        with pytest.raises(NotServedError, match="start one: indexrelay up") as caught:
            producer.wait_served(batch.commit, timeout_seconds=0)
    assert isinstance(caught.value.__cause__, NoRunningServerError)


@pytest.mark.server
def test_a_server_that_is_started_yet_is_waited_for(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    server = EmbeddedServer(tmp_path)

    def come_up(_: float) -> None:
        """What happens during the first pause."""
        server.start()
        state = reader("late", {"voyager": 1}, epoch=batch.commit.epoch)
        with open_connection(settings) as connection:
            Readers(connection, catalog).say(state)

    catalog = Catalog.open(settings.catalog_url)
    with Producer(settings, catalog=catalog, wait=come_up) as producer, closing(catalog):
        with producer.batch("tracks") as batch:
            batch.upsert(["a"], ROW)
        served = producer.wait_served(batch.commit, timeout_seconds=30)
        assert served.readers == ("late",)
        server.stop()


@pytest.mark.server
def test_a_job_finds_the_embedded_server_and_finds_it_again_after_a_restart(
    tmp_path: Path,
) -> None:
    settings = settings_in(tmp_path)
    with Producer.open(settings) as producer:
        assert not commit_one(producer, "before")
        for name in ("first", "second"):
            with EmbeddedServer(tmp_path):
                assert commit_one(producer, name)
        with EmbeddedServer(tmp_path):
            with producer.batch("tracks") as batch:
                batch.upsert(["last"], ROW)
            with pytest.raises(NotServedError, match="none is alive"):
                producer.wait_served(batch.commit, timeout_seconds=0)
            connection = open_connection(settings)
            assert connection.commands.xlen(Keys("indexrelay").events) == 3
            connection.close()
