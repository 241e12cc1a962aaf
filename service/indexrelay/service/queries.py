"""One query of a client: run on a thread, against one snapshot, and observed.

Whatever is asked of a component goes this way: a thread is waited for, the body is read, a snapshot
is borrowed and the component asked, the answer is encoded, and who observes is given what it was:
the metrics, and the log of slow queries. Nothing that was sent is among that. A batch may lose its
thread between two of its searches, and keeps its snapshot. A request for a fresh answer that the
reader does not have yet gives its thread back, too, and comes again when the reader has it.
"""

import functools
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Generic, Literal, TypeAlias, TypeVar

from starlette.requests import Request
from starlette.responses import Response

from indexrelay.components.errors import InvalidQueryError, UnknownEntryError
from indexrelay.reloaders import Reloader, Snapshot
from indexrelay.reloaders.consistency import Consistency, FreshWait
from indexrelay.reloaders.errors import (
    ComponentNotServedError,
    NotFreshError,
    ReloaderStoppedError,
)
from indexrelay.reloaders.slow_queries import counted_elsewhere, log_slow_query
from indexrelay.schemas.errors import EmbeddingError
from indexrelay.schemas.session import HEADER, Life, SessionToken
from indexrelay.schemas.settings import HttpSettings
from indexrelay.service.answers import Answering, Hold, LargeResponse
from indexrelay.service.bodies import JSON
from indexrelay.service.connections import connection_of
from indexrelay.service.consistency import WaitingRoom
from indexrelay.service.dispatch import NotFilteredError, Search
from indexrelay.service.limits import MORE, AnswerRoom, More, Room, SearchThreads
from indexrelay.service.problems import OverloadedError, RefusedError
from indexrelay.service.tokens import Caller, caller_of

if TYPE_CHECKING:  # needed where a collection has an embedder
    from indexrelay.components.embedder import Embedders, TextFailure
    from indexrelay.service.texts import QueryVectors
    from indexrelay.storage.entries import Vectors

ResultT = TypeVar("ResultT")
Operation: TypeAlias = Literal["search", "batch", "entries", "count", "scroll", "neighbours"]
Outcome: TypeAlias = Literal[
    "answered",
    "refused",
    "unknown",
    "forbidden",
    "not_served",
    "not_fresh",
    "overloaded",
    "failed",
]
_OUTCOMES: Final[tuple[tuple[type[Exception], Outcome], ...]] = (
    (UnknownEntryError, "unknown"),
    (InvalidQueryError, "refused"),
    (NotFilteredError, "forbidden"),
    (ComponentNotServedError, "not_served"),
    (ReloaderStoppedError, "not_served"),
    (NotFreshError, "not_fresh"),
    (EmbeddingError, "not_served"),
    (OverloadedError, "overloaded"),
)
"""By the error; whatever else is raised has failed."""
_OUR_KINDS: Final = "indexrelay.components."
"""What kinds of our own serve has the payloads of entries."""
_MISSING: Final = "changes are missing that were committed since, until this reader finds them"
_TURN_SECONDS: Final = 0.05
"""How long a batch keeps a thread for which others wait: as long as a slow search."""


