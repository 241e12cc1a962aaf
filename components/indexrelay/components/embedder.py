"""Vectors of texts, made by a function of the user's that a collection's table names.

The function runs on a thread of its own, for all who ask at the same time: what waits while it runs
goes into its next call, each text once, and what it gave is kept. So a search costs a call at most.
Of several callers each has a text taken in turn, however many another one has waiting; a text that
several want is taken when the first of them has its turn.
Collections that name the same function take turns, so it need not be safe to call from several
threads.

It is user code, and may hang. Nobody waits longer than the limits say, and no thread of theirs runs
it. A call that outlasts its limit is *overdue*: it has failed, and its thread is left alone, since
a thread cannot be ended. The next call goes to a new thread. While `_MOST_OVERDUE` threads have not
come back, every text is refused at once.

A call that raises, or gives another number of vectors, says nothing about single texts, so they are
tried one by one. What it prints goes to stderr: stdout may carry an answer.
"""

import asyncio
import hashlib
import os
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Final, Self

import numpy as np

from indexrelay.components.errors import EmbedderFunctionError
from indexrelay.components.functions import STDOUT, TURNS, function_of
from indexrelay.schemas.clock import Clock, SupervisedThread, SystemClock
from indexrelay.schemas.diagnostics import describe_error
from indexrelay.schemas.errors import EmbeddingError
from indexrelay.schemas.loggers import LogOnce, get_logger
from indexrelay.schemas.settings import CollectionSettings, EmbedderSettings, Metric, Settings
from indexrelay.schemas.settings_file import let_import
from indexrelay.storage.entries import Vectors

_log = get_logger(__name__)

_MOST_OVERDUE: Final = 4
"""Threads whose calls may have outlasted their limit: one hangs by chance, four do not."""
_FIRST_TEXT: Final = "words"
_IDLE_SECONDS: Final = 5.0
"""How long a thread without work is kept."""
_SHORTEST_WAIT_SECONDS: Final = 0.001


@dataclass(frozen=True, kw_only=True)
class TextFailure:
    """Why there is no vector of a text."""

    reason: str
    """For anybody: it repeats nothing that the function said."""
    detail: str = ""
    """What the function said, for those who have the text: it may repeat it."""
    transient: bool = False
    """Whether the same text may get a vector later."""

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}" if self.detail else self.reason


@dataclass(frozen=True, eq=False, kw_only=True)
class Embedded:
    """The vectors of some texts, as far as there are any."""

    collection: str
    vectors: Vectors
    """Shape ``(n, dimension)``; NaN in the rows of `failures`. The caller's own."""
    failures: Mapping[int, TextFailure]
    """By row."""

    def raise_for_failures(self) -> None:
        """Raise `EmbeddingError`, which names the rows, where a text has no vector."""
        if self.failures:
            raise EmbeddingError(
                self.collection,
                {row: str(failure) for row, failure in self.failures.items()},
                transient=all(failure.transient for failure in self.failures.values()),
            )


class _Wanted:
    """One text that somebody waits for; shared by all who do."""

    __slots__ = ("callers", "digest", "outcome", "text", "waiting")

    def __init__(self, text: str, digest: bytes, caller: str | None) -> None:
        self.text = text
        self.digest = digest
        self.callers = [caller]
        """In whose queues it may be; who asked first is the first."""
        self.outcome: Vectors | TextFailure | None = None
        self.waiting: list[Embedding] = []


class _Queue:
    """Texts that wait: those of each caller in their order, and the callers in turn.

    A text that several callers want waits in the queue of each, until one of them has its turn.
    """

    def __init__(self) -> None:
        self._of: OrderedDict[str | None, OrderedDict[_Wanted, None]] = OrderedDict()
        """By caller, the next one first; dictionaries, so that what nobody waits for any more is
        taken out at once."""

    def __bool__(self) -> bool:
        return bool(self._of)

    def add(self, wanted: _Wanted, *, is_next: bool = False) -> None:
        """Add a text; ``is_next``: before all others."""
        caller = wanted.callers[0]
        own = self._of.setdefault(caller, OrderedDict())
        own[wanted] = None
        if is_next:
            own.move_to_end(wanted, last=False)
            self._of.move_to_end(caller, last=False)

    def share(self, wanted: _Wanted, caller: str | None) -> None:
        """Have a text wait for another caller, too, if it waits."""
        if caller not in wanted.callers and wanted in self._of.get(wanted.callers[0], ()):
            wanted.callers.append(caller)
            self._of.setdefault(caller, OrderedDict())[wanted] = None

    def discard(self, wanted: _Wanted) -> bool:
        """Take out a text; whether it was there."""
        was_there = False
        for caller in wanted.callers:
            own = self._of.get(caller)
            if own is not None and wanted in own:
                was_there = True
                del own[wanted]
                if not own:
                    del self._of[caller]
        return was_there

    def take(self) -> _Wanted:
        """Take out the next text."""
        caller, own = next(iter(self._of.items()))
        wanted = next(iter(own))
        self.discard(wanted)
        if caller in self._of:
            self._of.move_to_end(caller)
        return wanted

    def clear(self) -> None:
        """Take out all of them."""
        self._of.clear()


