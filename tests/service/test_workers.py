"""What several workers of one address know of each other: a board of notes, and a sum of counts."""

import asyncio
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest
import uvicorn

from indexrelay.schemas.settings import HttpSettings
from indexrelay.service.app import create_app
from indexrelay.service.server import GracefulServer, listening
from indexrelay.service.workers import (
    GIVE_WAY_SECONDS,
    SharedListener,
    WorkerBoard,
    WorkerNote,
    WorkerPlace,
)
from tests.reloaders.bench import Bench
from tests.service.app_server import running
from tests.service.conftest import publish_all
from tests.service.test_metrics import of, samples


@pytest.fixture
def board(tmp_path: Path) -> WorkerBoard:
    folder = tmp_path / "board"
    folder.mkdir()
    return WorkerBoard(folder)


@contextmanager
def worker(bench: Bench, board: WorkerBoard, number: int) -> Iterator[httpx.Client]:
    """A service in a place of the board; over kinds of every sort, as they are released."""
    with board.held(number):
        reader = bench.reader(f"worker-{number}")
        reader.step()
        place = WorkerPlace(board, number)
        with running(create_app(reader, HttpSettings(), place=place)) as client:
            yield client


@pytest.fixture
def released(bench: Bench, reader: object) -> Bench:
    publish_all(bench)
    return bench


def search(client: httpx.Client, times: int) -> None:
    for _ in range(times):
        client.post("/v1/components/songs/search", json={"id": "calm"})


def ended(client: httpx.Client) -> float:
    labels = {"component": "songs", "operation": "search", "outcome": "answered"}
    return of(samples(client), "indexrelay_queries_total", **labels)


def test_counts_of_workers_add_up_and_outlive_the_worker_that_counted(
    released: Bench, board: WorkerBoard
) -> None:
    with worker(released, board, 1) as one:
        search(one, 3)
        with worker(released, board, 2) as two:
            search(two, 2)
            samples(one)  # it writes its own down first
            assert ended(two) == ended(one) == 5
            page = samples(two)
            assert of(page, "indexrelay_workers") == 2
            assert of(page, "indexrelay_worker_restarts_total") == 0
            labels = {"component": "songs", "operation": "search"}
            assert of(page, "indexrelay_index_search_latency_seconds_count", **labels) == 5
            assert (
                of(page, "indexrelay_index_search_latency_seconds_bucket", **labels, le="+Inf") == 5
            )
        assert ended(one) == 5
        assert of(samples(one), "indexrelay_workers") == 1
        with worker(released, board, 2) as successor:
            assert ended(successor) == 5
            search(successor, 1)
            assert ended(successor) == 6
            assert ended(one) == 6
            assert of(samples(one), "indexrelay_workers") == 2
            assert of(samples(one), "indexrelay_worker_restarts_total") == 1


def test_gauges_of_workers_show_the_one_that_is_furthest_behind(
    released: Bench, board: WorkerBoard
) -> None:
    with worker(released, board, 1) as behind:
        oldest = of(samples(behind), "indexrelay_release")
        alone = of(samples(behind), "indexrelay_resident_bytes", of="process")
        released.publish_texts(
            {"songs": "calm 0 0 jazz\n"}, kind="tests.service.search_kinds:Songs"
        )
        with worker(released, board, 2) as newest:
            assert newest.get("/v1/state").json()["release"] == oldest + 1
            page = samples(newest)
            assert of(page, "indexrelay_release") == oldest
            assert of(page, "indexrelay_newest_release") == oldest + 1
            assert of(page, "indexrelay_resident_bytes", of="process") > 1.5 * alone
            assert of(page, "indexrelay_ready") == 1
            not_ready = {"indexrelay_ready": (("indexrelay_ready", (), 0.0),)}
            note = WorkerNote(pid=1, ready=False, retries=0, families=not_ready)
            board.write(3, note)
            assert of(samples(newest), "indexrelay_ready") == 1  # nobody has that place
            with board.held(3):
                assert of(samples(newest), "indexrelay_ready") == 0


def test_a_retry_that_one_worker_is_asked_for_reaches_the_others_once(board: WorkerBoard) -> None:
    with board.held(1), board.held(2):
        one, two = WorkerPlace(board, 1), WorkerPlace(board, 2)
        assert not two.take_retry()
        one.ask_retry()
        assert two.take_retry()
        assert not two.take_retry()
        assert not one.take_retry()
        assert not WorkerPlace(board, 2).take_retry()  # whoever comes later loads all anyway