@dataclass(frozen=True, kw_only=True)
class Lent:
    """What a query may use while it runs."""

    served: Any
    """What the component's kind serves."""
    answering: Answering
    forced: Mapping[str, Any] | None
    """The filter of the caller's token."""
    max_bytes: int
    """Of the answer; also of the payloads that are read for it."""
    are_json: bool
    """Whether payloads are those of entries, which are written as they are stored."""
    hold: Hold
    """Counts what an answer takes before it is encoded."""
    snapshot: Snapshot
    """Where it is served of."""
    answering_of: Callable[[str], Answering]
    """As ``answering``, of another component."""
    suffices: Callable[[str], bool]
    """Whether another component is as fresh as the request asks."""
    caller: str | None = None
    """Whose query it is."""
    embedders: "Embedders | None" = None
    """What makes vectors of texts; ``None``: no collection has an embedder."""

    def vectors_of(
        self, searches: Sequence[Search]
    ) -> "Generator[QueryVectors, None, Mapping[int, Vectors | TextFailure]]":
        """What comes of the texts of searches, by their number; it is waited for without a thread.

        Nothing where searches are asked as they are.

        Raises:
            EmbedderFunctionError: the embedder cannot be imported.
        """
        if self.embedders is None:
            return {}
        from indexrelay.service.texts import QueryVectors

        component = self.answering.component
        vectors = QueryVectors.submit(
            self.embedders, self.snapshot, component, searches, caller=self.caller
        )
        if vectors is None:
            return {}
        try:
            yield vectors
            return vectors.outcomes()
        finally:
            vectors.leave()

    def routed(
        self, search: Search, outcome: "Vectors | TextFailure | None"
    ) -> "tuple[Lent, Search]":
        """What is asked with what, by what came of a text; see `indexrelay.service.texts.route`."""
        if outcome is None:
            return self, search
        from indexrelay.service.texts import route

        asked = self.answering.component
        found = route(
            self.snapshot,
            asked,
            search,
            outcome,
            filtered=self.forced is not None,
            suffices=self.suffices,
        )
        if found.degraded is None:
            return self, found.search
        answering = self.answering_of(found.component)
        reasons = "; ".join(filter(None, (answering.reason, found.degraded)))
        other = replace(
            self,
            served=found.served,
            answering=replace(answering, degraded=True, reason=reasons),
            are_json=_are_payloads_json(found.served),
        )
        return other, found.search


@dataclass(frozen=True, kw_only=True)
class Answered:
    """The answer to a query, and what may be known of it."""

    body: bytes
    k: int | None = None
    plan: str | None = None
    """Where it was explained."""
    session: str | None = None
    """The session token, where another component answered, too; ``None``: that of the one asked."""


@dataclass(frozen=True, kw_only=True)
class Observation:
    """One query that has ended; nothing in it was sent by the client."""

    operation: Operation
    outcome: Outcome
    seconds: float
    """On its threads; it may have waited for them."""
    component: str = ""
    """Empty where no such component is served."""
    version: str = ""
    k: int | None = None
    plan: str | None = None


Observer: TypeAlias = Callable[[Observation], None]
QuestionT = TypeVar("QuestionT")


@dataclass(frozen=True, kw_only=True)
class Ask(Generic[QuestionT]):
    """How a component is asked; both run on a thread."""

    read: Callable[[], tuple[QuestionT, Consistency | None]]
    """Reads what is asked, and how fresh the answer has to be; ``None``: as it is."""
    answer: "Callable[[Lent, QuestionT], Answered | Asking]"
    """Asks the component; what yields may go on in another turn, on another thread, and not before
    vectors have come that it yields."""
    words: Callable[[QuestionT], "tuple[QuestionT, Sequence[Search]] | None"] | None = None
    """The same question by its words alone, and its searches; ``None``: it has none."""


Asking: TypeAlias = "Generator[QueryVectors | None, None, Answered]"
_Steps: TypeAlias = "Generator[FreshWait | QueryVectors | None, None, bytes]"
"""Of one query: gives what is to be waited for without a thread; ``None``: nothing."""