class Embedding:
    """Some texts on their way to vectors; made by `Embedder.submit`."""

    def __init__(self, embedder: "Embedder", wanted: Sequence[_Wanted]) -> None:
        self._embedder = embedder
        self._wanted = wanted
        self.missing = 0
        """How many different texts have no outcome yet; changed under the embedder's lock."""
        self.finished: Future[None] = Future()
        """Done when all texts have an outcome; of this request alone, so it may be cancelled."""

    def result(self) -> Embedded:
        """What there is by now; who still waited for the rest does no more."""
        self._embedder.leave(self)
        late = TextFailure(reason="the embedder gave no vector in time", transient=True)
        outcomes = [late if each.outcome is None else each.outcome for each in self._wanted]
        vectors = np.full((len(outcomes), self._embedder.dimension), np.nan, dtype=np.float32)
        failures = {}
        for row, outcome in enumerate(outcomes):
            if isinstance(outcome, TextFailure):
                failures[row] = outcome
            else:
                vectors[row] = outcome
        return Embedded(collection=self._embedder.collection, vectors=vectors, failures=failures)

    def wait(self, seconds: float | None = None) -> Embedded:
        """The vectors, after ``seconds`` at most; ``None``: as long as the calls may take."""
        self._embedder.wait(self, seconds)
        return self.result()

    async def arrival(self, seconds: float | None = None) -> Embedded:
        """As `wait`, on an event loop and without a thread."""
        try:
            await self._embedder.arrival(self, seconds)
        except asyncio.CancelledError:
            self._embedder.leave(self)
            raise
        return self.result()

    def end(self) -> None:
        """All texts have an outcome."""
        if self.finished.set_running_or_notify_cancel():
            self.finished.set_result(None)


@dataclass(eq=False)
class _Call:
    """One call of the function that runs."""

    texts: Sequence[_Wanted]
    rest: Sequence[_Wanted]
    """Texts that its thread has yet to try."""
    began: float = 0.0
    overdue: bool = False
    """Whether it outlasted its limit, and nobody waits for it any more."""
    failed: bool = False
    """Whether it gave nothing that says which of the texts is at fault."""
    outcomes: Mapping[_Wanted, Vectors | TextFailure] = field(default_factory=dict)


