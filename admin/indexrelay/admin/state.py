"""The state of the installation, looked at by one thread for all clients.

The thread looks about once a second while somebody watches, and less often where a look takes long
or nobody is there. What is well and what is not says the one judge, by the observer that also makes
metrics and alerts: so the page, `indexrelay status` and an alert never disagree.

The document (`indexrelay.admin.document`) has a number that grows when, and only when, something in
it changed; it is the number of the event that carries the change (`indexrelay.admin.stream`). What
changes with every look and says nothing new (when a live reader was seen last, how old what is not
served yet is) does not count by itself, and is renewed every few seconds while somebody watches.
"""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, Final

from anyio import to_thread
from fastapi import APIRouter, Header, Response
from sqlalchemy.exc import SQLAlchemyError

from indexrelay.admin.document import AlertState, DriftState, ReadersState, State, state_of
from indexrelay.admin.sightings import Sightings
from indexrelay.admin.stream import EventStream, PushedEvent
from indexrelay.health.facts import Area
from indexrelay.health.status import Actor, Code, Problem, Severity
from indexrelay.operations.alerts import NOT_LOOKED_AT
from indexrelay.operations.monitor import Look, Looker
from indexrelay.operations.observer import Observation
from indexrelay.schemas import commands
from indexrelay.schemas.clock import Background, Clock
from indexrelay.schemas.loggers import get_logger
from indexrelay.schemas.messages import RebuildRequested, RebuildStatus
from indexrelay.schemas.names import canonical_json
from indexrelay.schemas.settings import Settings
from indexrelay.service.answers import matches
from indexrelay.service.problems import RefusedError
from indexrelay.storage.artifacts import ArtifactStore
from indexrelay.storage.catalog import Catalog
from indexrelay.streams import Connection

_log = get_logger(__name__)

WATCHED_SECONDS: Final = 1.0
"""Between two looks while somebody watches …"""
UNWATCHED_SECONDS: Final = 10.0
"""… and while nobody does."""
_WATCHED_SHARE: Final = 0.1
"""Of the time at most that looks take, while somebody watches …"""
_UNWATCHED_SHARE: Final = 0.02
"""… and while nobody does."""
RENEW_SECONDS: Final = 10.0
"""How old what does not count as a change may be."""
_LOOK_SECONDS: Final = 5.0
"""How long an answer waits for a look."""
_WATCH_SECONDS: Final = 5.0
LATE_SECONDS: Final = 20.0
"""A look is told of that has not ended so long after it should have: it was due, or was wanted, and
took as long as the one before."""
_ASKED_SECONDS: Final = 30.0
"""How long somebody who asked for the state counts as watching."""


@dataclass(frozen=True, kw_only=True)
class StateLook:
    """One look, and the document that was made of it."""

    look: Look
    document: State
    text: str
    """The document as JSON, in one line."""

    @property
    def number(self) -> int:
        """Of the document."""
        return self.document.number

    @property
    def etag(self) -> str:
        """Of the document; weak, since what says nothing new is not counted."""
        return f'W/"{self.number}"'

    @property
    def event(self) -> PushedEvent:
        """The whole state."""
        return PushedEvent(number=self.number, name="state", text=self.text)


