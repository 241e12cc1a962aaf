"""Somebody who has a reader's password, and means harm: ``… URL NAMESPACE LABEL VICTIM LOG``.

Does, again and again until SIGTERM, whatever a reader may do in a harmful way, and whatever
it may not do. What was refused and what was not is in LOG at the end, by the name of the deed.
"""

import json
import random
import sys
import threading
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import NoPermissionError, RedisError, ResponseError
from redis.retry import Retry

from indexrelay.console.processes import Stop
from indexrelay.schemas.messages import (
    FIELD,
    ComponentState,
    Event,
    LoadOutcome,
    ReaderState,
    ReleaseApplied,
)
from indexrelay.streams import Keys

LAST_ID: Final = "18446744073709551615-18446744073709551615"
COMPONENTS: Final = ("left", "right")
_THREADS: Final = 3
_IDLE_CONNECTIONS: Final = 100
_STATES: Final = 3000
_HUGE_BYTES: Final = 1_900_000
_LONG_MILLISECONDS: Final = 10 * 365 * 86_400_000
_PAUSE_SECONDS: Final = 0.01
"""Between two deeds: the machine is the other processes', too."""
_NEVER_SECONDS: Final = 3600.0

Deed = Callable[[], object]


class Intruder:
    """One of its threads, on a connection of its own."""

    def __init__(self, url: str, keys: Keys, label: str, victim: str) -> None:
        self._url = url
        self._keys = keys
        self._label = label
        self._victim = victim
        self._redis = self._connect()
        self._idle: list[Redis] = []
        self._unread: Any = None
        self.done: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()

    def _connect(self) -> Redis:
        return Redis.from_url(
            self._url, protocol=2, retry=Retry(NoBackoff(), 0), socket_timeout=2.0
        )

    def do(self, name: str, deed: Deed) -> None:
        """One deed; a refusal is one, whatever it is for."""
        try:
            deed()
        except (NoPermissionError, ResponseError) as error:
            self.refused[name] += 1
            if "permission" not in str(error).lower() and "acl" not in str(error).lower():
                self.done[f"{name}: {str(error)[:60]}"] += 1
        except RedisError as error:
            self.done[f"{name}: {type(error).__name__}"] += 1
        else:
            self.done[name] += 1

    @property
    def allowed_deeds(self) -> dict[str, Deed]:
        """What this user may do: harmful only to who believes it, or sets no limit."""
        state = self._state
        return {
            "claims to be the victim": lambda: self._say(state(self._victim)),
            "claims to be another of its label": lambda: self._say(state(self._label)),
            "claims to serve all": lambda: self._lie(release=10**9),
            "claims to serve nothing": lambda: self._lie(release=0),
            "claims that it cannot load": lambda: self._lie(failed=True),
            "publishes what cannot be read": lambda: self._say(b"\xff{"),
            "publishes it for ten years": lambda: self._redis.set(
                self._member(), self._state(self._label), px=_LONG_MILLISECONDS
            ),
            "publishes it for ever": lambda: self._redis.set(
                self._member(), self._state(self._label)
            ),
            "publishes far too much": lambda: self._redis.set(self._member(), b"x" * _HUGE_BYTES),
            "is far too many": self._be_many,
            "removes its own state": lambda: self._redis.delete(self._own_key("")),
            "reports for the victim": lambda: self._report(self._victim, 1),
            "reports what is not": lambda: self._report(self._label, 10**9),
            "reports what cannot be read": lambda: self._add("*", b"\xff" * 1000),
            "reports far too much": lambda: self._add("*", b"x" * _HUGE_BYTES),
            "reports under the greatest id": lambda: self._add(LAST_ID, b"{}"),
            "asks for all and reads nothing": self._ask_and_read_nothing,
            "keeps connections": self._keep_connections,
            "asks as fast as it can": self._ask_fast,
        }

    @property
    def forbidden_deeds(self) -> dict[str, Deed]:
        """What it may not do."""
        keys, own = self._keys, self._own_key("")
        victim = keys.reader(f"{self._victim}:0123456789abcdef")
        commands: list[tuple[Any, ...]] = [
            *((word, "{faults}:readers") for word in ("DEL", "SMEMBERS", "UNLINK")),
            ("SET", "{faults}:readers", "x"),
            ("ZADD", "{faults}:readers", 1e18, "x"),
            ("ZREM", "{faults}:readers", self._victim),
            *(("XADD", key, LAST_ID, "event", "x") for key in (keys.events, keys.reloads)),
            ("XADD", keys.reports(self._victim), LAST_ID, "event", "x"),
            ("XADD", keys.results, "*", "event", "x"),
            *(("XTRIM", key, "MAXLEN", 0) for key in (keys.events, keys.reloads)),
            ("XDEL", keys.reloads, "1-1"),
            ("XGROUP", "DESTROY", keys.events, "rebuilder"),
            ("XREADGROUP", "GROUP", "rebuilder", "x", "STREAMS", keys.events, ">"),
            ("XACK", keys.events, "rebuilder", "1-1"),
            *(("DEL", key) for key in (keys.release, keys.events, victim, keys.lease("left"))),
            ("SET", keys.release, 10**9),
            ("SET", keys.lease("left"), "x"),
            ("SET", victim, "x"),
            ("RENAME", own, keys.release),
            ("COPY", own, keys.release),
            ("EVAL", "while true do end", 0),
            ("EVAL", "for i=1,1e9 do redis.call('SET', KEYS[1], 'x') end", 1, own),
            ("SCRIPT", "LOAD", "while true do end"),
            ("SCRIPT", "KILL"),
            ("FUNCTION", "LOAD", "#!lua name=x\nredis.register_function('x', function() end)"),
            ("FCALL", "x", 0),
            ("MULTI",),
            ("WATCH", keys.release),
            ("SUBSCRIBE", "x"),
            ("PUBLISH", "x", "x" * 1000),
            ("MONITOR",),
            ("CLIENT", "KILL", "TYPE", "normal"),
            ("CLIENT", "PAUSE", 60_000),
            ("CLIENT", "NO-EVICT", "on"),
            ("CONFIG", "SET", "maxmemory", 1),
            ("ACL", "SETUSER", self._label, "+@all"),
            ("ACL", "SETUSER", "default", "on", "nopass", "+@all", "~*"),
            ("KEYS", "*"),
            ("SCAN", 0),
            ("FLUSHALL",),
            ("SHUTDOWN", "NOSAVE"),
            ("DEBUG", "SLEEP", 5),
            ("REPLICAOF", "127.0.0.1", 1),
        ]
        return {
            " ".join(map(str, words))[:60]: partial(self._command, *words) for words in commands
        }

    def _command(self, *words: Any) -> None:
        redis: Any = self._redis
        redis.execute_command(*words)

    def _own_key(self, instance: str) -> str:
        return self._keys.reader(f"{self._label}:{instance}" if instance else self._label)

    def _member(self) -> str:
        return self._own_key(f"{random.getrandbits(64):016x}")

    def _lie(self, **what: Any) -> None:
        """A state of its own label, as far as one can be forged."""
        instance = f"{random.getrandbits(64):016x}"
        state = self._state(self._label, instance=instance, **what)
        self._redis.set(self._own_key(instance), state, px=3_000)

    def _say(self, state: bytes) -> None:
        self._redis.set(self._member(), state, px=3_000)

    def _state(
        self, label: str, *, instance: str = "", release: int = 1, failed: bool = False
    ) -> bytes:
        now = datetime.now(UTC)
        component = ComponentState(
            outcome=LoadOutcome.FAILED if failed else LoadOutcome.APPLIED,
            version=None if failed else f"{random.getrandbits(256):064x}",
            wanted=f"{random.getrandbits(256):064x}" if failed else "0" * 64,
            covers={"tracks": release},
            error=f"corrupt {random.random()}" if failed else None,
        )
        return (
            ReaderState(
                reader=label,
                host="elsewhere",
                pid=random.randrange(1, 100_000),
                instance=instance or f"{random.getrandbits(64):016x}",
                started_at=now - timedelta(days=1),
                updated_at=now,
                ready=True,
                release=release,
                cursor="1-1",
                components=dict.fromkeys(COMPONENTS, component),
            )
            .model_dump_json()
            .encode()
        )

    def _be_many(self) -> None:
        state = self._state(self._label)
        with self._redis.pipeline(transaction=False) as pipeline:
            for _ in range(_STATES):
                pipeline.set(self._member(), state, px=60_000)
            pipeline.execute()

    def _report(self, label: str, release: int) -> None:
        applied = ReleaseApplied(
            reader=label, release=release, ready=True, components={}, seconds=1.0
        )
        self._add("*", Event.of(applied, source="x", time=datetime.now(UTC)).to_bytes())

    def _add(self, entry_id: str, raw: bytes) -> None:
        self._redis.xadd(self._keys.reports(self._label), {FIELD: raw}, id=entry_id)

    def _ask_and_read_nothing(self) -> None:
        """For as long as the server takes it; then the connection waits for the next time."""
        connection: Any = self._redis.connection_pool.make_connection()
        self._unread = connection
        asked = connection.pack_command("XREAD", "STREAMS", self._keys.reloads, "0")
        connection.connect()
        for _ in range(500):
            connection.send_packed_command(asked)

    def _keep_connections(self) -> None:
        for idle in self._idle:
            idle.close()
        self._idle = [self._connect() for _ in range(_IDLE_CONNECTIONS)]
        for idle in self._idle:
            idle.ping()

    def _ask_fast(self) -> None:
        with self._redis.pipeline(transaction=False) as pipeline:
            for _ in range(2000):
                pipeline.get(self._keys.release)
            pipeline.execute()


def main() -> None:
    url, namespace, label, victim, log = sys.argv[1:]
    intruders = [Intruder(url, Keys(namespace), label, victim) for _ in range(_THREADS)]
    done = threading.Event()

    def go_on(intruder: Intruder) -> None:
        deeds = list((intruder.allowed_deeds | intruder.forbidden_deeds).items())
        while not done.is_set():
            random.shuffle(deeds)
            for name, deed in deeds:
                if done.wait(_PAUSE_SECONDS):
                    return
                intruder.do(name, deed)

    threads = [threading.Thread(target=go_on, args=(each,)) for each in intruders]
    with Stop() as stop:
        for thread in threads:
            thread.start()
        while not stop.wait(_NEVER_SECONDS):
            pass
        done.set()
        for thread in threads:
            thread.join()
    forbidden = {name for each in intruders for name in each.forbidden_deeds}
    took_place = sum((each.done for each in intruders), Counter[str]())
    refused = sum((each.refused for each in intruders), Counter[str]())
    Path(log).write_text(
        json.dumps(
            {
                "done": took_place,
                "refused": refused,
                "forbidden_and_done": sorted(forbidden & took_place.keys()),
            }
        ),
        encoding="utf-8",
    )


if __name__ == "__main__":
    main()
