"""Clients that write and search one live collection through several instances: a Locust file.

    locust -f benchmarks/companions/locustfile.py --instances http://A:8001,http://B:8001

The instances take writes (``http.writes``) and serve the collection and the component of
`measuring.crowd`. A client writes its own entries through one instance, and asks for them through
another one right after that, with its session: what it has written must be there, and what it has
deleted must not. An answer that lacks something is a failure, as an error is.

``--record FILE`` keeps, for whoever compares afterwards, what all clients have written in the end,
and what Locust counted.
"""

import itertools
import json
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from locust import User, between, events, task
from locust.argument_parser import LocustArgumentParser
from locust.env import Environment

from indexrelay.service.client import Client, ReaderError
from measuring.crowd import COLLECTION, COMPONENT, Written, text_of, vector_of

ENTRIES = 200
"""Of one client, at most: one that has written all of them writes some again."""
_DRAWS = 2**40
_AGAIN_SECONDS = 0.5
_numbers = itertools.count(1)
_clients: "list[Visitor]" = []


class MissingError(Exception):
    """Raised when an answer lacks what its client has written, or has what it has deleted."""


class Visitor(User):
    """One client, with its own entries, which no other client changes."""

    wait_time = between(0.1, 0.5)

    def on_start(self) -> None:
        """Come to an instance; the next one comes to the next."""
        self.number = next(_numbers)
        self.written = 0
        self.entries: dict[str, Written] = {}
        self._deleted: list[str] = []
        options = self.environment.parsed_options
        instances = options.instances.split(",")
        turn = self.number % len(instances)
        order = instances[turn:] + instances[:turn]
        deadline = options.deadline_seconds
        self._here = Client(order, deadline_seconds=deadline)
        self._elsewhere = Client(order[::-1], deadline_seconds=deadline)
        _clients.append(self)

    def on_stop(self) -> None:
        """Go."""
        self._here.close()
        self._elsewhere.close()

    @task(4)
    def search_by_vector(self) -> None:
        """What it wrote last is the nearest to its own vector, with its payload."""
        name = self._one_of_mine()
        if name is None:
            return
        wanted = self.entries[name]
        with self._asked("search by vector") as client:
            hits = client.search(COMPONENT, vector=vector_of(wanted.vector), k=3).hits
            found = [(hit.id, hit.payload) for hit in hits[:1]]
            if found != [(name, wanted.payload)]:
                raise MissingError(f"a vector of mine finds another entry: {found}, not {name}")

    @task(3)
    def search_by_text(self) -> None:
        """Of what it wrote, its own text is found."""
        name = self._one_of_mine()
        if name is None:
            return
        with self._asked("search by text") as client:
            hits = client.search(COMPONENT, text=text_of(self.entries[name].text), k=3).hits
            if name not in {hit.id for hit in hits}:
                raise MissingError(f"a text of mine does not find {name}")

    @task(1)
    def count(self) -> None:
        """All that it wrote is there, and nothing that it deleted."""
        with self._asked("count") as client:
            found = client.count(COMPONENT, {"client": self.number}).count
            if found != len(self.entries):
                raise MissingError(f"{found} entries of mine are there, not {len(self.entries)}")

    @task(1)
    def get(self) -> None:
        """What it wrote is there as it wrote it, and what it deleted is not."""
        names = [name for name in (self._one_of_mine(), *self._deleted[-1:]) if name is not None]
        if not names:
            return
        wanted = [
            (self.entries[name].payload, text_of(self.entries[name].text))
            if name in self.entries
            else None
            for name in names
        ]
        with self._asked("get") as client:
            held = client.get(COMPONENT, names).entries
            found = [None if each is None else (each.payload, each.text) for each in held]
            if found != wanted:
                raise MissingError(f"{names} are {found}, not {wanted}")

    @task(2)
    def upsert(self) -> None:
        """Write some entries."""
        free = [f"c{self.number}-{place}" for place in range(ENTRIES)]
        names = random.sample(free, random.randint(1, 3))
        entries = {name: self._drawn() for name in names}
        self._write(
            "upsert",
            lambda key: self._here.upsert(
                COLLECTION,
                names,
                [vector_of(each.vector) for each in entries.values()],
                texts=[text_of(each.text) for each in entries.values()],
                payloads=[each.payload for each in entries.values()],
                key=key,
            ),
        )
        self.entries |= entries

    @task(1)
    def patch_or_delete(self) -> None:
        """Give one entry another text and payload, or have it gone."""
        if not self.entries:
            return
        name = random.choice([*self.entries])
        if random.random() < 0.5:
            self._write("delete", lambda key: self._here.delete(COLLECTION, [name], key=key))
            del self.entries[name]
            self._deleted.append(name)
            return
        changed = self._drawn()._replace(vector=self.entries[name].vector)
        self._write(
            "patch",
            lambda key: self._here.patch(
                COLLECTION, name, payload=changed.payload, text=text_of(changed.text), key=key
            ),
        )
        self.entries[name] = changed

    def _one_of_mine(self) -> str | None:
        """Mostly what it wrote last."""
        if not self.entries:
            return None
        return random.choice([*self.entries, *[*self.entries][-1:] * len(self.entries)])

    def _drawn(self) -> Written:
        self.written += 1
        return Written(
            vector=random.randrange(_DRAWS),
            text=random.randrange(_DRAWS),
            client=self.number,
            mark=self.written,
        )

    def _write(self, name: str, send: Callable[[str], Any]) -> None:
        """Send a write until it is answered: before that nobody knows whether it was made."""
        key = f"client {self.number} write {self.written} {random.randrange(_DRAWS)}"
        while True:
            with self._timed(name) as failed:
                send(key)
            if not failed:
                break
            time.sleep(_AGAIN_SECONDS)
        self._elsewhere.merge_session(self._here.session)

    @contextmanager
    def _asked(self, name: str) -> Iterator[Client]:
        """Ask another instance than the one that took the writes."""
        with self._timed(name):
            yield self._elsewhere
        self._here.merge_session(self._elsewhere.session)

    @contextmanager
    def _timed(self, name: str) -> Iterator[list[Exception]]:
        """One request for Locust to count; what failed is there afterwards."""
        failed: list[Exception] = []
        began = time.perf_counter()
        try:
            yield failed
        except (ReaderError, MissingError) as error:
            failed.append(error)
        self.environment.events.request.fire(
            request_type="client",
            name=name,
            response_time=1000 * (time.perf_counter() - began),
            response_length=0,
            exception=failed[0] if failed else None,
            context={},
        )