class StateWatch:
    """Looks again and again, on a thread of its own. Once stopped it stays stopped."""

    def __init__(
        self,
        settings: Settings,
        *,
        catalog: Catalog,
        store: ArtifactStore,
        connection: Callable[[], Connection],
        clock: Clock,
        events: EventStream,
        drift: Callable[[Observation], Mapping[str, DriftState]] = lambda _seen: {},
        noting: Callable[[Observation], None] = lambda _seen: None,
        settings_refused: Callable[[], str | None] = lambda: None,
    ) -> None:
        """What is handed in stays the caller's to close.

        Args:
            connection: to Redis; called at each look, since there may be none yet.
            events: where changes are published.
            drift: gives what is known of it, at once; called with each look.
            noting: is given each look; never raises.
            settings_refused: why settings that were read again are refused; ``None``: they are not.
        """
        self._catalog = catalog
        self._clock = clock
        self._events = events
        self._drift = drift
        self._noting = noting
        self._settings_refused = settings_refused
        self._looker = Looker(
            settings, catalog=catalog, store=store, connection=connection, clock=clock
        )
        self._sightings = Sightings(store)
        self._last: StateLook | None = None
        self._counted: Mapping[str, Any] = {}
        """Of the last document: what counts."""
        self._renewed_at = self._asked_at = clock.monotonic()
        self._ended_at = clock.monotonic()
        """When a look ended last."""
        self._due_at = self._ended_at + WATCHED_SECONDS
        """When the next one is to begin: at once where somebody wants it."""
        self._took = 0.0
        self._looked = threading.Event()
        self._turning = threading.Lock()
        self._publishing = threading.Lock()
        self._is_late = self._is_started = False
        self._thread = Background(self.turn, name="admin-state")
        self._watch = Background(self.watch, name="admin-watch")

    def start(self) -> None:
        """Start the threads; safe twice."""
        self._is_started = True
        self._thread.start()
        self._watch.start()

    def stop(self) -> None:
        """Return when no look runs any more; safe twice and before `start`."""
        self._watch.stop()
        self._thread.stop()

    def wake(self) -> None:
        """Look now: something was done that the next look would show."""
        self._due_at = min(self._due_at, self._clock.monotonic())
        self._thread.wake()

    def look(self) -> StateLook | None:
        """The last look; ``None``: there was none yet. From any thread, at once."""
        return self._last

    def required(self) -> StateLook:
        """The last look, for an answer.

        Raises:
            RefusedError: there was none yet.
        """
        if self._last is None:
            raise RefusedError(503, "nothing was looked at yet; ask again in a moment")
        return self._last

    async def fresh(self) -> StateLook:
        """The last look; where there was none for a while, the next one is waited for.

        Raises:
            RefusedError: there was none yet, and it takes too long.
        """
        self.asked()
        age = self._clock.monotonic() - self._ended_at
        is_old = self._last is None or age >= RENEW_SECONDS
        if self._is_started and is_old and not self._is_late:
            self._looked.clear()
            self.wake()
            await to_thread.run_sync(self._looked.wait, _LOOK_SECONDS, abandon_on_cancel=True)
        return self.required()

    def whole(self) -> PushedEvent | None:
        """The whole state as an event; ``None``: nothing was looked at yet."""
        last = self._last
        return None if last is None else last.event

    def asked(self) -> None:
        """Somebody asks for the state: look more often for a while."""
        before, self._asked_at = self._asked_at, self._clock.monotonic()
        if self._asked_at - before > _ASKED_SECONDS:
            self.wake()

    def turn(self) -> float:
        """Look once; the seconds until the next look. From any thread, one after another."""
        began = self._clock.monotonic()
        with self._turning:
            self._take(self._looker.look())
        self._looked.set()
        self._took = took = self._ended_at - began
        pause = (
            max(WATCHED_SECONDS, took / _WATCHED_SHARE)
            if self.watched
            else max(UNWATCHED_SECONDS, took / _UNWATCHED_SHARE)
        )
        self._due_at = self._ended_at + pause
        return pause

    def watch(self) -> float:
        """Say so where a look does not end, or fails: what is shown is then old; the seconds until
        the next time. It has a thread of its own beside `turn`."""
        with self._publishing:
            last, late = self._last, self._clock.monotonic() - self._due_at
            if last is not None and not self._is_late and late > self._took + LATE_SECONDS:
                self._is_late = True
                self._publish_late(last)
        return _WATCH_SECONDS

    def _publish_late(self, last: StateLook) -> None:
        seen_at = last.look.seen.at
        sentence = f"nothing was looked at since {seen_at:%Y-%m-%d %H:%M:%S} UTC"
        late = AlertState(
            name="NotLookedAt",
            severity=Severity.CRITICAL,
            since=seen_at,
            sentence=sentence,
            advice=NOT_LOOKED_AT,
            labels={},
        )
        document = last.document.model_copy(
            update={
                "status": "critical",
                "sentence": sentence,
                "alerts": (late, *last.document.alerts),
            }
        )

        def made(number: int) -> str:
            numbered = document.model_copy(update={"number": number})
            text = canonical_json(numbered.model_dump(mode="json")).decode()
            self._last = replace(last, document=numbered, text=text)
            return text

        self._events.publish_made("state", made)
        _log.error("admin.not_looked", since=seen_at.isoformat(), advice=NOT_LOOKED_AT)

    def _take(self, look: Look) -> None:
        """Make the document, and publish it if it says something new."""
        seen = look.seen
        self._noting(seen)
        document = state_of(
            look,
            self._sightings,
            number=0,
            requests=self._open_requests(seen),
            drift=self._drift(seen),
            own=self._own_problems(),
        )
        with self._publishing:
            last = self._last
            self._publish(look, document, last)
            self._ended_at = self._clock.monotonic()
        if last is not None:
            self._announce(last.look.seen, seen)

    def _own_problems(self) -> list[Problem]:
        """Of this process: nobody else knows of them."""
        why = self._settings_refused()
        if why is None:
            return []
        what = f"the admin page keeps the settings that it had, users among them: {why}"
        return [
            Problem(
                code=Code.SETTINGS_REFUSED,
                subject="admin",
                what=what,
                advice="correct them on its host, and have it read them again (SIGHUP): "
                f"{commands.CHECK_SETTINGS}",
                acts=Actor.PERSON,
            )
        ]

    def _publish(self, look: Look, document: State, last: StateLook | None) -> None:
        """Replace the last look, and send what changed, or everything after a look was late."""
        dumped = document.model_dump(mode="json", exclude={"number"})
        counted = _counted(dumped)
        now = self._clock.monotonic()
        anew, self._is_late = last is None or self._is_late, False
        renews = self.watched and now - self._renewed_at >= RENEW_SECONDS
        if last is not None and not anew and counted == self._counted and not renews:
            self._last = replace(last, look=look)
            return
        text = whole = canonical_json(dumped).decode()
        if last is not None and not anew:
            patch = _patch(dumped, counted, self._counted, base=last.number)
            text = canonical_json(patch).decode()

        def made(number: int) -> str:
            """The event's text; the look is replaced before anybody hears of it."""
            self._last = StateLook(
                look=look,
                document=document.model_copy(update={"number": number}),
                text=_numbered(whole, number),
            )
            return _numbered(text, number)

        self._events.publish_made("state" if anew else "patch", made)
        self._counted, self._renewed_at = counted, now

    def _announce(self, before: Observation, seen: Observation) -> None:
        """Publish that a rebuild ended, and that there is a release; the state has it already."""
        for result in seen.results:
            ended = {
                "ids": list(result.request_ids),
                "state": "complete" if result.status is RebuildStatus.SUCCESS else "failed",
                "message": result.message,
                "release": result.release,
            }
            self._events.publish("rebuild", ended)
        was, release = before.facts.release, seen.facts.release
        if release is None or (was is not None and was.number == release.number):
            return
        told = {"number": release.number, "reason": release.reason, "by": release.by}
        self._events.publish("release", told)
        shown = {} if was is None else was.components
        for name, version in release.components.items():
            kind = seen.facts.definitions.get(name)
            if kind is not None and kind.kind == "projection" and shown.get(name) != version:
                map_of = {"component": name, "version": version, "release": release.number}
                self._events.publish("map", map_of)

    @property
    def late(self) -> bool:
        """Whether the last look is too old to be told of as now."""
        return self._is_late

    @property
    def watched(self) -> bool:
        """Whether somebody looks at the page, or asked for the state a moment ago."""
        asked = self._clock.monotonic() - self._asked_at < _ASKED_SECONDS
        return asked or len(self._events) > 0

    def _open_requests(self, seen: Observation) -> list[RebuildRequested]:
        """Those that wait for an answer; none where the catalog cannot be read."""
        if Area.CATALOG in seen.facts.unknown:
            return []
        try:
            return self._catalog.inbox.open_requests()
        except SQLAlchemyError as error:
            _log.debug("requests.unknown", error=str(error))
            return []