def test_a_place_is_taken_for_as_long_as_its_process_holds_it(board: WorkerBoard) -> None:
    note = WorkerNote(pid=7, ready=True, retries=0, families={})
    with board.held(1):
        board.write(1, note)
        assert board.is_taken(1)
        assert board.is_ready(1, pid=7)
        assert not board.is_ready(1, pid=8)
        waiting = threading.Thread(target=lambda: board.held(1).__enter__())
        waiting.start()
    waiting.join()
    assert board.note(1) == note
    assert not board.is_ready(2, pid=7)


def test_a_worker_whose_folder_is_gone_goes_on_alone_and_logs_it_once(
    board: WorkerBoard, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with board.held(1):
        place = WorkerPlace(board, 1)
        for file in (tmp_path / "board").iterdir():
            file.unlink()
        (tmp_path / "board").rmdir()
        for _ in range(2):
            place.post(lambda: (True, {}))
        assert place.others() == []
        assert not place.take_retry()
    assert len([each for each in caplog.messages if "worker.note_not_written" in each]) == 1


@pytest.mark.parametrize("content", [b"", b"{", b'{"pid": "x"}'])
def test_a_note_that_cannot_be_read_counts_as_none(
    board: WorkerBoard, tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "board" / "1.json").write_bytes(content)
    assert board.note(1) is None
    with board.held(1):
        assert not WorkerPlace(board, 1).replaces_another


def test_a_connection_is_left_for_a_moment_to_a_worker_that_has_fewer(board: WorkerBoard) -> None:
    moments = [0.0]
    with (
        listening("127.0.0.1", 0, None) as opened,
        board.held(1),
        board.held(2),
        ExitStack() as stack,
    ):
        places = [WorkerPlace(board, number) for number in (1, 2)]
        assert places[0].has_fewest_connections  # the other one does not listen yet
        for place in places:
            place.count_connections(0)
        many, few = (
            stack.enter_context(SharedListener.of(os.dup(opened.fileno()), place))
            for place in places
        )
        many.now = lambda: moments[0]
        many.setblocking(False)

        def connect() -> None:
            stack.enter_context(socket.create_connection(opened.getsockname()))

        def accept(listener: SharedListener) -> None:
            stack.enter_context(listener.accept()[0])

        connect()
        accept(many)  # none of them has any
        places[0].count_connections(3)
        places[1].count_connections(2)
        connect()
        for _ in range(2):
            with pytest.raises(BlockingIOError):
                accept(many)
            moments[0] += GIVE_WAY_SECONDS / 4
        accept(few)
        moments[0] += 10
        connect()
        with pytest.raises(BlockingIOError):  # another connection, which is left to others, too
            accept(many)
        moments[0] += GIVE_WAY_SECONDS
        accept(many)  # nobody has taken it
        places[1].count_connections(3)
        connect()
        accept(many)  # nobody has fewer
        places[1].count_connections(0)
        assert not places[0].has_fewest_connections
        board.forget_connections(2)  # its process has ended
        assert places[0].has_fewest_connections
        places[1].count_connections(1)
        assert not places[0].has_fewest_connections
        places[1].drain()
        assert places[0].has_fewest_connections  # the other one takes no more
        places[1].count_connections(0)  # its last connection is gone
        assert places[0].has_fewest_connections


def test_a_worker_that_shuts_down_takes_its_count_away_before_it_waits_for_its_connections() -> (
    None
):
    said: list[str] = []

    class Ended(uvicorn.Server):
        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:  # noqa: ARG002 - uvicorn's
            said.append("waits")

    class Server(GracefulServer, Ended):
        pass

    server = Server(uvicorn.Config(lambda: None), None, draining=lambda: said.append("drains"))
    asyncio.run(server.shutdown())
    assert said == ["drains", "waits"]


def test_gauges_of_a_worker_that_died_are_gone_while_the_next_one_starts(
    released: Bench, board: WorkerBoard
) -> None:
    with worker(released, board, 1) as one:
        with worker(released, board, 2) as two:
            search(two, 2)
            samples(two)
        of_the_dead = board.note(2)
        assert of_the_dead is not None
        behind = {"indexrelay_release": (("indexrelay_release", (), 0.0),)}
        families = {**of_the_dead.families, **behind}
        board.write(2, of_the_dead.model_copy(update={"families": families}))
        with board.held(2):
            WorkerPlace(board, 2)
            page = samples(one)
            assert of(page, "indexrelay_release") > 0
            assert of(page, "indexrelay_workers") == 1
            assert ended(one) == 2
