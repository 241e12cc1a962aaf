"""The monitor: looks, evaluates the alerts, calls people, and answers at its port.

It is a duty of the operator, and runs beside a rebuilder that has a port. One look serves all:
``/metrics``, ``/health``, the alerts and the notices say the same. Its port answers from the last
look; where that is too old, since a database hangs, ``/health`` says so, and whoever is told of
alerts is told of that by another thread.
"""

import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, Final, Literal, TypeAlias

from indexrelay.health.status import Severity
from indexrelay.operations.alerts import (
    NOT_LOOKED_AT,
    Alert,
    Evaluation,
    Evaluator,
    described,
    late_after,
    rules,
)
from indexrelay.operations.metrics import CONTENT_TYPE, page_of, samples_of
from indexrelay.operations.notice_lease import NoticeLease
from indexrelay.operations.notifications import Notice, Notifier, about, notices_of
from indexrelay.operations.observer import Observation, Observer
from indexrelay.operations.server import MonitoringServer, Page, problem
from indexrelay.operations.service import LONGEST_TURN_SECONDS
from indexrelay.schemas import commands
from indexrelay.schemas.clock import Background, Clock
from indexrelay.schemas.diagnostics import describe_error
from indexrelay.schemas.loggers import LogOnce, get_logger
from indexrelay.schemas.monitoring import NoticeKind
from indexrelay.schemas.names import sha256_hex
from indexrelay.schemas.settings import Settings
from indexrelay.storage.artifacts import ArtifactStore
from indexrelay.storage.catalog import Catalog
from indexrelay.streams import Connection

_log = get_logger(__name__)
Role: TypeAlias = Literal["operator", "rebuilder"]
_MOST_UNTOLD: Final = 200
STATUSES: Final = ("healthy", "warning", "critical")


@dataclass(frozen=True, kw_only=True)
class Look:
    """One look, and what follows from it."""

    seen: Observation
    evaluation: Evaluation


class Looker:
    """Looks and evaluates the rules, once or again and again; for use by one thread."""

    def __init__(
        self,
        settings: Settings,
        *,
        catalog: Catalog,
        store: ArtifactStore,
        connection: Callable[[], Connection],
        clock: Clock,
    ) -> None:
        """What is handed in stays the caller's to close."""
        self.rules = rules(settings.alerts, look_seconds=settings.monitoring.look_seconds)
        self._observer = Observer(
            settings, catalog=catalog, store=store, connection=connection, clock=clock
        )
        self.evaluator = Evaluator(self.rules)

    def look(self) -> Look:
        """Look once; never raises for what cannot be read."""
        seen = self._observer.look()
        found = self.evaluator.evaluate(
            samples_of(seen), seen.at.timestamp(), complete=seen.complete
        )
        return Look(seen=seen, evaluation=found)