def _counted(document: Mapping[str, Any]) -> dict[str, Any]:
    """What counts as a change: components and readers by their names, without what changes with
    every look and says nothing new."""
    kept = {key: document[key] for key in document.keys() - _NOT_COUNTED}
    readers = document["readers"]
    kept["collections"] = [
        {**each, "drift": each["drift"] and _without(each["drift"], "at")}
        for each in document["collections"]
    ]
    kept["rebuilders"] = [_without(each, "last_seen_at") for each in document["rebuilders"]]
    kept["components"] = {
        each["name"]: {
            **_without(each, "freshness_seconds"),
            "building": each["building"] and _without(each["building"], "elapsed_seconds"),
        }
        for each in document["components"]
    }
    kept["readers"] = {
        each["id"]: _without(each, "last_seen_at", "memory_bytes") for each in readers["items"]
    }
    kept["readers_counts"] = _without(readers, "items")
    return kept


_NOT_COUNTED: Final = frozenset({"number", "at", "freshness_seconds"})
_ALWAYS_SET: Final = frozenset({"at", "freshness_seconds", "rebuilders"})
"""Parts of a patch whether they count as changed or not."""


def _numbered(text: str, number: int) -> str:
    """A JSON object with its number: large texts are made before clients have to wait for it."""
    return f'{{"number":{number},{text[1:]}'