@events.init_command_line_parser.add_listener  # type: ignore[untyped-decorator] # Locust's
def _options(parser: LocustArgumentParser) -> None:
    parser.add_argument(
        "--instances", required=True, help="the addresses of the instances, with commas between"
    )
    parser.add_argument("--record", default="", help="a file for what was written in the end")
    parser.add_argument(
        "--deadline-seconds", type=float, default=10.0, help="of one request with its repeats"
    )


@events.quitting.add_listener  # type: ignore[untyped-decorator] # Locust's
def _record(environment: Environment, **_given: Any) -> None:
    file = environment.parsed_options.record  # type: ignore[union-attr] # from a command line
    if not file:
        return
    entries = {name: each for client in _clients for name, each in client.entries.items()}
    requests = {
        name: {
            "requests": each.num_requests,
            "failures": each.num_failures,
            "p50": each.get_response_time_percentile(0.5),
            "p99": each.get_response_time_percentile(0.99),
        }
        for (name, _), each in environment.stats.entries.items()
    }
    errors = [
        f"{each.occurrences} times {each.name}: {each.error}"
        for each in environment.stats.errors.values()
    ]
    # What a client did not expect ends its task, and is no request that failed.
    errors += [
        f"{each['count']} times {each['msg']}, which no client expects: {each['traceback']}"
        for each in environment.runner.exceptions.values()  # type: ignore[union-attr] # it ran
    ]
    said = {"entries": entries, "requests": requests, "errors": errors}
    Path(file).write_text(json.dumps(said), encoding="utf-8")