class Queries:
    """Runs the queries of one service."""

    def __init__(
        self, reloader: Reloader, limits: HttpSettings, observers: Sequence[Observer]
    ) -> None:
        self._reloader = reloader
        self._limits = limits
        self._threads = SearchThreads(limits)
        self._waiting = WaitingRoom(limits)
        most = limits.searches + limits.max_waiting_searches
        self._without_vectors = Room(
            most, limits, "searches{} that wait for vectors of their texts"
        )
        self._embedders = reloader.embedders
        self._observers = tuple(observers)

    @property
    def in_progress(self) -> int:
        """How many run, or wait for a thread, for a fresh answer or for the vectors of texts."""
        return len(self._threads) + len(self._waiting) + len(self._without_vectors)

    async def answer(
        self, request: Request, component: str, operation: Operation, ask: Ask[Any]
    ) -> Response:
        """The response to a query.

        Args:
            request: whose query it is.
            component: what is asked.
            operation: what for.
            ask: asks it.

        Raises:
            OverloadedError: too many queries wait.
            NotFreshError: the answer would not be as fresh as asked, nor was it in time.
            Exception: what ``ask`` raises, and what a snapshot does.
        """
        caller = caller_of(request)
        connection = connection_of(request.scope)
        room = AnswerRoom(connection)
        found: dict[str, Any] = {"operation": operation, "outcome": "overloaded"}
        steps = self._steps(component, ask, caller, room.hold, found)
        seconds = 0.0

        def turn() -> "bytes | FreshWait | QueryVectors | Literal[More.MORE]":
            nonlocal seconds
            began = time.perf_counter()
            try:
                with counted_elsewhere():
                    while True:
                        if (wait := next(steps)) is not None:
                            return wait
                        lasted = time.perf_counter() - began
                        if self._threads.others_wait and lasted >= _TURN_SECONDS:
                            return MORE
            except StopIteration as ended:
                body: bytes = ended.value
                return body
            finally:
                seconds += time.perf_counter() - began

        try:
            body: bytes | FreshWait | QueryVectors
            body = await self._threads.run(turn, connection=connection, caller=caller.name)
            while not isinstance(body, bytes):
                if isinstance(body, FreshWait):
                    await self._waiting.wait(body, caller=caller.name)
                else:
                    with self._without_vectors.place(caller.name):
                        await body.arrive()
                body = await self._threads.run(turn, connection=connection, caller=caller.name)
            found["outcome"] = "answered"
        except Exception as error:
            found["outcome"] = outcome_of(error)
            raise
        finally:
            steps.close()
            self._observe(_observed(seconds, found))
        session = {HEADER: found["session"]}
        response = LargeResponse(body, media_type="application/json", headers=session)
        response.held_bytes = room.held_bytes
        return response

    async def on_thread(self, request: Request, work: Callable[[], ResultT]) -> ResultT:
        """What ``work`` returns, from one of the threads of queries, in turn with them.

        For what is no query of a component, and takes as long as one.

        Raises:
            OverloadedError: too many queries wait.
            Exception: what ``work`` raises.
        """
        return await self._threads.run(
            work, connection=connection_of(request.scope), caller=caller_of(request).name
        )

    def _steps(
        self,
        component: str,
        ask: Ask[Any],
        caller: Caller,
        hold: Hold,
        found: dict[str, Any],
    ) -> _Steps:
        """Ask the component; ``found`` gets what may be observed of it, and its session token."""
        forced = caller.filter
        degraded: str | None = None
        with self._reloader.acquire() as now:
            if component not in now and (other := self._stand_in(now, component, ask, forced)):
                degraded = f"{component} cannot be served: found by words alone"
                component = other
            _of(now, component, names_others=forced is None)
            found |= {"component": component, "version": now.versions[component]}
        question, consistency = ask.read()
        if degraded is not None and ask.words is not None and (by_words := ask.words(question)):
            question, _ = by_words
        snapshot, wait = yield from self._snapshot(component, consistency)
        with snapshot:
            served = _of(snapshot, component, names_others=forced is None)
            answering = self._answering(snapshot, component)
            if degraded is not None:
                reasons = "; ".join(filter(None, (answering.reason, degraded)))
                answering = replace(answering, degraded=True, reason=reasons)
            found |= {"version": answering.version, "session": answering.session}
            lent = Lent(
                served=served,
                answering=answering,
                forced=forced,
                max_bytes=self._limits.max_answer_bytes,
                are_json=_are_payloads_json(served),
                hold=hold,
                snapshot=snapshot,
                answering_of=functools.partial(self._answering, snapshot),
                suffices=lambda other: wait is None or wait.suffices(snapshot, other),
                embedders=self._embedders,
                caller=caller.name,
            )
            answered = ask.answer(lent, question)
            if isinstance(answered, Generator):
                answered = yield from answered
            found |= {"k": answered.k, "plan": answered.plan}
            if answered.session is not None:
                found["session"] = answered.session
            return answered.body

    def _stand_in(
        self,
        now: Snapshot,
        component: str,
        ask: Ask[Any],
        forced: Mapping[str, Any] | None,
    ) -> str | None:
        """What answers in place of a component that could not be loaded; ``None``: nothing does.

        Raises what reading the question does.
        """
        if ask.words is None or component not in self._reloader.settings.components:
            return None
        state = self._reloader.state.components.get(component)
        if state is None or state.error is None:
            return None
        by_words = ask.words(ask.read()[0])
        if by_words is None:
            return None
        from indexrelay.service.texts import stand_in

        _, searches = by_words
        filtered = forced is not None
        return stand_in(now, self._reloader.settings, component, searches, filtered=filtered)

    def _snapshot(
        self, component: str, asked: Consistency | None
    ) -> Generator[FreshWait, None, tuple[Snapshot, FreshWait | None]]:
        """What is served, as fresh as asked, and the wait for that; ``None``: it was not asked."""
        if asked is None:
            return self._reloader.acquire(), None
        with self._reloader.freshness.begin(asked, components=[component]) as wait:
            if not wait.settled:
                yield wait
            return wait.result(), wait

    def _answering(self, snapshot: Snapshot, component: str) -> Answering:
        is_missing = self._reloader.is_missing_changes(snapshot, component)
        lag = self._reloader.lag_seconds(snapshot, component)
        generations, session = _shown(snapshot.reached(component))
        return Answering(
            component=component,
            release=snapshot.release,
            version=snapshot.versions[component],
            generations=generations,
            lag_seconds=None if lag is None else round(lag, 3),
            degraded=is_missing,
            reason=_MISSING if is_missing else None,
            session=session,
        )

    def _observe(self, observation: Observation) -> None:
        for observer in self._observers:
            observer(observation)