def _without(given: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {key: value for key, value in given.items() if key not in names}


def _patch(
    whole: Mapping[str, Any], counted: Mapping[str, Any], before: Mapping[str, Any], *, base: int
) -> dict[str, Any]:
    """What turns the document ``base`` into this one, but for what says nothing new.

    ``set`` has whole values of the document's own keys; of ``components`` and ``readers`` those
    that changed, and the names of those that went.
    """
    parts = {"components", "readers", "readers_counts"}
    changed = {key for key in counted.keys() - parts if counted[key] != before.get(key)}
    components, readers = (
        _changed(counted, before, "components"),
        _changed(counted, before, "readers"),
    )
    items = whole["readers"]["items"]
    return {
        "base": base,
        "set": {key: whole[key] for key in sorted(changed | _ALWAYS_SET)},
        "components": [each for each in whole["components"] if each["name"] in components],
        "components_gone": sorted(before["components"].keys() - counted["components"].keys()),
        "readers": [each for each in items if each["id"] in readers],
        "readers_gone": sorted(before["readers"].keys() - counted["readers"].keys()),
        "readers_counts": counted["readers_counts"],
        "last_seen": {each["id"]: each["last_seen_at"] for each in items},
    }


def _changed(counted: Mapping[str, Any], before: Mapping[str, Any], part: str) -> set[str]:
    was = before[part]
    return {name for name, each in counted[part].items() if was.get(name) != each}


def state_routes(watch: StateWatch) -> APIRouter:
    """``GET /state``."""
    router = APIRouter()

    @router.get("/state", response_model=State)
    async def state(
        if_none_match: Annotated[str | None, Header(max_length=1000)] = None,
    ) -> Response:
        """Everything at the last look; 304 where the client has it already."""
        last = await watch.fresh()
        headers = {"ETag": last.etag, "Cache-Control": "no-cache"}
        if if_none_match is not None and matches(if_none_match, last.etag.removeprefix("W/")):
            return Response(status_code=304, headers=headers)
        return Response(last.text, headers=headers, media_type="application/json")

    @router.get("/readers")
    async def readers() -> ReadersState:
        """The readers at the last look, and those that went within the last hour."""
        return watch.required().document.readers

    return router
