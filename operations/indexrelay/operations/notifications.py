"""Notices: what somebody is told of, and how it gets to them without holding anything up.

`notices_of` says what is new at a look: alerts that began or ended, builds that failed or were
refused by a gate, components that are not built any more, a rollback. `Notifier` hands it to each
target that the settings name.

A target has a thread and a queue of its own. What comes within ``group_seconds`` goes out together;
then nothing for ``interval_seconds``, and what comes meanwhile is put together, equal notices
counted. A message that takes longer than ``timeout_seconds`` has failed: its thread is left alone,
and nothing more is sent there until it has ended. What failed is sent again, after waits that grow.
So a target that hangs costs one thread, and no other target, look or build waits for it.

Messages go by apprise. Its log, and that of the libraries below it, may show URLs with their
secrets, at the level debug most of all. So it is silenced here, and what went wrong is said in
words of our own: the target's name, and the kind of error.
"""

import logging
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Self, TypeAlias

from indexrelay.health.facts import Area
from indexrelay.health.status import Condition, Severity
from indexrelay.operations.alerts import Alert, Evaluation, described
from indexrelay.operations.observer import Observation
from indexrelay.schemas import commands
from indexrelay.schemas.clock import Background, Clock, backoff_seconds
from indexrelay.schemas.diagnostics import without_secrets
from indexrelay.schemas.errors import IndexRelayError, MissingExtraError, require
from indexrelay.schemas.loggers import get_logger
from indexrelay.schemas.messages import BuildOutcome, ComponentResult, RebuildResult, RebuildStatus
from indexrelay.schemas.monitoring import NoticeKind, NotificationSettings, NotificationTarget
from indexrelay.schemas.names import shortened

_log = get_logger(__name__)

ROLLED_BACK: Final = "rolled back "
"""What the reason of a release begins with that serves earlier versions again."""


@dataclass(frozen=True, kw_only=True)
class Notice:
    """One thing to tell somebody."""

    kind: NoticeKind
    severity: Severity
    about: str
    """What tells it from others: equal ones of a kind are counted, and their last text is kept."""
    text: str
    advice: str = ""


def notices_of(
    before: Observation | None, seen: Observation, evaluation: Evaluation
) -> Iterator[Notice]:
    """What is new since the look before; ``None``: this is the first one."""
    for alert in evaluation.began:
        yield _of_alert(alert, seen)
    for alert in evaluation.ended:
        yield Notice(
            kind=NoticeKind.RECOVERY,
            severity=alert.rule.severity,
            about=about(alert),
            text=f"over: {alert.summary}",
        )
    known = {} if before is None else before.verdict.components
    failures = {name: health.failures for name, health in known.items()}
    for result in seen.results:
        yield from _of_result(result, failures, seen)
    if before is not None:
        yield from _of_pauses(before, seen)
    yield from _of_rollbacks(seen)


def about(alert: Alert) -> str:
    """What tells the notices of an alert from others."""
    return f"{alert.rule.name} {dict(alert.labels)}"


def _of_alert(alert: Alert, seen: Observation) -> Notice:
    text, advice = described(alert, seen.verdict.problems)
    return Notice(
        kind=NoticeKind.FAILURE,
        severity=alert.rule.severity,
        about=about(alert),
        text=text,
        advice=advice,
    )


def _of_result(
    result: RebuildResult, failures: dict[str, int], seen: Observation
) -> Iterator[Notice]:
    """What a rebuild came to; ``failures``: of each component in a row so far, kept up to date."""
    told = False
    for name, component in result.components.items():
        if name not in seen.facts.definitions:  # Redis is not trusted
            continue
        before = failures.get(name, 0)
        if component.outcome is BuildOutcome.FAILED:
            told = True
            failures[name] = before + 1
            yield _of_failure(name, component)
        elif component.outcome is BuildOutcome.REBUILT and before:
            failures[name] = 0
            yield Notice(
                kind=NoticeKind.RECOVERY,
                severity=Severity.WARNING,
                about=f"build {name}",
                text=f"{name} was built again, after {before} failed build(s)",
            )
    if result.status is RebuildStatus.FAILURE and not told:
        yield Notice(
            kind=NoticeKind.FAILURE,
            severity=Severity.WARNING,
            about="rebuild",
            text=f"a rebuild failed: {result.message}",
        )


