"""The demo's verdict notices what is not as it should be."""

from collections.abc import Callable
from typing import Any

import pytest

from indexrelay.console.demo.report import (
    Answer,
    CollectionReport,
    ComponentReport,
    ReaderReport,
    ServedReport,
    has_converged,
    readers_agree,
)
from indexrelay.schemas.messages import BuildOutcome, LoadOutcome


def facts() -> dict[str, Any]:
    covers = {"docstrings": 8}
    served = ServedReport(outcome=LoadOutcome.APPLIED, covers=covers)
    return {
        "release": 8,
        "collections": {"docstrings": CollectionReport(generation=8, entries=5, expected=5)},
        "components": {
            "map": ComponentReport(outcome=BuildOutcome.REBUILT, covers=covers, entries=5)
        },
        "readers": {
            name: ReaderReport(release=8, ready=True, components={"map": served})
            for name in ("a", "b")
        },
        "expected_readers": 2,
    }


def change_reader(facts: dict[str, Any], **update: Any) -> None:
    facts["readers"]["b"] = facts["readers"]["b"].model_copy(update=update)


def test_it_has_converged_when_everyone_serves_the_newest() -> None:
    assert has_converged(**facts())


OLD = ServedReport(outcome=LoadOutcome.APPLIED, covers={"docstrings": 7})
FAILED = ServedReport(outcome=LoadOutcome.FAILED, covers={"docstrings": 8})


@pytest.mark.parametrize(
    "spoil",
    [
        lambda f: f.update(expected_readers=3),
        lambda f: f["collections"].update(
            docstrings=CollectionReport(generation=8, entries=4, expected=5)
        ),
        lambda f: f["components"].update(
            map=ComponentReport(outcome=BuildOutcome.FAILED, covers={"docstrings": 7}, entries=5)
        ),
        lambda f: change_reader(f, release=7),
        lambda f: change_reader(f, ready=False),
        lambda f: change_reader(f, components={}),
        lambda f: change_reader(f, components={"map": OLD}),
        lambda f: change_reader(f, components={"map": FAILED}),
    ],
)
def test_it_has_not_converged_when_one_thing_is_off(
    spoil: Callable[[dict[str, Any]], None],
) -> None:
    known = facts()
    spoil(known)
    assert not has_converged(**known)


def answer(reader: str, *top: str, score: float = 0.5, text: str = "why") -> Answer:
    return Answer(text=text, reader=reader, top=top, top_by_text=(), scores=(score,) * len(top))


def test_readers_agree_when_ids_and_scores_are_the_same() -> None:
    assert readers_agree([answer("a", "x", "y"), answer("b", "x", "y")])


@pytest.mark.parametrize(
    "other",
    [answer("b", "y", "x"), answer("b", "x"), answer("b", "x", "y", score=0.5000001)],
)
def test_readers_differ_when_anything_differs(other: Answer) -> None:
    assert not readers_agree([answer("a", "x", "y"), other])


def test_no_answers_are_no_agreement() -> None:
    assert not readers_agree([])
    assert not readers_agree([answer("a"), answer("b")])