class Embedder:
    """Makes the vectors of one collection's texts; safe to use from many threads, and to fork."""

    def __init__(
        self, collection: str, declared: CollectionSettings, *, clock: Clock | None = None
    ) -> None:
        """For a collection that has an embedder; nothing is imported before the first text.

        Raises:
            ValueError: the collection has none.
        """
        if declared.embedder is None:
            raise ValueError(f"collection {collection} has no embedder")
        self.collection = collection
        self.dimension = declared.dimension
        self.settings: EmbedderSettings = declared.embedder
        self._metric = declared.metric
        self._clock = clock or SystemClock()
        self._cache: OrderedDict[bytes, Vectors] = OrderedDict()
        self._said = LogOnce()
        self._function: Callable[[list[str]], Any] | None = None
        self._start_over()
        self._forget_threads_in_children()

    def _start_over(self) -> None:
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._queue = _Queue()
        self._wanted: dict[bytes, _Wanted] = {}
        """By digest: what is in the queue or in a call."""
        self._thread: threading.Thread | None = None
        """The one that takes from the queue; ``None``: none runs, or its call is overdue."""
        self._call: _Call | None = None
        """What it does."""
        self._overdue = 0
        """Threads whose overdue calls have not come back."""

    @classmethod
    def of(cls, settings: Settings, collection: str, *, clock: Clock | None = None) -> Self | None:
        """The one that a collection declares; ``None``: it declares none.

        The function's module may lie in ``modules_dir`` from then on.
        """
        declared = settings.collections.get(collection)
        if declared is None or declared.embedder is None:
            return None
        let_import(settings)
        return cls(collection, declared, clock=clock)

    def load(self) -> None:
        """Import the function, so that a mistake is found before the first text.

        Raises:
            EmbedderFunctionError: it cannot be imported.
        """
        self._loaded()

    def _loaded(self) -> Callable[[list[str]], Any]:
        if self._function is None:
            with STDOUT.muted():
                self._function = function_of(self.settings.function, EmbedderFunctionError)
        return self._function

    def embed(self, texts: Sequence[str]) -> Embedded:
        """The vectors of texts that become entries, as many calls as it takes.

        Raises:
            EmbedderFunctionError: the function cannot be imported.
            TypeError: one of them is no text.
        """
        size = self.settings.batch_texts
        parts = [self.submit(texts[at : at + size]).wait() for at in range(0, len(texts), size)]
        if len(parts) == 1:
            return parts[0]
        none: Vectors = np.empty((0, self.dimension), dtype=np.float32)
        return Embedded(
            collection=self.collection,
            vectors=np.concatenate([none, *(part.vectors for part in parts)]),
            failures={
                number * size + row: failure
                for number, part in enumerate(parts)
                for row, failure in part.failures.items()
            },
        )

    def vector(self, text: str) -> Vectors:
        """The vector of a query's text, shape ``(dimension,)``, within ``query_seconds``.

        Raises:
            EmbeddingError: there is none.
            EmbedderFunctionError: the function cannot be imported.
        """
        found = self.submit([text]).wait(self.settings.query_seconds)
        found.raise_for_failures()
        vector: Vectors = found.vectors[0]
        return vector

    def submit(self, texts: Sequence[str], *, caller: str | None = None) -> Embedding:
        """Have the vectors of at most ``batch_texts`` texts made, without waiting for them.

        Args:
            texts: what to make them of.
            caller: whose they are: callers take turns.

        Raises:
            EmbedderFunctionError: the function cannot be imported.
            TypeError: one of them is no text.
        """
        self.load()
        digests = [_digest(text) for text in texts]
        self.give_up_overdue_calls()
        with self._lock:
            wanted = [
                self._want(text, key, caller) for text, key in zip(texts, digests, strict=True)
            ]
            asked = Embedding(self, wanted)
            for each in {id(each): each for each in wanted if each.outcome is None}.values():
                each.waiting.append(asked)
                asked.missing += 1
            ended = [] if asked.missing else [asked]
            ended += self._see_to_queue()
        for request in ended:
            request.end()
        return asked

    def wait(self, asked: Embedding, seconds: float | None) -> None:
        """Wait until all of it has an outcome, or ``seconds`` are over."""
        until = None if seconds is None else self._clock.monotonic() + seconds
        while not asked.finished.done() and (pause := self._pause(until)) is not None:
            try:
                asked.finished.result(pause)
            except TimeoutError:
                self.give_up_overdue_calls()

    async def arrival(self, asked: Embedding, seconds: float | None) -> None:
        """As `wait`, on an event loop."""
        until = None if seconds is None else self._clock.monotonic() + seconds
        while not asked.finished.done() and (pause := self._pause(until)) is not None:
            done, _ = await asyncio.wait([asyncio.wrap_future(asked.finished)], timeout=pause)
            if not done:
                self.give_up_overdue_calls()

    def _pause(self, until: float | None) -> float | None:
        """How long to wait before overdue calls are looked for; ``None``: not at all."""
        now = self._clock.monotonic()
        if until is not None and now >= until:
            return None
        with self._lock:
            began = now if self._call is None else self._call.began
        pause = began + self.settings.timeout_seconds - now
        if until is not None:
            pause = min(pause, until - now)
        return max(pause, _SHORTEST_WAIT_SECONDS)

    def leave(self, asked: Embedding) -> None:
        """Who asked waits no more; what nobody else waits for takes no room any more."""
        with self._lock:
            for each in asked._wanted:  # noqa: SLF001 - its own module
                if asked in each.waiting:
                    each.waiting.remove(asked)
                if not each.waiting and self._queue.discard(each):
                    self._wanted.pop(each.digest, None)

    def give_up_overdue_calls(self) -> None:
        """Give up a call that has outlasted its limit: its texts fail, and others get a thread."""
        limit = self.settings.timeout_seconds
        with self._lock:
            call = self._call
            if call is None or self._clock.monotonic() - call.began < limit:
                return
            call.overdue = True
            self._call = self._thread = None
            TURNS.end(self.settings.function, call)
            self._overdue += 1
            late = TextFailure(reason=f"the embedder took more than {limit:g} s", transient=True)
            ended = self._settle((each, late) for each in call.texts)
            for wanted in reversed(call.rest):
                self._queue.add(wanted, is_next=True)
            ended += self._see_to_queue()
        _log.warning(
            "embedder.overdue", collection=self.collection, seconds=limit, overdue=self._overdue
        )
        for each in ended:
            each.end()

    def _forget_threads_in_children(self) -> None:
        """In a forked child threads and what they worked on are gone; vectors came along."""
        reference = weakref.ref(self)

        def forget() -> None:
            embedder = reference()
            if embedder is not None:
                embedder._start_over()  # noqa: SLF001 - its own

        os.register_at_fork(after_in_child=forget)

    # Under the lock

    def _want(self, text: str, digest: bytes, caller: str | None) -> _Wanted:
        """The text as others want it, or want it now; with its outcome where that is known."""
        wanted = self._wanted.get(digest)
        if wanted is not None:
            self._queue.share(wanted, caller)
            return wanted
        wanted = _Wanted(text, digest, caller)
        vector = self._cache.get(digest)
        if vector is not None:
            self._cache.move_to_end(digest)
            wanted.outcome = vector
        elif self._overdue >= _MOST_OVERDUE:
            wanted.outcome = _AWAY
        else:
            self._wanted[digest] = wanted
            self._queue.add(wanted)
        return wanted

    def _see_to_queue(self) -> list[Embedding]:
        """See that a thread takes what waits; the requests that end because there is none."""
        if self._thread is not None:
            self._changed.notify()
        elif self._queue and self._overdue >= _MOST_OVERDUE:
            return self._refuse_all(_AWAY)
        elif self._queue:
            name = f"indexrelay-embedder-{self.collection}"
            thread = SupervisedThread(self._work, name=name, wait=None)
            try:
                thread.start()
            except RuntimeError:  # the process may have no more threads, or no memory for one
                return self._refuse_all(_NO_THREAD)
            self._thread = thread
        return []

    def _refuse_all(self, why: TextFailure) -> list[Embedding]:
        """No text that waits gets a vector; the requests that end with that."""
        self._queue.clear()
        return self._settle([(each, why) for each in self._wanted.values()])

    def _settle(self, outcomes: Iterable[tuple[_Wanted, Vectors | TextFailure]]) -> list[Embedding]:
        """Note what came of texts; the requests that have everything now."""
        ended = []
        for wanted, outcome in outcomes:
            if not isinstance(outcome, TextFailure):
                self._keep(wanted.digest, outcome)
            if wanted.outcome is None:
                wanted.outcome = outcome
                self._wanted.pop(wanted.digest, None)
                for asked in wanted.waiting:
                    asked.missing -= 1
                    if not asked.missing:
                        ended.append(asked)
        return ended

    def _keep(self, digest: bytes, vector: Vectors) -> None:
        self._cache[digest] = vector
        self._cache.move_to_end(digest)
        while len(self._cache) > self.settings.cache_texts:
            self._cache.popitem(last=False)

    # On the function's thread

    def _work(self) -> None:
        """Call the function for what waits, until nothing has come for a while."""
        me = threading.current_thread()
        try:
            while texts := self._next(me):
                call = self._called(texts)
                if call.failed and len(texts) > 1 and not call.overdue:
                    self._one_by_one(texts)
                else:
                    self._note(call.outcomes)
        finally:
            self._end(me)

    def _end(self, me: threading.Thread) -> None:
        """Where an error ended the thread, nobody waits for it; the next text gets another."""
        ended = []
        with self._lock:
            if self._thread is me:
                self._thread = self._call = None
                ended = self._refuse_all(_NO_THREAD)
        for each in ended:
            each.end()

    def _next(self, me: threading.Thread) -> list[_Wanted]:
        """What to call the function for next; nothing: the thread is not needed any more."""
        with self._lock:
            while self._thread is me:
                texts: list[_Wanted] = []
                while self._queue and len(texts) < self.settings.batch_texts:
                    wanted = self._queue.take()
                    if wanted.waiting:
                        texts.append(wanted)
                    else:  # everybody has left
                        self._wanted.pop(wanted.digest, None)
                if texts:
                    return texts
                if not self._changed.wait_for(lambda: bool(self._queue), _IDLE_SECONDS):
                    self._thread = None
            return []

    def _one_by_one(self, texts: Sequence[_Wanted]) -> None:
        """Call the function for each alone; one that hangs leaves the others to the next thread."""
        for number, each in enumerate(texts):
            call = self._called([each], rest=texts[number + 1 :])
            self._note(call.outcomes)
            if call.overdue:
                return

    def _called(self, texts: Sequence[_Wanted], rest: Sequence[_Wanted] = ()) -> _Call:
        """One call, and what it gave."""
        call, name = _Call(texts, rest), self.settings.function
        TURNS.begin(name, call, longest_seconds=self.settings.timeout_seconds)
        with self._lock:
            call.began = self._clock.monotonic()
            self._call = call
        answer: Any = None
        failure: TextFailure | None = None
        try:
            with STDOUT.muted():
                given = self._loaded()([each.text for each in texts])
            with np.errstate(over="ignore"):  # an infinity is told by its row
                answer = np.array(given, dtype=np.float32, order="C")
        except BaseException as error:  # noqa: BLE001 - user code: the thread goes on
            failure = TextFailure(
                reason=f"the embedder raised {type(error).__name__}", detail=describe_error(error)
            )
        finally:
            TURNS.end(name, call)
        rows, dimension = len(texts), self.dimension
        if failure is None and answer.shape != (rows, dimension):
            failure = TextFailure(
                reason=f"the embedder gave an array of shape {answer.shape}, and not "
                f"{(rows, dimension)}"
            )
            # So many vectors of another length: it would be the same for each text alone.
            call.failed = answer.ndim != 2 or len(answer) != rows
        elif failure is not None:
            call.failed = True
        with self._lock:
            if call.overdue:
                self._overdue -= 1
            else:
                self._call = None
            said = {} if failure is None else {"embedder": str(failure)}
            new = self._said.new(said)
        for said_error in new.values():
            _log.warning("embedder.failed", collection=self.collection, error=said_error)
        call.outcomes = {
            each: self._checked(answer[row]) if failure is None else failure
            for row, each in enumerate(texts)
        }
        return call

    def _checked(self, vector: Vectors) -> Vectors | TextFailure:
        """A row, if it can be searched for."""
        if not np.isfinite(vector).all():
            return TextFailure(reason="the embedder gave a NaN or an infinity")
        if self._metric is Metric.COSINE and not vector.any():
            return TextFailure(reason="the embedder gave a zero vector, which has no direction")
        return vector.copy()  # or it would keep the vectors of the whole call

    def _note(self, outcomes: Mapping[_Wanted, Vectors | TextFailure]) -> None:
        with self._lock:
            ended = self._settle(outcomes.items())
        for each in ended:
            each.end()