def _of_failure(name: str, component: ComponentResult) -> Notice:
    refused = any(not check.passed for check in component.checks)
    what = "was built, and is not released" if refused else "was not built"
    return Notice(
        kind=NoticeKind.REFUSED_GATE if refused else NoticeKind.FAILURE,
        severity=Severity.WARNING,
        about=f"build {name}",
        text=f"{name} {what}: {component.error}",
        advice="its last good version serves; it is tried again by itself"
        if component.transient
        else f"its last good version serves; more of it: {commands.component(name)}",
    )


def _of_pauses(before: Observation, seen: Observation) -> Iterator[Notice]:
    if Area.CATALOG in before.facts.unknown or Area.CATALOG in seen.facts.unknown:
        return
    for name in sorted(seen.facts.paused.keys() - before.facts.paused.keys()):
        yield Notice(
            kind=NoticeKind.PAUSE,
            severity=Severity.WARNING,
            about=f"pause {name}",
            text=f"{name} is paused, and is not built: {seen.facts.paused[name].reason}",
        )
    for name, health in seen.verdict.components.items():
        earlier = before.verdict.components.get(name)
        given_up = health.condition is Condition.FAILED and health.retry_at is None
        same = (
            earlier is not None
            and earlier.condition is Condition.FAILED
            and earlier.retry_at is None
        )
        if given_up and not same:
            yield Notice(
                kind=NoticeKind.PAUSE,
                severity=Severity.CRITICAL,
                about=f"pause {name}",
                text=f"{name} is not tried again by itself: {health.failures} builds in a row "
                f"failed, the last one: {health.error}",
                advice=f"correct the cause, then: {commands.rebuild(name)}",
            )


def _of_rollbacks(seen: Observation) -> Iterator[Notice]:
    for release in seen.releases:
        if not release.reason.startswith(ROLLED_BACK):
            continue
        yield Notice(
            kind=NoticeKind.ROLLBACK,
            severity=Severity.CRITICAL,
            about=f"release {release.number}",
            text=f"release {release.number}: {release.reason}",
            advice=f"it stays so until somebody lifts it: {commands.lift(*sorted(release.holds))}"
            if release.holds
            else "",
        )


Send: TypeAlias = Callable[[str, str], bool]
"""Sends a message, its title and its body; whether the target took it. May raise, and may hang."""
Opener: TypeAlias = Callable[[str, NotificationTarget], Send]
"""Makes that of a target, by its name."""


class TargetUnusableError(IndexRelayError):
    """Raised when a target's URL is one that apprise does not understand."""

    def __init__(self, target: str) -> None:
        super().__init__(
            f"notifications.targets.{target}.url is no URL that apprise understands; its pages "
            "list them: https://appriseit.com/services"
        )
        self.target = target


_SILENCED: Final = ("apprise", "urllib3", "requests", "slixmpp", "paho")
"""Loggers of libraries that may show a URL."""


def open_target(name: str, target: NotificationTarget) -> Send:
    """How messages get to a target.

    Raises:
        TargetUnusableError: its URL is not understood.
        MissingExtraError: apprise is not installed.
    """
    url = target.url.get_secret_value()
    if url.lower().startswith("log://"):
        return lambda title, body: _written(name, title, body)
    for each in _SILENCED:
        logger = logging.getLogger(each)
        logger.setLevel(logging.CRITICAL + 1)
        logger.propagate = False  # apprise lowers its level while it records
    with warnings.catch_warnings():  # it loads all of its services, and some use old modules
        warnings.simplefilter("ignore")
        service = require("apprise").Apprise()
        understood = service.add(url)
    if not understood:
        raise TargetUnusableError(name)
    return lambda title, body: bool(service.notify(title=title, body=body, body_format="text"))


