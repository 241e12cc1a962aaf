"""Section A, as far as it is about promises: who ends a fault, or that nobody does."""
# ruff: noqa: INP001 - a script: nothing is installed from this folder

from datetime import timedelta
from typing import Any

from indexrelay.health.judge import judge
from indexrelay.schemas.messages import RebuilderState
from indexrelay.schemas.settings import CollectionSettings
from scripts.reports.report import Attempt, reports
from tests.health.healthy_facts import (
    DEFINITIONS,
    NEXT,
    NOW,
    OLD,
    VERSIONS,
    attempt,
    declaring,
    healthy,
    manifest,
    rebuilder,
    redis,
)

GROUP = {
    name: DEFINITIONS[name].model_copy(update={"group": "pair"}) for name in ("map", "similar")
}
GROUPED = {**DEFINITIONS, **GROUP}
NEWER = manifest("map", definition="b" * 64, created_at=NOW - timedelta(minutes=1))


def told(subject: str, **changes: Any) -> Attempt:
    """Who acts, and what to do, by ``status``."""

    def of(_: object) -> str:
        problems = judge(healthy(**changes)).problems
        (found,) = (each for each in problems if each.subject == subject)
        return f"{found.acts}: {found.advice}"

    return of


def behind(runs: RebuilderState, **changes: Any) -> Attempt:
    """The same of `similar`, which is behind while this rebuilder runs."""
    return told("similar", sources=NEXT, redis=redis(rebuilders={"r1": runs}), **changes)


def failed(**how: Any) -> Attempt:
    """The same of `similar`, whose last build failed like this."""
    return told("similar", attempts={"similar": attempt("similar", targets={"tracks": 3}, **how)})


def states(**changes: Any) -> Attempt:
    """How the components stand."""
    return lambda _: {str(e.condition) for e in judge(healthy(**changes)).components.values()}


START = "person: start rebuilder r1 .* again with these settings: "
REPORTS = (
    *reports(
        "A3",
        (
            "a rebuilder of another dimension",
            "collection tracks is declared differently there",
            behind(
                rebuilder(declares=declaring()),
                collections={"tracks": CollectionSettings(dimension=3)},
            ),
        ),
        (
            "a rebuilder with another member of the group",
            "map is declared differently there",
            behind(rebuilder(declares=declaring(**{**GROUP, "map": OLD})), definitions=GROUPED),
        ),
        (
            "newer settings that were taken back",
            "it leaves map",
            behind(
                rebuilder(declares=declaring(**GROUP)),
                definitions=GROUPED,
                versions={**VERSIONS, "map": NEWER},
            ),
        ),
        says=START,
    ),
    *reports(
        "A3",
        ("a gate that fails", "person: correct the cause", failed()),
        ("a disk that was full for a moment", "process: ", failed(transient=True)),
        ("a disk that stays full", "person: ", failed(transient=True, failures=3)),
        ("a collection that was dropped", r"\{'outrun'\}$", states(sources={}, stored={})),
    ),
)