@functools.lru_cache(maxsize=256)
def _shown(reached: tuple[Life, ...]) -> tuple[Mapping[str, int], str]:
    """What an answer shows of what its component answers from: generations, and a session token.

    It is the same for all answers between two commits, and takes a tenth of a search to write.
    """
    token = SessionToken(life for life in reached if life.epoch)
    return {life.collection: life.generation for life in reached}, str(token)


def _are_payloads_json(served: Any) -> bool:
    return type(served).__module__.startswith(_OUR_KINDS)


def _observed(seconds: float, found: Mapping[str, Any]) -> Observation:
    return Observation(
        seconds=seconds, **{name: each for name, each in found.items() if name != "session"}
    )


def _of(snapshot: Snapshot, component: str, *, names_others: bool) -> Any:
    """What is served of a component; raises `ComponentNotServedError`.

    Args:
        snapshot: what is served.
        component: its name, as a client gave it.
        names_others: whether the error says what there is: a tenant is not told.
    """
    try:
        return snapshot[component]
    except ComponentNotServedError:
        if names_others:
            raise
        raise ComponentNotServedError(component, None) from None


async def sent(request: Request, *kinds: str) -> tuple[bytes, str, list[tuple[str, str]]]:
    """The body, its media type, and what stands in the address.

    Raises:
        RefusedError: it is of another type, or JSON with options in the address.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in kinds:
        raise RefusedError(415, f"send the question as {' or '.join(kinds)}")
    given = request.query_params.multi_items()
    if kind == JSON and given:
        raise RefusedError(422, "with a body in JSON the address has no options")
    body = b"".join([piece async for piece in request.stream()])  # which the request does not keep
    return body, kind, given


def outcome_of(error: Exception) -> Outcome:
    """How a query ended that raised ``error``."""
    return next((outcome for kind, outcome in _OUTCOMES if isinstance(error, kind)), "failed")


def slow_query_log(threshold_ms: float) -> Observer:
    """Logs queries that took longer, without anything that was sent."""

    def observe(observation: Observation) -> None:
        if observation.seconds * 1000 > threshold_ms and observation.outcome == "answered":
            log_slow_query(
                component=observation.component,
                version=observation.version,
                operation=observation.operation,
                plan=observation.plan,
                k=observation.k,
                seconds=observation.seconds,
            )

    return observe