class Monitor:
    """Watches one installation; a `Duty`. `turn` belongs to one thread."""

    def __init__(
        self,
        settings: Settings,
        *,
        catalog: Catalog,
        store: ArtifactStore,
        connection: Callable[[], Connection],
        clock: Clock,
        role: Role,
        notifier: Notifier | None = None,
        settings_refused: Callable[[], str | None] = lambda: None,
    ) -> None:
        """What is handed in stays the caller's to close; a notifier is started and stopped here.

        Args:
            role: whose port it answers at, if the settings name one.
            notifier: whom to tell; ``None``: the targets of the settings, where the role is the
                operator.
            settings_refused: why settings that were read again are refused; ``None``: they are not.
        """
        self._settings = settings
        self._settings_refused = settings_refused
        self._clock = clock
        self._role = role
        self._looker = Looker(
            settings, catalog=catalog, store=store, connection=connection, clock=clock
        )
        targets = settings.notifications.targets
        if notifier is None and role == "operator" and targets:
            notifier = Notifier(settings.notifications, namespace=settings.namespace, clock=clock)
        self._notifier = notifier
        self._lease = None
        if role == "operator":
            self._lease = NoticeLease(
                catalog.notices,
                clock,
                lease_seconds=late_after(settings.monitoring.look_seconds),
            )
        self._untold: list[tuple[int, Notice]] = []
        """What the operator that tells may not have come to, each with its count of looks then."""
        self._told: list[tuple[float, str]] = []
        """What this one has told of lately, each with the time, by what others know it by."""
        address = getattr(settings.monitoring, role)
        self._server = (
            None
            if address is None
            else MonitoringServer(
                address, self._page, token_sha256=settings.monitoring.token_sha256
            )
        )
        self._last: Look | None = None
        self._metrics = b""
        self._looked_at = clock.monotonic()
        self._not_listening = LogOnce()
        self._known_failing: frozenset[str] = frozenset()
        self._logged_failing: frozenset[str] = frozenset()
        self._told_late = False
        self._telling = threading.Lock()
        self._watch = Background(self.watch, name="monitoring-watch")

    @property
    def name(self) -> str:
        """What the duty is called."""
        return "monitoring"

    @property
    def longest_turn_seconds(self) -> float:
        """After which a look counts as hanging."""
        return LONGEST_TURN_SECONDS

    @property
    def port(self) -> int:
        """The port that it answers at; 0: none, or not yet."""
        return 0 if self._server is None else self._server.port

    def turn(self) -> float:
        """Look once, and tell who wants to know; the seconds until the next look."""
        if self._notifier is not None:
            self._notifier.start()
            self._watch.start()
        if self._lease is not None:
            self._lease.look(self._take_over)
        before, look = self._last, self._looker.look()
        self._metrics = page_of(look.seen)  # before anybody who asks may see the look
        self._last, self._looked_at = look, self._clock.monotonic()
        self._listen()
        if self._notifier is not None:
            self._tell_whether_late(self._notifier)
            earlier = None if before is None else before.seen
            self._tell(self._notifier, list(notices_of(earlier, look.seen, look.evaluation)), look)
            self._tell_others(self._notifier)
        self._save(look.seen.at.timestamp())
        return self._settings.monitoring.look_seconds

    def watch(self) -> float:
        """Tell where a look does not end; the seconds until the next time. It has a thread of its
        own beside `turn`."""
        if self._notifier is not None:
            self._tell_whether_late(self._notifier)
        return self._settings.monitoring.look_seconds

    def stop(self) -> None:
        """Close the port, and end the notifier; safe twice, and before the first turn."""
        self._watch.stop()
        if self._server is not None:
            self._server.stop()
        if self._notifier is not None:
            self._notifier.stop()
        if self._lease is not None:
            self._lease.give_back(self._kept(self._clock.now().timestamp()))

    @property
    def _tells(self) -> bool:
        """Whether this one sends notices."""
        return self._lease is None or self._lease.tells

    def _take_over(self, kept: dict[str, Any]) -> None:
        """Go on with what the operator has kept that told before."""
        try:
            told = {known for _, known in kept.get("told", ())}
            self._known_failing = frozenset(map(str, kept.get("failing", ())))
            self._untold = [each for each in self._untold if _known_by(each[1]) not in told]
            self._looker.evaluator.restore(kept.get("alerts", {}), self._clock.now().timestamp())
            if self._notifier is not None:
                self._notifier.restore(kept.get("unsent", {}))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            _log.warning("notices.not_understood", error=describe_error(error))

    def _save(self, at: float) -> None:
        """Write down what the operator goes on with that tells next."""
        if self._lease is None or self._lease.save(self._kept(at)) or self._notifier is None:
            return
        self._notifier.forget()  # another one tells, and has taken over what waited

    def _kept(self, at: float) -> dict[str, Any]:
        """What the operator goes on with that tells next."""
        unsent = {} if self._notifier is None else self._notifier.unsent()
        alerts = self._looker.evaluator.kept(at)
        return {
            "alerts": alerts,
            "unsent": unsent,
            "told": [[*each] for each in self._told],
            "failing": sorted(self._known_failing),
        }

    def _tell(self, notifier: Notifier, notices: list[Notice], look: Look) -> None:
        """Hand over what is new; or keep what the operator that tells may not come to.

        Of alerts that begin and end nothing has to be kept: whoever takes over goes on with what
        they were for the other one.
        """
        if self._lease is None or self._lease.tells:
            at = look.seen.at.timestamp()
            given = [*(notice for _, notice in self._untold), *notices]
            self._untold.clear()
            notifier.offer(given)
            oldest = at - 2 * late_after(self._settings.monitoring.look_seconds)
            told = [*self._told, *((at, _known_by(each)) for each in given)]
            self._told = [each for each in told if each[0] >= oldest][-_MOST_UNTOLD:]
            return
        beat = self._lease.other_beat
        of_alerts = {about(each) for each in (*look.evaluation.began, *look.evaluation.ended)}
        self._untold += [(beat, each) for each in notices if each.about not in of_alerts]
        # The first look after this one may have begun before it; the second has seen the same.
        self._untold = [each for each in self._untold if each[0] + 2 > beat][-_MOST_UNTOLD:]

    def _late_seconds(self) -> float | None:
        """The age of the last look, where the next one should long have ended."""
        age = self._clock.monotonic() - self._looked_at
        return age if age > late_after(self._settings.monitoring.look_seconds) else None

    def _tell_whether_late(self, notifier: Notifier) -> None:
        """Tell of a look that does not end, and that one has ended again, once each."""
        with self._telling:
            late = self._late_seconds()
            if (late is not None) is self._told_late:
                return
            if late is not None and not (self._tells or self._others_are_silent()):
                return  # another one looks, and tells
            self._told_late = late is not None
            notifier.offer(
                [
                    Notice(
                        kind=NoticeKind.RECOVERY if late is None else NoticeKind.FAILURE,
                        severity=Severity.CRITICAL,
                        about="NotLookedAt",
                        text="it is looked again" if late is None else _late_words(late),
                        advice="" if late is None else NOT_LOOKED_AT,
                    )
                ]
            )

    def _others_are_silent(self) -> bool:
        return self._lease is None or self._lease.is_holder_silent()

    def _tell_others(self, notifier: Notifier) -> None:
        """Log that a target gets nothing; and tell the others once, however many operators see it,
        and whenever one begins again: it lasts, so whoever takes over sees it then."""
        failing = notifier.failing()
        for name in sorted(failing.keys() - self._logged_failing):
            _log.error("notifications.target_failing", target=name, error=failing[name])
        self._logged_failing = frozenset(failing)
        if not self._tells:
            return
        new, self._known_failing = failing.keys() - self._known_failing, frozenset(failing)
        notifier.offer(
            Notice(
                kind=NoticeKind.FAILURE,
                severity=Severity.WARNING,
                about=f"TargetFailing {name}",
                text=_untold_words(name, failing[name]),
                advice=_UNTOLD,
            )
            for name in sorted(new)
        )

    def _listen(self) -> None:
        """Open the port; where it is taken, looks go on, and the next one tries again."""
        if self._server is None:
            return
        failed: dict[str, str] = {}
        try:
            self._server.start()
        except OSError as error:
            failed["port"] = str(error)
        for why in self._not_listening.new(failed).values():
            address = getattr(self._settings.monitoring, self._role)
            _log.error("monitoring.not_listening", address=address, error=why)

    def _page(self, path: str) -> Page | None:
        """The answer to a path; on any thread."""
        last = self._last
        if last is None:  # the port is opened after the first look
            return problem(503, "nothing was looked at yet")
        if path == "/metrics":
            return 200, CONTENT_TYPE, self._metrics
        if path != "/health":
            return None
        document = health_document(
            last,
            component=self._role,
            late_seconds=self._late_seconds(),
            untold={} if self._notifier is None else self._notifier.failing(),
            refused=self._settings_refused(),
        )
        status = 503 if document["status"] == "critical" else 200
        return status, "application/json", json.dumps(document).encode()


