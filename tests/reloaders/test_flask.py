"""A reader inside a Flask application."""

import threading
from typing import Any

import pytest
from flask import Flask

from indexrelay.reloaders import Reloader, ReloaderStoppedError
from indexrelay.reloaders.flask import IndexRelay
from tests.reloaders.bench import Bench
from tests.reloaders.web_errors import STATUSES, answer, statuses


@pytest.fixture
def reader(bench: Bench) -> Reloader:
    bench.publish(voyager="v1")
    return bench.reader()


def _served(reader: Reloader) -> Any:
    with reader.acquire() as snapshot:
        return snapshot["voyager"]


def _flask(reader: Reloader, **options: float) -> tuple[Flask, IndexRelay]:
    app = Flask(__name__)
    relay = IndexRelay(reader, app, **options)

    @app.get("/")
    def say() -> str:
        assert relay.snapshot is relay.snapshot
        return str(relay.snapshot["voyager"].read())

    return app, relay


def test_a_flask_application_starts_the_reader_with_its_first_request(
    bench: Bench, reader: Reloader
) -> None:
    app, relay = _flask(reader, wait_ready_seconds=30.0)
    assert app.extensions["indexrelay"] is relay
    assert "indexrelay-reloader" not in [thread.name for thread in threading.enumerate()]
    try:
        assert app.test_client().get("/").text == "v1"
        served = _served(reader)
        bench.publish(voyager="v2")
        reader.step()
        assert served.closed == 1, "the request gave its snapshot back"
        assert app.test_client().get("/").text == "v2"
    finally:
        reader.stop()


def test_a_flask_request_sees_one_snapshot_from_beginning_to_end(
    bench: Bench, reader: Reloader
) -> None:
    app, relay = _flask(reader, wait_ready_seconds=30.0)
    try:
        with app.app_context():
            assert relay.snapshot["voyager"].read() == "v1"
            bench.publish(voyager="v2")
            reader.step()
            assert relay.snapshot["voyager"].read() == "v1"
        with app.app_context():
            assert relay.snapshot["voyager"].read() == "v2"
    finally:
        reader.stop()


def test_a_flask_request_that_fails_gives_its_snapshot_back(bench: Bench, reader: Reloader) -> None:
    app, relay = _flask(reader, wait_ready_seconds=30.0)
    taken: list[Any] = []

    @app.get("/fail")
    def fail() -> str:
        taken.append(relay.snapshot["voyager"])
        raise ZeroDivisionError

    try:
        assert app.test_client().get("/fail").status_code == 500
        bench.publish(voyager="v2")
        reader.step()
        assert taken[0].closed == 1
    finally:
        reader.stop()


def test_a_late_flask_request_does_not_start_a_stopped_reader_again(reader: Reloader) -> None:
    app, relay = _flask(reader, wait_ready_seconds=30.0)
    assert app.test_client().get("/").text == "v1"
    reader.stop()
    with app.app_context(), pytest.raises(ReloaderStoppedError):
        _ = relay.snapshot


def test_two_readers_in_one_flask_application_do_not_mix(bench: Bench, reader: Reloader) -> None:
    app, relay = _flask(reader, wait_ready_seconds=30.0)
    other = bench.reader("b")
    second = IndexRelay(other, wait_ready_seconds=30.0)
    second.init_app(app)
    try:
        with app.app_context():
            assert relay.snapshot is not second.snapshot
    finally:
        reader.stop()
        other.stop()


def test_what_cannot_be_answered_has_a_status_of_its_own_and_not_500(bench: Bench) -> None:
    reader = bench.reader()
    flask = Flask(__name__)
    relay = IndexRelay(reader, flask, wait_ready_seconds=0)
    flask.add_url_rule("/<what>", view_func=lambda what: answer(relay.snapshot, what))
    try:
        assert statuses(flask.test_client().get, bench, reader) == STATUSES
    finally:
        reader.stop()