def _written(target: str, title: str, body: str) -> bool:
    _log.warning("notice", target=target, title=title, text=body)
    return True


class Notifier:
    """Hands notices to every target; safe to use from any thread."""

    def __init__(
        self,
        settings: NotificationSettings,
        *,
        namespace: str,
        clock: Clock,
        opener: Opener = open_target,
    ) -> None:
        """A target that cannot be used is logged, and the others are told.

        Args:
            namespace: what the messages call the installation.
            opener: how a target is reached.
        """
        self._queues: list[_Queue] = []
        self._unusable: dict[str, str] = {}
        for name, target in settings.targets.items():
            try:
                send = opener(name, target)
            except Exception as error:  # noqa: BLE001 - whatever a library of a service raises
                ours = isinstance(error, TargetUnusableError | MissingExtraError)
                why = str(error) if ours else _kind(error)
                _log.error("notifications.target_unusable", target=name, error=why)
                self._unusable[name] = f"it cannot be used: {why}"
                continue
            self._queues.append(
                _Queue(name, target, settings, send=send, namespace=namespace, clock=clock)
            )

    def start(self) -> None:
        """Start the threads; safe twice."""
        for each in self._queues:
            each.start()

    def offer(self, notices: Iterable[Notice]) -> None:
        """Hand over notices; returns at once."""
        given = list(notices)
        for each in self._queues:
            each.put(given)

    def unsent(self) -> dict[str, list[dict[str, Any]]]:
        """By target, the notices that it was not told of yet, as JSON has them."""
        return {each.name: found for each in self._queues if (found := each.unsent())}

    def restore(self, unsent: Mapping[str, Any]) -> None:
        """Tell of what another notifier had not sent yet."""
        for each in self._queues:
            each.restore(unsent.get(each.name, ()))

    def forget(self) -> None:
        """Tell of nothing that waits."""
        for each in self._queues:
            each.forget()

    def failing(self) -> dict[str, str]:
        """The targets that cannot be told of anything, and why, in words without a secret."""
        queues = {each.name: each.failing for each in self._queues}
        return self._unusable | {name: why for name, why in queues.items() if why is not None}

    def stop(self) -> None:
        """End the threads; safe twice and before `start`.

        It does not wait for a target that hangs. What was not sent is `unsent`.
        """
        for each in self._queues:
            each.end()
        for each in self._queues:
            each.stop()


_MOST_NOTICES: Final = 200
"""Different ones that wait for a target; further ones are counted."""
_MOST_LINES: Final = 50
_MOST_CHARACTERS: Final = 500
_FAILING: Final = 3
"""Attempts that failed in a row: then a target is not only busy for a moment."""
_IDLE_SECONDS: Final = 3600.0
_FIRST_RETRY_SECONDS, _LONGEST_RETRY_SECONDS = 30.0, 1800.0


@dataclass(frozen=True)
class _Waiting:
    notice: Notice
    count: int

    def to_json(self) -> dict[str, Any]:
        notice = self.notice
        return {
            "kind": str(notice.kind),
            "severity": str(notice.severity),
            "about": without_secrets(notice.about),
            "text": shortened(without_secrets(notice.text), _MOST_CHARACTERS),
            "advice": notice.advice,
            "count": self.count,
        }

    @classmethod
    def of_json(cls, kept: Mapping[str, Any]) -> Self:
        """Raises KeyError, ValueError: it is none."""
        notice = Notice(
            kind=NoticeKind(kept["kind"]),
            severity=Severity(kept["severity"]),
            about=str(kept["about"]),
            text=str(kept["text"]),
            advice=str(kept["advice"]),
        )
        return cls(notice, int(kept["count"]))


