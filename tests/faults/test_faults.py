"""The shortened set: each failpoint once, and one run of every other fault, on the embedded server.

It proves that everything is whole again, and measures how soon. Whether that is soon enough is for
``make faults`` to judge, which runs alone.

``make faults`` runs them as often as they deserve.
"""

import pytest

from faults import processes
from faults.rows import Row
from faults.scenarios import SCENARIOS, kills
from indexrelay.schemas.failpoints import FAILPOINTS
from tests.fixtures.servers import program_or_skip

AREAS = {
    "producer": ("producer.",),
    "rebuilder": ("intake.", "dispatch.", "inbox."),
    "publisher": ("release.", "announce."),
    "build": ("build.", "file."),
    "reader": ("reader.",),
}

LEAVES_SOCKETS = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
"""httpcore does not close a unix socket that nobody listens on."""

pytestmark = pytest.mark.server


@pytest.fixture(autouse=True)
def _warm_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "start_program", processes.warm_process)


@pytest.mark.parametrize("area", AREAS)
def test_a_kill_at_any_failpoint_loses_nothing(area: str) -> None:
    row = Row(fault="F1", timed=False)
    points = [point for point in FAILPOINTS if point.startswith(AREAS[area])]
    kills.at_failpoints(program_or_skip("valkey"), row, 1, points)
    assert row.broken == []
    assert row.held == row.runs == len(points)


@pytest.mark.timeout(300)  # a run of F11 builds a real index ten times
@pytest.mark.parametrize(
    "fault",
    [
        *sorted(SCENARIOS.keys() - {"F1", "F27", "F28"}),
        pytest.param("F27", marks=LEAVES_SOCKETS),
        pytest.param("F28", marks=LEAVES_SOCKETS),
    ],
)
def test_what_is_guaranteed_holds_under_each_fault(fault: str) -> None:
    row = Row(fault=fault, timed=False)
    SCENARIOS[fault].run(program_or_skip("valkey"), row, 1)
    assert row.broken == []
    assert row.held == row.runs > 0


def test_no_failpoint_is_left_out() -> None:
    prefixes = tuple(prefix for area in AREAS.values() for prefix in area)
    assert all(point.startswith(prefixes) for point in FAILPOINTS)
