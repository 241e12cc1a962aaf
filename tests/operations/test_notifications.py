"""Notices: grouped, not too often, never in anybody's way, and without a secret in a log."""

import base64
import http.server
import json
import logging
import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest

from indexrelay.health.judge import judge
from indexrelay.health.status import Severity
from indexrelay.operations.alerts import Evaluation
from indexrelay.operations.notifications import (
    Notice,
    Notifier,
    Send,
    TargetUnusableError,
    message_of,
    notices_of,
    open_target,
)
from indexrelay.operations.observer import Observation
from indexrelay.schemas.clock import SystemClock
from indexrelay.schemas.messages import (
    BuildOutcome,
    ComponentResult,
    RebuildResult,
    RebuildStatus,
)
from indexrelay.schemas.monitoring import (
    NoticeKind,
    NotificationSettings,
    NotificationTarget,
)
from indexrelay.schemas.versions import Check
from indexrelay.testing import FakeClock
from tests.health.healthy_facts import NOW, healthy

SECRET = "s3cr3t-of-the-target"


def notice(about: str = "a", **changes: Any) -> Notice:
    fields: dict[str, Any] = {
        "kind": NoticeKind.FAILURE,
        "severity": Severity.WARNING,
        "about": about,
        "text": f"{about} failed",
    }
    return Notice(**{**fields, **changes})