class _Queue:
    """What waits for one target, and the thread that sends it."""

    def __init__(
        self,
        name: str,
        target: NotificationTarget,
        settings: NotificationSettings,
        *,
        send: Send,
        namespace: str,
        clock: Clock,
    ) -> None:
        self.name = name
        self._target = target
        self._settings = settings
        self._send = send
        self.namespace = namespace
        self._clock = clock
        self._lock = threading.Lock()
        self._waiting: dict[tuple[NoticeKind, str], _Waiting] = {}
        self._leaving: Iterable[_Waiting] = ()
        """What is on its way."""
        self._forgotten = 0
        """How often what waits was dropped: what was on its way then is not sent again."""
        self._dropped = 0
        self._due_at: float | None = None
        """When the next message may go; ``None``: nothing was sent, and nothing waits."""
        self._failures = 0
        self._attempt: _Attempt | None = None
        self._ended = False
        self._background = Background(self.turn, name=f"notifications-{name}")

    @property
    def failing(self) -> str | None:
        """Why nothing gets there, as far as several attempts or a long one show it."""
        attempt = self._attempt
        if self._failures and attempt is not None and attempt.is_alive():
            return "a message hangs, and no other is sent until it ends"
        if self._failures >= _FAILING:
            return f"{self._failures} attempts in a row failed"
        return None

    def start(self) -> None:
        self._background.start()

    def end(self) -> None:
        self._ended = True
        self._background.end()
        attempt = self._attempt
        if attempt is not None:
            attempt.ended.set()

    def stop(self) -> None:
        self._background.stop()

    def put(self, notices: Iterable[Notice]) -> None:
        """Have them sent, as far as this target is told of such."""
        wanted = [each for each in notices if self._wants(each)]
        if not wanted:
            return
        with self._lock:
            for each in wanted:
                self._add(_Waiting(each, 1))
            if self._due_at is None:
                self._due_at = self._clock.monotonic() + self._settings.group_seconds
        self._background.wake()

    def unsent(self) -> list[dict[str, Any]]:
        """What waits, or is on its way."""
        with self._lock:
            return [each.to_json() for each in (*self._leaving, *self._waiting.values())]

    def restore(self, kept: Iterable[Mapping[str, Any]]) -> None:
        """Have these sent before anything else."""
        found = [_Waiting.of_json(each) for each in kept]
        if not found:
            return
        with self._lock:
            later, self._waiting = self._waiting, {}
            for each in (*found, *later.values()):
                self._add(each)
            if self._due_at is None:
                self._due_at = self._clock.monotonic() + self._settings.group_seconds
        self._background.wake()

    def forget(self) -> None:
        """Drop what waits; what is on its way now is tried no second time."""
        with self._lock:
            self._waiting, self._leaving, self._dropped = {}, (), 0
            self._forgotten += 1

    def _wants(self, notice: Notice) -> bool:
        severe = notice.severity is Severity.CRITICAL or self._target.least == "warning"
        return severe and notice.kind in self._target.kinds

    def _add(self, new: _Waiting) -> None:
        key = (new.notice.kind, new.notice.about)
        before = self._waiting.get(key)
        if before is not None:
            self._waiting[key] = _Waiting(new.notice, before.count + new.count)
        elif len(self._waiting) < _MOST_NOTICES:
            self._waiting[key] = new
        else:
            self._dropped += new.count

    def turn(self) -> float:
        """Send what is due; returns the seconds until the next turn."""
        attempt = self._attempt
        if attempt is not None and attempt.is_alive():
            return self._settings.timeout_seconds  # one that hangs is enough
        self._attempt = None
        with self._lock:
            now = self._clock.monotonic()
            if self._due_at is None:
                return _IDLE_SECONDS
            if now < self._due_at:
                return self._due_at - now
            if not self._waiting:
                self._due_at = None
                return _IDLE_SECONDS
            taken, dropped = self._waiting, self._dropped
            self._waiting, self._dropped = {}, 0
            self._leaving = tuple(taken.values())
            forgotten = self._forgotten
        title, body = message_of(taken.values(), dropped, namespace=self.namespace)
        attempt = self._attempt = _Attempt(self._send, title, body, name=self.name)
        if self._ended:  # `end` may not have seen it
            attempt.ended.set()
        error = attempt.wait(self._settings.timeout_seconds)
        with self._lock:
            now, self._leaving = self._clock.monotonic(), ()
            if error is None:
                self._failures = 0
                self._due_at = now + self._settings.interval_seconds
                return self._settings.interval_seconds
            self._failures += 1
            if forgotten == self._forgotten:
                later, self._waiting = self._waiting, taken
                self._dropped += dropped
                for each in later.values():
                    self._add(each)
            pause = backoff_seconds(
                self._failures,
                first=_FIRST_RETRY_SECONDS,
                longest=_LONGEST_RETRY_SECONDS,
                key=self.name,
            )
            self._due_at = now + pause
        _log.warning(
            "notifications.not_sent",
            target=self.name,
            error=error,
            notices=len(taken),
            again_in_seconds=round(pause, 3),
        )
        return pause


