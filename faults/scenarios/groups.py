"""F22: members of a group fail, are slow, held or paused at random: it moves whole or not at all.

Two rebuilders and two readers go on through all runs. In each run one or two members of the group
are kept from moving while batches come, and then let go. The group must not have moved without
them, a rebuilder must say for whom the others wait, and soon after all of it is at the newest
generation.
"""

import random
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from faults.bench import LEASE_SECONDS, Bench
from faults.recorder import COLLECTION
from faults.rows import Row
from indexrelay.schemas.messages import RebuilderState
from indexrelay.streams import Presence

MEMBERS: Mapping[str, Mapping[str, Any]] = {
    "main": {"from": [COLLECTION]},
    "cache": {"from": ["main"]},
    "index": {"from": [COLLECTION]},
}
_SLOW_SECONDS = 1.0
"""Longer than what is finished waits for the rest of its pass."""
_LONGEST_SECONDS = 0.5
"""How long batches come while something is wrong, drawn again each time."""
_BACK_SECONDS = LEASE_SECONDS + 10
"""A slow build that runs out, a retry of it all, and a reload, on a busy machine."""
_START_SECONDS = 180.0


def run(program: Path, row: Row, runs: int) -> None:
    """One run after the other on one installation, each with its own seed."""
    first = random.SystemRandom().randrange(10**9)
    row.figures.append(f"seeds {first} to {first + runs - 1}")
    with ExitStack() as stack:
        orders = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ir-orders-")))
        components = {
            **{
                name: {**keys, "group": "maps", "orders": str(orders)}
                for name, keys in MEMBERS.items()
            },
            "alone": {"from": [COLLECTION]},
        }
        bench = stack.enter_context(Bench(program, components=components))
        bench.bring_up(rebuilders=2, seconds=_START_SECONDS)
        for seed in range(first, first + runs):
            with row.run(f"seed {seed}"):
                _once(bench, row, orders, random.Random(seed))
        row.broke(bench.violations())
        row.figures.append(f"{bench.store.next_number() - 1} releases")


def _once(bench: Bench, row: Row, orders: Path, draw: random.Random) -> None:
    """Keep members from moving, commit, see that the group waits, and let go."""
    victims = draw.sample(sorted(MEMBERS), draw.choice((1, 1, 2)))
    faults = {victim: draw.choice(("fail", "slow", "hold", "pause")) for victim in victims}
    let_go = [_keep(bench, orders, victim, fault) for victim, fault in faults.items()]
    try:
        before = _group(bench)
        until = time.monotonic() + draw.uniform(0, _LONGEST_SECONDS)
        bench.commit()
        while time.monotonic() < until:
            bench.commit()
            bench.recorder.watch()
        if "slow" not in faults.values():
            if _waiting(faults):
                bench.wait(lambda: _is_said(bench, victims))
            assert _group(bench) == before, f"{faults}: the group moved"
    finally:
        for undo in let_go:
            undo()
    bench.commit()  # news: who was given up is tried again
    try:
        row.recovered(bench.settle(), within=_BACK_SECONDS)
    except AssertionError as error:
        raise AssertionError(f"{faults}: {error}") from error


def _keep(bench: Bench, orders: Path, name: str, fault: str) -> Callable[[], object]:
    """Keep a member from moving; how to let it go."""
    match fault:
        case "hold":
            bench.store.hold(name, reason="asked for by a person")
            return lambda: bench.store.lift(name, reason="asked for by a person")
        case "pause":
            bench.catalog.attempts.pause(name, "asked for by a person")
            return lambda: bench.catalog.attempts.resume(name)
        case "fail":
            (orders / name).write_text("fail")
        case _:
            (orders / name).write_text(str(_SLOW_SECONDS))
    return (orders / name).unlink


def _waiting(faults: Mapping[str, str]) -> set[str]:
    """The members that have something new to be released, but for the others.

    Who is made from a member that is held or paused has nothing new, and waits for nobody.
    """
    at_rest = {name for name, fault in faults.items() if fault in ("hold", "pause")}
    return {
        name
        for name, table in MEMBERS.items()
        if name not in faults and not at_rest.intersection(table["from"])
    }


def _group(bench: Bench) -> dict[str, str]:
    newest = bench.store.newest_release()
    assert newest is not None
    return {name: version for name, version in newest.components.items() if name in MEMBERS}


def _is_said(bench: Bench, victims: list[str]) -> bool:
    """Whether a rebuilder reports that others wait for one of these, unless it is all of them."""
    states = Presence(bench.connection, bench.keys, "rebuilder").all().values()
    reported = [RebuilderState.model_validate_json(raw).kept_back for raw in states]
    return any(
        f"group maps waits for {victim}, which" in why or f"and for {victim}, which" in why
        for kept in reported
        for why in kept.values()
        for victim in victims
    )