def _known_by(notice: Notice) -> str:
    """What another operator knows the same notice by."""
    return sha256_hex(f"{notice.kind} {notice.about} {notice.text}".encode())[:16]


def health_document(
    look: Look,
    *,
    component: str,
    late_seconds: float | None = None,
    untold: Mapping[str, str] = MappingProxyType({}),
    refused: str | None = None,
    pending: bool = False,
) -> dict[str, Any]:
    """What ``/health`` answers: the worst of the alerts decides the status.

    Args:
        component: who answers.
        late_seconds: the age of the look, where the next one should long have come.
        untold: the targets that cannot be told of anything, and why.
        refused: why settings that this process read again are refused; ``None``: they are not.
        pending: whether alerts count that hold, and not for long enough yet: where nobody looks
            again.
    """
    held = look.evaluation.active if pending else look.evaluation.firing
    alerts = [_shown(each, look.seen) for each in held]
    if late_seconds is not None:
        alerts.append(_late(late_seconds, look.seen.at))
    alerts += [_untold(name, why, look.seen.at) for name, why in sorted(untold.items())]
    if refused is not None:
        alerts.append(_refused(refused, look.seen.at))
    counts = {
        str(severity): sum(each["severity"] == severity for each in alerts)
        for severity in (Severity.CRITICAL, Severity.WARNING)
    }
    worst = 2 if counts["critical"] else 1 if counts["warning"] else 0
    return {
        "status": STATUSES[worst],
        "timestamp": look.seen.at.isoformat(),
        "component": component,
        "active_alerts": alerts,
        "alert_counts": counts,
    }


def _shown(alert: Alert, seen: Observation) -> dict[str, Any]:
    summary, advice = described(alert, seen.verdict.problems)
    return {
        "name": alert.rule.name,
        "severity": str(alert.rule.severity),
        "labels": dict(alert.labels),
        "summary": summary,
        "advice": advice,
        "since": datetime.fromtimestamp(alert.since, UTC).isoformat(),
    }


def _late(seconds: float, at: datetime) -> dict[str, Any]:
    return {
        "name": "NotLookedAt",
        "severity": str(Severity.CRITICAL),
        "labels": {},
        "summary": _late_words(seconds),
        "advice": NOT_LOOKED_AT,
        "since": at.isoformat(),
    }


def _untold(name: str, why: str, at: datetime) -> dict[str, Any]:
    return {
        "name": "TargetFailing",
        "severity": str(Severity.WARNING),
        "labels": {"target": name},
        "summary": _untold_words(name, why),
        "advice": _UNTOLD,
        "since": at.isoformat(),
    }


def _untold_words(name: str, why: str) -> str:
    return f"target {name} is told of nothing: {why}"


def _refused(why: str, at: datetime) -> dict[str, Any]:
    return {
        "name": "SettingsRefused",
        "severity": str(Severity.WARNING),
        "labels": {},
        "summary": f"it keeps the settings that it had: {why}",
        "advice": f"correct them, and have it read them again (SIGHUP): {commands.CHECK_SETTINGS}",
        "since": at.isoformat(),
    }


_UNTOLD: Final = (
    "see what the operator's log says of it (notifications.not_sent), and correct "
    "[notifications.targets]; an operator that is started anew begins without what hangs"
)


def _late_words(seconds: float) -> str:
    return f"the last look is {seconds:.0f} s old: the next one has not ended"