class Desk:
    """Notifiers whose targets are functions, under a clock that is moved by hand."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.sent: list[tuple[str, str, str]] = []
        self.takes = True

    def notifier(self, targets: dict[str, dict[str, Any]], **settings: Any) -> Notifier:
        return Notifier(
            NotificationSettings(
                targets={
                    name: NotificationTarget.model_validate({"url": "log://", **each})
                    for name, each in targets.items()
                },
                **settings,
            ),
            namespace="shop",
            clock=self.clock,
            opener=self._open,
        )

    def _open(self, name: str, _target: NotificationTarget) -> Send:
        def send(title: str, body: str) -> bool:
            if self.takes:
                self.sent.append((name, title, body))
            return self.takes

        return send

    def take(self) -> list[tuple[str, str, str]]:
        taken, self.sent = self.sent, []
        return taken


@pytest.fixture
def desk() -> Desk:
    return Desk()


def turn(notifier: Notifier) -> float:
    """Let every target send what is due; the shortest wait until the next turn."""
    return min(each.turn() for each in notifier._queues)


def test_what_fails_together_comes_together_and_then_nothing_for_a_while(desk: Desk) -> None:
    notifier = desk.notifier({"ops": {}}, group_seconds=10, interval_seconds=300)
    notifier.offer([notice("a")])
    desk.clock.advance(9)
    notifier.offer([notice("b", advice="look there"), notice("a", text="a failed again")])
    assert turn(notifier) == 1
    assert desk.take() == []
    desk.clock.advance(1)
    assert turn(notifier) == 300
    ((_, title, body),) = desk.take()
    assert title == "indexrelay shop: 2 failures"
    assert body.splitlines() == [
        "[warning] a failed again (2 times)",
        "[warning] b failed",
        "    look there",
    ]
    notifier.offer([notice("c")])
    desk.clock.advance(299)
    assert turn(notifier) == 1
    assert desk.take() == []
    desk.clock.advance(1)
    turn(notifier)
    assert [body for _, _, body in desk.take()] == ["[warning] c failed"]


def test_after_a_quiet_time_the_first_notice_waits_for_its_group_only(desk: Desk) -> None:
    notifier = desk.notifier({"ops": {}}, group_seconds=10, interval_seconds=300)
    notifier.offer([notice()])
    desk.clock.advance(10)
    turn(notifier)
    desk.clock.advance(1000)
    turn(notifier)
    desk.take()
    notifier.offer([notice()])
    assert turn(notifier) == 10
    desk.clock.advance(10)
    turn(notifier)
    assert len(desk.take()) == 1


def test_a_target_is_told_of_what_it_asks_for_only(desk: Desk) -> None:
    targets: dict[str, dict[str, Any]] = {
        "everything": {},
        "night": {"least": "critical"},
        "releases": {"kinds": ["rollback", "refused_gate"]},
    }
    notifier = desk.notifier(targets, group_seconds=0)
    notifier.offer(
        [
            notice("a"),
            notice("b", severity=Severity.CRITICAL),
            notice("c", kind=NoticeKind.REFUSED_GATE),
        ]
    )
    turn(notifier)
    assert {name: len(body.splitlines()) for name, _, body in desk.take()} == {
        "everything": 3,
        "night": 1,
        "releases": 1,
    }


def test_what_was_not_taken_is_sent_again_with_what_came_since(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    notifier = desk.notifier({"ops": {}}, group_seconds=0)
    desk.takes = False
    notifier.offer([notice("a")])
    pause = turn(notifier)
    notifier.offer([notice("a"), notice("b")])
    assert "not_sent" in caplog.text
    assert 24 <= pause <= 36
    desk.clock.advance(pause)
    assert turn(notifier) > pause
    desk.takes = True
    desk.clock.advance(100)
    turn(notifier)
    ((_, _, body),) = desk.take()
    assert body.splitlines() == ["[warning] a failed (2 times)", "[warning] b failed"]


def test_what_is_on_its_way_when_another_operator_takes_over_is_sent_no_second_time() -> None:
    clock = FakeClock()
    tried: list[str] = []

    def opener(_name: str, _target: NotificationTarget) -> Send:
        def send(_title: str, body: str) -> bool:
            tried.append(body)
            notifier.forget()  # it holds the lease no more
            return False

        return send

    notifier = Notifier(
        NotificationSettings(
            targets={"ops": NotificationTarget.model_validate({"url": "log://"})}, group_seconds=0
        ),
        namespace="shop",
        clock=clock,
        opener=opener,
    )
    notifier.offer([notice("a")])
    clock.advance(turn(notifier))
    assert notifier.unsent() == {}
    turn(notifier)
    assert len(tried) == 1


def test_a_flood_of_notices_takes_a_bounded_amount_of_memory_and_says_how_many(
    desk: Desk,
) -> None:
    notifier = desk.notifier({"ops": {}}, group_seconds=0)
    notifier.offer(notice(str(each), text="x" * 10_000) for each in range(1000))
    turn(notifier)
    ((_, title, body),) = desk.take()
    assert title == "indexrelay shop: 200 failures"
    assert body.splitlines()[-1] == "and 950 more: indexrelay status"
    assert len(body) < 50 * 600


def test_a_message_lists_what_is_critical_first_and_holds_no_password() -> None:
    class Waiting:
        def __init__(self, given: Notice) -> None:
            self.notice, self.count = given, 1

    found: Any = [
        Waiting(notice("a", kind=NoticeKind.RECOVERY, text="over")),
        Waiting(notice("b", text=f"postgresql://me:{SECRET}@db: refused")),
        Waiting(notice("c", kind=NoticeKind.PAUSE, severity=Severity.CRITICAL, text="given up")),
    ]
    title, body = message_of(found, namespace="shop")
    assert title == "indexrelay shop: 1 failure, 1 pause, 1 recovery"
    assert [line.split()[0] for line in body.splitlines()] == [
        "[critical]",
        "[warning]",
        "[warning]",
    ]
    assert SECRET not in body


# Real targets


class Hook(http.server.BaseHTTPRequestHandler):
    """A web hook that takes, refuses or keeps silent."""

    bodies: list[dict[str, Any]]
    status = 200
    go_on: threading.Event

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if not self.go_on.wait(20):
            return
        self.bodies.append(json.loads(body))
        self.send_response(self.status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args: Any) -> None: ...


@contextmanager
def hook(*, status: int = 200, hangs: bool = False) -> Iterator[tuple[str, Any]]:
    go_on = threading.Event()
    if not hangs:
        go_on.set()
    kept: Any = type("Kept", (Hook,), {"bodies": [], "status": status, "go_on": go_on})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), kept)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"json://me:{SECRET}@127.0.0.1:{server.server_address[1]}/{SECRET}", kept
    finally:
        go_on.set()
        server.shutdown()
        thread.join()
        server.server_close()


class Mail:
    """A server of SMTP (RFC 5321) for one message; or one that says nothing."""

    def __init__(self, *, hangs: bool = False, refuses: bool = False) -> None:
        self.hangs, self.refuses = hangs, refuses
        self.text = ""
        self.done = threading.Event()
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    @property
    def url(self) -> str:
        port = self._socket.getsockname()[1]
        people = "from=indexrelay@example.com&to=ops@example.com"
        return f"mailto://me:{SECRET}@127.0.0.1:{port}/?{people}"

    def close(self) -> None:
        self.done.set()
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join()

    def _serve(self) -> None:
        try:
            connection, _ = self._socket.accept()
        except OSError:
            return
        with connection, connection.makefile("rwb", buffering=0) as lines:
            if self.hangs:
                self.done.wait(20)
                return
            self._speak(lines)

    def _speak(self, lines: Any) -> None:
        lines.write(b"220 ready\r\n")
        while line := lines.readline():
            word = line.split()[0].upper()
            if word == b"EHLO":
                lines.write(b"250-here\r\n250 AUTH PLAIN\r\n")
            elif word == b"AUTH":
                assert SECRET.encode() in base64.b64decode(line.split()[2])
                lines.write(b"535 no\r\n" if self.refuses else b"235 yes\r\n")
            elif word == b"DATA":
                lines.write(b"354 go on\r\n")
                while (line := lines.readline()) not in (b".\r\n", b""):
                    self.text += line.decode()
                lines.write(b"250 taken\r\n")
            elif word == b"QUIT":
                lines.write(b"221 bye\r\n")
                return
            else:
                lines.write(b"250 fine\r\n")


@contextmanager
def everything_logged(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """As under ``log.level = "debug"``: whatever any library logs is kept."""
    with caplog.at_level(logging.DEBUG):
        for name in ("apprise", "urllib3", "requests"):
            logging.getLogger(name).setLevel(logging.NOTSET)
        yield


def told(url: str, *, timeout_seconds: float = 10.0) -> tuple[Notifier, Callable[[], float]]:
    notifier = Notifier(
        NotificationSettings(
            targets={"ops": NotificationTarget.model_validate({"url": url})},
            group_seconds=0,
            timeout_seconds=timeout_seconds,
        ),
        namespace="shop",
        clock=SystemClock(),
    )
    notifier.offer([notice("songs")])
    return notifier, lambda: turn(notifier)


def test_a_web_hook_gets_the_message_and_no_log_gets_its_secret(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with everything_logged(caplog), hook() as (url, kept):
        told(url)[1]()
    (body,) = kept.bodies
    assert (body["title"], body["message"]) == (
        "indexrelay shop: 1 failure",
        "[warning] songs failed",
    )
    assert SECRET not in caplog.text


def test_mail_is_sent_and_no_log_gets_its_password(caplog: pytest.LogCaptureFixture) -> None:
    mail = Mail()
    try:
        with everything_logged(caplog):
            told(mail.url)[1]()
    finally:
        mail.close()
    assert "Subject: indexrelay shop: 1 failure" in mail.text
    text = re.sub(r"=\r?\n", "", mail.text)
    assert "songs failed" in text or base64.b64encode(b"[warning] songs").decode()[:16] in text
    assert SECRET not in caplog.text


@pytest.mark.parametrize("sort", ["hook refuses", "mail refuses", "nobody listens"])
def test_a_target_that_refuses_is_named_without_its_secret_and_tried_again(
    sort: str, caplog: pytest.LogCaptureFixture
) -> None:
    mail = Mail(refuses=True)
    try:
        with everything_logged(caplog), hook(status=500) as (url, _):
            nobody = f"json://127.0.0.1:1/{SECRET}"
            urls = {"hook refuses": url, "mail refuses": mail.url, "nobody listens": nobody}
            assert 20 < told(urls[sort])[1]() < 40
    finally:
        mail.close()
    assert "notifications.not_sent target='ops'" in caplog.text
    assert SECRET not in caplog.text


@pytest.mark.parametrize("sort", ["hook", "mail"])
def test_a_target_that_hangs_costs_one_thread_and_the_others_are_told(
    sort: str, caplog: pytest.LogCaptureFixture
) -> None:
    mail = Mail(hangs=True)
    try:
        with everything_logged(caplog), hook(hangs=True) as (url, _):
            hanging = url if sort == "hook" else mail.url
            notifier, act = told(hanging, timeout_seconds=0.05)
            assert act() > 20
            attempt = notifier._queues[0]._attempt
            assert attempt is not None
            notifier.offer([notice("another")])
            act()
            assert notifier._queues[0]._attempt is attempt  # no second one beside it
            assert attempt.is_alive()
            notifier.start()
            notifier.stop()  # does not wait for it
            assert attempt.is_alive()
    finally:
        mail.close()
    attempt.join(10)
    assert "no answer within 0.05 s" in caplog.text
    assert SECRET not in caplog.text


def test_notices_are_sent_by_a_thread_of_the_target_while_another_hangs() -> None:
    hangs, arrived = threading.Event(), threading.Event()

    def opener(name: str, _target: NotificationTarget) -> Send:
        def send(_title: str, _body: str) -> bool:
            if name == "slow":
                return hangs.wait(20)
            arrived.set()
            return True

        return send

    target = NotificationTarget.model_validate({"url": "log://"})
    settings = NotificationSettings(targets={"slow": target, "ops": target}, group_seconds=0)
    notifier = Notifier(settings, namespace="shop", clock=SystemClock(), opener=opener)
    notifier.start()
    notifier.offer([notice()])
    assert arrived.wait(20)
    notifier.stop()
    notifier.stop()
    hangs.set()


def test_a_message_that_begins_as_its_target_ends_is_not_waited_for() -> None:
    hangs = threading.Event()
    target = NotificationTarget.model_validate({"url": "log://"})
    notifier = Notifier(
        NotificationSettings(targets={"ops": target}, group_seconds=0, timeout_seconds=1000),
        namespace="shop",
        clock=SystemClock(),
        opener=lambda _name, _target: lambda _title, _body: hangs.wait(60),
    )
    notifier.offer([notice()])
    (queue,) = notifier._queues
    queue.end()
    queue.turn()  # returns, although the target hangs and has a long time
    hangs.set()


def test_a_target_that_cannot_be_used_is_named_and_the_others_are_told(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    bad = NotificationTarget.model_validate({"url": f"nosuch://{SECRET}"})
    with pytest.raises(TargetUnusableError, match=r"notifications\.targets\.ops\.url"):
        open_target("ops", bad)
    targets = {"bad": bad, "good": NotificationTarget.model_validate({"url": "log://"})}
    notifier = Notifier(
        NotificationSettings(targets=targets, group_seconds=0), namespace="shop", clock=desk.clock
    )
    assert "target='bad'" in caplog.text
    caplog.clear()
    notifier.offer([notice()])
    turn(notifier)
    assert "title='indexrelay shop: 1 failure'" in caplog.text
    assert SECRET not in caplog.text


# What is new at a look


def seen(*results: RebuildResult, **changes: Any) -> Observation:
    facts = healthy(**changes)
    return Observation(facts=facts, verdict=judge(facts), results=results)


def result(**components: ComponentResult) -> RebuildResult:
    return RebuildResult(
        status=RebuildStatus.FAILURE,
        message="All index rebuilds failed",
        components=components,
        started_at=NOW - timedelta(seconds=5),
        finished_at=NOW,
    )


def test_a_refused_gate_is_told_apart_from_a_build_that_failed() -> None:
    checks = (Check(name="recall_at_10", passed=False, detail="0.4 is below 0.9"),)
    refused = ComponentResult(outcome=BuildOutcome.FAILED, checks=checks, error="recall_at_10: 0.4")
    broke = ComponentResult(outcome=BuildOutcome.FAILED, error="no memory")
    made_up = ComponentResult(outcome=BuildOutcome.FAILED, error="of nobody")
    found = seen(result(similar=refused, map=broke, undeclared=made_up))
    assert [(each.kind, each.text) for each in notices_of(None, found, Evaluation())] == [
        (NoticeKind.REFUSED_GATE, "similar was built, and is not released: recall_at_10: 0.4"),
        (NoticeKind.FAILURE, "map was not built: no memory"),
    ]


def test_a_failure_and_its_recovery_between_two_looks_are_both_told() -> None:
    broke = ComponentResult(outcome=BuildOutcome.FAILED, error="no memory")
    built = ComponentResult(outcome=BuildOutcome.REBUILT)
    found = seen(result(map=broke), result(map=broke), result(map=built), result(map=built))
    kinds = [each.kind for each in notices_of(seen(), found, Evaluation())]
    assert kinds[:3] == [NoticeKind.FAILURE, NoticeKind.FAILURE, NoticeKind.RECOVERY]
    assert NoticeKind.RECOVERY not in kinds[3:]


def test_a_rebuild_that_failed_as_a_whole_is_told_in_its_own_words() -> None:
    (found,) = notices_of(None, seen(result()), Evaluation())
    assert (found.kind, found.text) == (
        NoticeKind.FAILURE,
        "a rebuild failed: All index rebuilds failed",
    )


def test_nothing_is_concluded_from_what_could_not_be_read() -> None:
    blind = seen(release=None, versions={})
    assert list(notices_of(blind, seen(), Evaluation())) == []


def test_a_target_is_failing_after_three_attempts_until_one_is_taken(desk: Desk) -> None:
    notifier = desk.notifier({"ops": {}}, group_seconds=0)
    desk.takes = False
    notifier.offer([notice()])
    for attempts in (1, 2, 3):
        turn(notifier)
        desk.clock.advance(1800)
        assert list(notifier.failing()) == (["ops"] if attempts == 3 else [])
    desk.takes = True
    turn(notifier)
    assert notifier.failing() == {}


def test_a_target_is_failing_while_a_message_hangs_and_where_its_url_is_not_understood(
    desk: Desk,
) -> None:
    go_on = threading.Event()

    def opener(name: str, _target: NotificationTarget) -> Send:
        if name == "wrong":
            raise TargetUnusableError(name)
        return lambda _title, _body: go_on.wait(60)

    targets = {
        each: NotificationTarget.model_validate({"url": "log://"}) for each in ("slow", "wrong")
    }
    settings = NotificationSettings(targets=targets, group_seconds=0, timeout_seconds=0.01)
    notifier = Notifier(settings, namespace="shop", clock=desk.clock, opener=opener)
    notifier.offer([notice()])
    try:
        turn(notifier)
        assert {name: "hangs" in why for name, why in notifier.failing().items()} == {
            "slow": True,
            "wrong": False,
        }
    finally:
        go_on.set()
