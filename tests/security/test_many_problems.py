"""Whoever has the password of one reader says many things: what else is wrong is still seen."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from indexrelay.health.judge import judge
from indexrelay.health.status import Code, Verdict
from indexrelay.health.survey import Survey
from indexrelay.rebuilder.reconciler import FindingsLog
from indexrelay.schemas.clock import SystemClock
from indexrelay.schemas.declarations import Declaration
from indexrelay.schemas.messages import ReaderState
from indexrelay.schemas.settings import Settings
from indexrelay.storage.artifacts import ArtifactStore
from indexrelay.storage.catalog import Catalog
from indexrelay.streams import Connection, Keys, Presence
from tests.fixtures.logs import capture_logs

pytestmark = pytest.mark.server

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
MANY = 900
FEW_LINES = 40


@pytest.fixture
def connection(real_connection: Connection) -> Iterator[Connection]:
    yield real_connection
    real_connection.commands.flushdb()


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    opened = Catalog.open(f"sqlite:///{tmp_path / 'catalog.db'}")
    yield opened
    opened.close()


def claim(connection: Connection, *, since: int = 0) -> None:
    """State after state that runs with settings of its own."""
    presence = Presence(connection, Keys("claims"), "reader")
    for number in range(since, since + MANY):
        state = ReaderState(
            reader="reader_a", host="h", pid=number, instance=f"{number:016x}", started_at=NOW,
            updated_at=NOW, ready=True, release=0,
            declares=Declaration(components={f"c{number}": "0" * 16}),
        )  # fmt: skip
        presence.publish(state.member, state.model_dump_json().encode(), ttl_seconds=60)


def judged(tmp_path: Path, catalog: Catalog, connection: Connection) -> Verdict:
    settings = Settings.model_validate({"namespace": "claims", "data_dir": tmp_path})
    survey = Survey.opened(
        settings, catalog=catalog, store=ArtifactStore(settings.artifacts_dir),
        connection=connection, clock=SystemClock(),
    )  # fmt: skip
    return judge(survey.whole())


def test_many_states_with_other_settings_are_a_few_problems(
    tmp_path: Path, catalog: Catalog, connection: Connection
) -> None:
    claim(connection)
    problems = judged(tmp_path, catalog, connection).problems
    assert Code.READER_OTHER_SETTINGS in {each.code for each in problems}
    assert len(problems) < FEW_LINES


def test_what_no_reader_says_is_logged_first_and_nothing_counts_as_logged_that_was_not(
    tmp_path: Path, catalog: Catalog, connection: Connection
) -> None:
    claim(connection)
    verdict = judged(tmp_path, catalog, connection)
    [claimed, *_] = [each for each in verdict.problems if each.code is Code.READER_OTHER_SETTINGS]
    letters = claimed.model_copy(
        update={"code": Code.DEAD_LETTERS, "subject": None, "what": "a dead letter waits"}
    )
    claims = [claimed.model_copy(update={"what": f"claim {number}"}) for number in range(30)]
    verdict = verdict.model_copy(update={"problems": (*claims, letters)})
    log = FindingsLog(SystemClock())
    with capture_logs() as events:
        log.left(verdict)
    assert events[0]["code"] is Code.DEAD_LETTERS
    assert (len(events), events[-1]["problems"]) == (21, 11)
    with capture_logs() as events:
        log.left(verdict)  # those for which there was no room
    assert len({event["what"] for event in events}) == 11
    with capture_logs() as events:
        log.left(verdict)
    assert events == []
