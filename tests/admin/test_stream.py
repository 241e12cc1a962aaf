"""The stream of changes: what a client gets, what one gets that comes back, and how it ends."""

import json
import threading
from typing import Any

import httpx
import pytest

from indexrelay.admin.service import AdminService
from indexrelay.admin.stream import EventStream
from indexrelay.testing import FakeClock, Pipeline
from tests.admin.conftest import MakeService, operator_of


class Reading:
    """The events of one open stream, one after another."""

    def __init__(self, answer: httpx.Response) -> None:
        self._lines = answer.iter_lines()

    def next(self, name: str | None = None) -> tuple[int, str, Any]:
        """The next event, of that name if one is given."""
        fields: dict[str, str] = {}
        for line in self._lines:
            if line:
                key, _, value = line.partition(": ")
                fields[key] = value
            elif "data" in fields:
                if name in (None, fields["event"]):
                    return int(fields["id"]), fields["event"], json.loads(fields["data"])
                fields = {}
            else:
                fields = {}
        raise EOFError

    def rest(self) -> list[str]:
        return list(self._lines)


@pytest.fixture
def events() -> EventStream:
    return EventStream(FakeClock(), max_events=3)


def test_numbers_strictly_increase_and_the_newest_events_are_kept(events: EventStream) -> None:
    began = events.number
    numbers = [events.publish("release", {"number": each}) for each in range(5)]
    assert began < numbers[0]
    assert numbers == sorted(set(numbers))
    kept = events.after(numbers[1])
    assert kept is not None
    assert [each.number for each in kept] == numbers[2:]
    assert events.after(numbers[0]) is None  # what came after it is not kept
    assert events.after(numbers[-1]) == []
    assert events.after(numbers[-1] + 1) is None
    events.publish("large", "x" * 9_000_000)
    assert events.after(numbers[-1]) is None


def test_the_numbers_of_two_processes_that_began_together_are_told_apart(
    events: EventStream,
) -> None:
    others = (EventStream(FakeClock()) for _ in range(10))
    other = next(each for each in others if each.number != events.number)
    for each in (events, other):
        each.publish("release", "first")
    known = other.number
    for each in (events, other):
        each.publish("release", "second")
    assert [event.text for event in other.after(known) or ()] == ['"second"']
    assert events.after(known) is None
    assert events.number != other.number  # of a state they are its ETag


def test_a_stream_begins_with_the_whole_state_and_goes_on_with_what_changes(
    service: AdminService, client: httpx.Client
) -> None:
    with client.stream("GET", "stream") as answer:
        reading = Reading(answer)
        number, name, state = reading.next()
        assert (name, state["number"]) == ("state", number)
        assert state["components"][0]["name"] == "cache"
        sent = service.events.publish("release", {"number": 7})
        assert reading.next() == (sent, "release", {"number": 7})


@pytest.mark.parametrize("by", ["header", "address"])
def test_a_client_that_comes_back_gets_what_it_missed(
    service: AdminService, client: httpx.Client, by: str
) -> None:
    service.events.publish("release", "the last that it got")
    last = service.events.number
    missed = [service.events.publish("release", each) for each in range(3)]
    known: dict[str, Any] = (
        {"headers": {"Last-Event-ID": str(last)}} if by == "header" else {"params": {"after": last}}
    )
    with client.stream("GET", "stream", **known) as answer:
        reading = Reading(answer)
        assert [reading.next("release") for _ in missed] == [
            (number, "release", each) for each, number in enumerate(missed)
        ]


@pytest.mark.parametrize("last", ["1", "99999999999999", "none", "-1", "9" * 30])
def test_a_client_of_which_nothing_is_known_gets_the_whole_state(
    client: httpx.Client, last: str
) -> None:
    with client.stream("GET", "stream", headers={"Last-Event-ID": last}) as answer:
        assert Reading(answer).next()[1] == "state"


def test_a_service_is_stopped_at_once_under_open_streams_and_found_again(
    pipeline: Pipeline, make_service: MakeService
) -> None:
    service = make_service()
    service.start()
    with operator_of(service) as client, client.stream("GET", "stream") as answer:
        reading = Reading(answer)
        last, *_ = reading.next()
        stopping = threading.Thread(target=service.stop)
        stopping.start()
        assert [line for line in reading.rest() if line.startswith("data")] == []
        stopping.join(timeout=3)  # a stream that hung would be cut off after 5 seconds
        assert not stopping.is_alive()
    pipeline.clock.advance(1)
    again = make_service()
    again.start()
    with (
        operator_of(again) as client,
        client.stream("GET", "stream", headers={"Last-Event-ID": str(last)}) as answer,
    ):
        assert Reading(answer).next()[1] == "state"


def test_no_more_streams_are_open_than_there_may_be(
    make_service: MakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("indexrelay.admin.stream.MAX_CLIENTS", 1)
    service = make_service()  # of its own: elsewhere the stream of another test may still be open
    service.start()
    with operator_of(service) as client, client.stream("GET", "stream") as answer:
        reading = Reading(answer)  # it closes the stream where nobody has it any more
        reading.next()
        refused = client.get("stream")
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")


def test_a_stream_is_not_asked_for_its_headers_alone(client: httpx.Client) -> None:
    refused = client.head("stream")
    assert (refused.status_code, refused.headers["allow"]) == (405, "GET")
    assert client.get("me").is_success  # on the same connection
