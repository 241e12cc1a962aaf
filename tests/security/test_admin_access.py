"""Every operation of the admin API, as its OpenAPI document lists it, asked by each kind of caller.

Nothing is answered without credentials but the health and the login; a viewer changes nothing;
whatever is asked, right or wrong, is answered, and never by a fault of the server.
"""

import itertools
import re
from collections import Counter
from collections.abc import Iterator
from functools import partial
from typing import Any, Final
from urllib.parse import quote

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from schemathesis import GenerationMode
from schemathesis import checks as known
from schemathesis.specs.openapi import checks as documented

from indexrelay.admin.access import OPEN, PREFIX
from indexrelay.service.tokens import new_token
from indexrelay.storage.audit import AuditAction, AuditLog
from tests.admin.people import TOKENS
from tests.security.administered import (
    HOSTILE,
    LONG,
    MARKUP,
    Administered,
    Operation,
    administered,
)
from tests.security.fuzzing import MINUTES, seeds
from tests.streams.polling import eventually

FOR_VIEWERS: Final = frozenset({f"{PREFIX}/logout", f"{PREFIX}/lab/search"})
"""What is no GET, and a viewer may: leaving, and questions that are too long for an address."""
ENDLESS: Final = f"{PREFIX}/stream"
MOST_CHARACTERS: Final = 5_000
"""Of one text in an answer."""
MOST_BYTES: Final = 2_000_000
"""Of one answer."""


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Administered]:
    with administered(tmp_path_factory.mktemp("administered")) as found:
        yield found


def test_nothing_is_answered_without_credentials_but_health_and_login(
    installation: Administered,
) -> None:
    operations = installation.operations()
    assert len(operations) > 5
    wrong = {"authorization": f"Bearer {new_token()}"}
    foreign = {"cookie": "indexrelay_indexrelay=eyJpZCI6IngifQ.aaaa.bbbb"}
    for shown in ({}, wrong, foreign):
        with installation.client(**shown) as client:
            assert client.get(f"{PREFIX}/openapi.json").status_code == 401
            for each in operations:
                answer = client.request(each.method, at(each.path))
                expected = {200, 422} if each.path in OPEN else {401}
                assert answer.status_code in expected, (each, answer.text)
                assert "track" not in answer.text


def test_a_viewer_sees_everything_and_changes_nothing(installation: Administered) -> None:
    before = installation.pipeline.store.newest_release()
    refused = []
    with installation.browser("ben") as browser, installation.program("watches") as program:
        for client, each in itertools.product((browser, program), installation.operations()):
            if each.path in (*OPEN, ENDLESS, f"{PREFIX}/logout"):
                continue
            answer = client.request(each.method, at(each.path))
            if each.is_safe or each.path in FOR_VIEWERS:
                assert answer.status_code not in (401, 403), (each, answer.text)
                assert answer.status_code < 500, (each, answer.text)
            else:
                assert answer.status_code == 403, (each, answer.text)
                assert "operator" in answer.json()["detail"]
                refused.append(each)
    assert refused
    assert installation.pipeline.store.newest_release() == before
    assert not installation.pipeline.catalog.inbox.open_requests()


def test_what_a_browser_changes_takes_the_token_of_its_session(installation: Administered) -> None:
    with installation.browser("ada") as browser:
        del browser.headers["X-CSRF-Token"]
        for each in installation.operations():
            if not each.is_safe and each.path not in OPEN:
                answer = browser.request(each.method, at(each.path), json={})
                assert answer.status_code == 403, (each, answer.text)
                assert "X-CSRF-Token" in answer.json()["detail"]


def at(path: str) -> str:
    """A path of the document, of things that are there."""
    there = {"component": "plane", "name": "similar"}
    return re.sub(r"\{(\w+)\}", lambda found: there.get(found[1], "1"), path)


QUESTIONS: Final[tuple[tuple[str, str, dict[str, Any] | None], ...]] = (
    ("GET", "/map/plane/entries?rows=0,1,2,3,4,5,6,7,8,9,10,11", None),
    ("GET", "/map/plane/colours?field=genre", None),
    ("POST", "/lab/search", {"sides": [{"component": "words"}], "text": "song number", "k": 20}),
    ("POST", "/lab/search", {"sides": [{"component": "similar"}], "text": LONG[:5000], "k": 20}),
    ("POST", "/lab/search", {"sides": [{"component": HOSTILE}], "text": HOSTILE}),
    ("POST", "/login", {"user": HOSTILE, "password": LONG[:1000]}),
    ("POST", "/login", {"user": LONG[:100_000], "password": HOSTILE}),
    ("GET", f"/map/plane/colours?field={quote(MARKUP)}", None),
    ("GET", f"/{quote(HOSTILE)}", None),
)
"""Beside what the document lists: those that take more than a path, and that are hostile."""