def _digest(text: object) -> bytes:
    if not isinstance(text, str):
        raise TypeError(f"an embedder takes texts, not {type(text).__name__}")
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


_AWAY: Final = TextFailure(
    reason=f"the embedder has not come back from {_MOST_OVERDUE} calls", transient=True
)
_NO_THREAD: Final = TextFailure(reason="the embedder has no thread to run on", transient=True)


class Embedders:
    """Those of one process: one for each collection that has one, made when it is first asked for.

    Safe to use from several threads.
    """

    def __init__(self, settings: Settings, *, clock: Clock | None = None) -> None:
        self._settings = settings
        self._clock = clock
        self._making = threading.Lock()
        self._made: dict[str, Embedder | None] = {}

    def of(self, collection: str) -> Embedder | None:
        """The embedder of a collection; ``None``: it has none."""
        with self._making:
            if collection not in self._made:
                self._made[collection] = Embedder.of(self._settings, collection, clock=self._clock)
            return self._made[collection]

    def start(self) -> None:
        """Import the functions of all, and have each make a vector, which is not waited for: the
        first call is the one that reads weights.

        Raises:
            EmbedderFunctionError: one cannot be imported.
        """
        found = [self.of(collection) for collection in self._settings.collections]
        embedders = [each for each in found if each is not None]
        for embedder in embedders:
            embedder.load()
        for embedder in embedders:
            embedder.submit([_FIRST_TEXT])
