"""The sources against what is covered: which components are not where they should be, and why.

The same comparison decides what is built (`indexrelay.health.due`); here it is told to a person,
with who puts it right.
"""

from collections.abc import Iterator

from indexrelay.health.backoff import Patience
from indexrelay.health.dependencies import in_order
from indexrelay.health.due import find_due
from indexrelay.health.facts import Facts
from indexrelay.rebuilder.findings import Finding, Standing


def compare(facts: Facts, patience: Patience, *, rebuilders: bool) -> Iterator[Finding]:
    """Every component that differs from its sources, and every source that cannot be read.

    Args:
        rebuilders: whether one is running, that would build what is due.
    """
    for name, error in facts.unreadable.items():
        yield Finding(
            about="collection",
            what=f"{name} cannot be read, and nothing that is made from it is built: {error}",
            standing=Standing.LEFT,
            advice="mend the source, or what the settings say of it",
        )
    due = find_due(facts, patience)
    for name in in_order(facts.definitions):
        if name in due.reasons:
            yield Finding(
                about="component",
                what=f"{name} is due: {due.reasons[name]}",
                standing=Standing.WAITING if rebuilders else Standing.LEFT,
                advice="a running rebuilder builds it"
                if rebuilders
                else "start a rebuilder, or build here: indexrelay rebuild --here",
            )
        elif name in facts.paused:
            yield Finding(
                about="component",
                what=f"{name} is paused",
                standing=Standing.DECIDED,
                advice=f"when it may move on: indexrelay resume {name}",
            )
        elif facts.release is not None and name in facts.release.holds:
            yield Finding(
                about="component",
                what=f"{name} is held: {facts.release.holds[name].reason}",
                standing=Standing.DECIDED,
                advice=f"when it may move on: indexrelay lift {name}",
            )
        elif name in facts.attempts:
            yield _failed(name, facts, patience, rebuilders=rebuilders)


def _failed(name: str, facts: Facts, patience: Patience, *, rebuilders: bool) -> Finding:
    attempt = facts.attempts[name]
    retry_at = patience.retry_at(attempt)
    what = f"{name} failed {attempt.failures} time(s) in a row: {attempt.error}"
    if retry_at is None:
        return Finding(
            about="component",
            what=what,
            standing=Standing.LEFT,
            advice=f"mend the cause, then: indexrelay rebuild {name}",
        )
    return Finding(
        about="component",
        what=what,
        standing=Standing.WAITING if rebuilders else Standing.LEFT,
        advice=f"a rebuilder tries again at {retry_at:%H:%M:%S} UTC"
        + ("" if rebuilders else "; none is running: indexrelay rebuilder"),
    )