class _Attempt(threading.Thread):
    """One message on its way, on a thread of its own, since it may hang."""

    def __init__(self, send: Send, title: str, body: str, *, name: str) -> None:
        super().__init__(name=f"indexrelay-notice-{name}", daemon=True)
        self._send, self._title, self._body = send, title, body
        self._result: tuple[str | None] | None = None
        """What went wrong, once it has ended."""
        self.ended = threading.Event()
        """Set when it has ended, or is not to be waited for any more."""

    def run(self) -> None:
        """Send it."""
        try:
            taken = self._send(self._title, self._body)
            self._result = (None if taken else "the target did not take the message",)
        except BaseException as error:  # noqa: BLE001 - reported by its kind
            self._result = (_kind(error),)
        finally:
            self.ended.set()

    def wait(self, seconds: float) -> str | None:
        """Begin, and wait; what went wrong, in words without a secret, or ``None``."""
        self.start()
        self.ended.wait(seconds)
        return f"no answer within {seconds:g} s" if self._result is None else self._result[0]


def _kind(error: BaseException) -> str:
    """An error without its text, which may hold the URL."""
    return type(error).__name__


_PLURALS: Final[Mapping[NoticeKind, tuple[str, str]]] = {
    NoticeKind.FAILURE: ("failure", "failures"),
    NoticeKind.ROLLBACK: ("rollback", "rollbacks"),
    NoticeKind.REFUSED_GATE: ("refused version", "refused versions"),
    NoticeKind.PAUSE: ("pause", "pauses"),
    NoticeKind.RECOVERY: ("recovery", "recoveries"),
}
"""One and several of each kind, in the order in which a message lists them."""


def message_of(waiting: Iterable[_Waiting], dropped: int = 0, *, namespace: str) -> tuple[str, str]:
    """Title and body of one message about all of these."""
    found = sorted(
        waiting,
        key=lambda each: (
            each.notice.severity is not Severity.CRITICAL,
            list(_PLURALS).index(each.notice.kind),
        ),
    )
    kinds = [each.notice.kind for each in found]
    counts = [
        f"{kinds.count(kind)} {words[kinds.count(kind) > 1]}"
        for kind, words in _PLURALS.items()
        if kind in kinds
    ]
    lines = []
    for each in found[:_MOST_LINES]:
        notice = each.notice
        times = f" ({each.count} times)" if each.count > 1 else ""
        text = shortened(without_secrets(notice.text), _MOST_CHARACTERS)
        lines.append(f"[{notice.severity}] {text}{times}")
        if notice.advice:
            lines.append(f"    {notice.advice}")
    more = len(found) - _MOST_LINES + dropped if len(found) > _MOST_LINES else dropped
    if more:
        lines.append(f"and {more} more: {commands.STATUS}")
    return f"indexrelay {namespace}: {', '.join(counts)}", "\n".join(lines)