def texts(value: Any) -> Iterator[str]:
    """Every text in a JSON value, the names of fields among them."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for each in value:
            yield from texts(each)
    elif isinstance(value, dict):
        for name, each in value.items():
            yield name
            yield from texts(each)


def test_whatever_others_wrote_is_sent_as_json_and_cut_at_a_length(
    installation: Administered,
) -> None:
    """Three megabytes of markup and control characters are in everything that is shown."""
    asked = [
        *(
            ("GET", at(each.path).removeprefix(PREFIX), None)
            for each in installation.operations()
            if each.method == "get" and each.path != ENDLESS
        ),
        *QUESTIONS,
    ]
    shown = ""
    with installation.program("watches") as client:
        for method, path, body in asked:
            answer = client.request(method, PREFIX + path, json=body)
            assert answer.status_code < 500, (path, answer.text)
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert len(answer.content) < MOST_BYTES, path
            kind = answer.headers["content-type"]
            if kind in ("application/json", "application/problem+json"):
                longest = max(map(len, texts(answer.json())), default=0)
                assert longest <= MOST_CHARACTERS, path
                shown += answer.text
            else:
                assert kind == "application/octet-stream", path
    assert "alert(1)" in shown


DONE: Final[dict[str, tuple[str, AuditAction]]] = {
    "/rebuilds": ("/rebuilds", AuditAction.REBUILD_REQUESTED),
    "/components/{name}/pause": ("/components/words/pause", AuditAction.PAUSED),
    "/components/{name}/resume": ("/components/words/resume", AuditAction.RESUMED),
    "/components/{name}/hold": ("/components/words/hold", AuditAction.HELD),
    "/components/{name}/lift": ("/components/words/lift", AuditAction.LIFTED),
    "/releases/{number}/rollback": ("/releases/1/rollback", AuditAction.ROLLED_BACK),
    "/lift": ("/lift", AuditAction.LIFTED),
    "/schedules/{name}/run": ("/schedules/nightly/run", AuditAction.REBUILD_REQUESTED),
    "/dead-letters/{letter}/retry": ("/dead-letters/1/retry", AuditAction.RETRIED),
    "/dead-letters/{letter}/drop": ("/dead-letters/1/drop", AuditAction.DELETED),
    "/backups": ("/backups", AuditAction.BACKED_UP),
    "/backups/{backup}/verify": ("/backups/{newest}/verify", AuditAction.VERIFIED),
}
"""What an operator does, once each: the path, and what the audit log then has."""
BODIES: Final = {"/lift": {"components": ["words"]}}
"""What those need that say nothing by their path."""


def test_everything_that_an_operator_does_is_a_line_of_the_audit_log(
    installation: Administered,
) -> None:
    changing = {each.path for each in installation.operations() if not each.is_safe}
    listed = {each.removeprefix(PREFIX) for each in changing - FOR_VIEWERS - OPEN}
    assert listed <= DONE.keys()
    log = AuditLog.of(installation.pipeline.settings)
    with installation.program("deploys") as client:
        for pattern, action in (done for each, done in DONE.items() if each in listed):
            newest = client.get(f"{PREFIX}/backups").json()["backups"][:1]
            path = pattern.format(newest=newest and newest[0]["id"])
            before = len(log.newest(10_000))
            answer = client.post(PREFIX + path, json=BODIES.get(path, {}))
            assert answer.is_success, (path, answer.text)
            eventually(partial(_has_grown, log, before))
            [line] = log.newest(10_000)[before:]
            assert (line["who"], line["action"]) == ("token/deploys", action), path


def _has_grown(log: AuditLog, before: int) -> bool:
    return len(log.newest(10_000)) > before


CHECKS: Final = [
    known.not_a_server_error,
    documented.status_code_conformance,
    documented.content_type_conformance,
    documented.response_schema_conformance,
]


@pytest.mark.timeout(120 + 90 * MINUTES)
@pytest.mark.parametrize("shown", [None, "watches", "deploys"])
def test_whatever_is_asked_is_answered_as_the_document_says(
    installation: Administered, shown: str | None
) -> None:
    """All without credentials; what is looked at as a viewer; what is done as an operator."""
    schema = schemathesis.openapi.from_dict(offered(installation))
    seen: Counter[int] = Counter()
    for number, found, mode in itertools.product(
        seeds(1), schema.get_all_operations(), GenerationMode
    ):
        operation: Any = found.ok()
        listed = Operation(operation.method.lower(), operation.path)
        # Of names and headers every text is allowed.
        varies = mode is GenerationMode.POSITIVE or operation.body or operation.query
        meant = shown is None or listed.is_safe == (shown == "watches")
        if varies and meant and listed.path != ENDLESS:
            _ask(installation, operation, mode, number, shown=shown, seen=seen)
    assert max(seen) < 500
    assert seen.keys() >= {None: {401, 422}, "watches": {200, 404}, "deploys": {202, 422}}[shown]


def offered(installation: Administered) -> dict[str, Any]:
    """The document, of things that are there: names and numbers made up are there in no case."""
    described = installation.document()
    newest = installation.pipeline.store.newest_release()
    assert newest is not None
    there: dict[str, list[Any]] = {
        "component": ["plane", "words"],
        "name": ["similar", "words", "failing", "nightly", "genre"],
        "version": list(newest.components.values()),
        **{each: [1, 2, 3, 99] for each in ("number", "before", "after", "letter")},
        **{each: [*newest.components.values()] for each in ("a", "b")},
    }
    for operations in described["paths"].values():
        for parameter in itertools.chain.from_iterable(
            each.get("parameters", ()) for each in operations.values()
        ):
            if parameter["in"] != "header" and parameter["name"] in there:
                parameter["schema"] = {"enum": there[parameter["name"]]}
    return described


def _ask(
    installation: Administered,
    operation: Any,
    mode: GenerationMode,
    number: int,
    *,
    shown: str | None,
    seen: Counter[int],
) -> None:
    """Ask for one operation in several ways, with or without a token."""
    headers = {} if shown is None else {"authorization": f"Bearer {TOKENS[shown]}"}

    @seed(number)
    @settings(
        max_examples=1 if shown is None else 4,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def once(case: Any) -> None:
        case.headers = {**(case.headers or {}), **headers}
        case.cookies = {}
        answer = case.call(base_url=installation.service.address, timeout=20)
        seen[answer.status_code] += 1
        assert shown is not None or operation.path in OPEN or answer.status_code == 401
        case.validate_response(answer, checks=CHECKS)
        if answer.status_code >= 400:
            assert len(answer.content) < 8_000

    once()
