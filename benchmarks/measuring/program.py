"""One benchmark program: its command line, and what it prints.

stdout gets one JSON object (``--json``) or tables; where it stands goes to stderr. A target that is
missed is a finding and no failure: the program ends with 0 whenever it could measure.
"""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from indexrelay.console.terminal import stderr, stdout
from measuring.findings import Findings
from measuring.machine import load, machine
from measuring.plots import PLOTS
from measuring.rounds import FEWEST_ROUNDS, Say
from measuring.tables import show


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What a run is asked for."""

    quick: bool
    """Small sizes: it shows that everything works, and its figures mean little."""
    say: Say
    rounds: int = FEWEST_ROUNDS


@dataclass(frozen=True, kw_only=True)
class Program:
    """One question, and how it is answered."""

    name: str
    """As the file is called."""
    question: str
    """The program's docstring; its first line stands above the figures."""
    caveats: str
    """What a reader of the figures must know: Markdown, one list item to a line."""
    measure: Callable[[Asked], Findings]


def main(program: Program, arguments: Sequence[str] | None = None) -> int:
    """Measure and print; for ``sys.exit``."""
    given = _arguments(program, arguments)
    asked = Asked(quick=given.quick, say=_teller(program.name), rounds=given.rounds)
    result = run(program, asked)
    if given.json:
        sys.stdout.write(json.dumps(result, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
    else:
        show(result, stdout())
    return 0


def run(program: Program, asked: Asked) -> dict[str, Any]:
    """The result in the form of its JSON."""
    began, load_before = datetime.now(UTC), load()
    found = program.measure(asked)
    return {
        "benchmark": program.name,
        "question": program.question.strip(),
        "caveats": program.caveats.strip(),
        "quick": asked.quick,
        "date": began.date().isoformat(),
        "seconds": round((datetime.now(UTC) - began).total_seconds(), 1),
        "load_before": load_before,
        "machine": machine(found.servers),
        "figures": [figure.as_json() for figure in found.figures],
        "measured": [each.as_json() for each in found.measured],
        "plots": PLOTS.dump_python(found.plots, mode="json"),
    }


def _teller(name: str) -> Say:
    """One line that is overwritten on a terminal, and lines elsewhere."""
    console = stderr()

    def say(what: str) -> None:
        if console.is_terminal:
            console.print(f"{name}: {what}"[: console.width - 1].ljust(console.width - 1), end="\r")
        else:
            console.print(f"{name}: {what}")

    return say


def _arguments(program: Program, arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog=f"python benchmarks/{program.name}.py",
        description=program.question,
        epilog=program.caveats,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="small sizes: does it work at all?")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    parser.add_argument(
        "--rounds",
        type=_rounds,
        default=FEWEST_ROUNDS,
        help=f"how often each is measured; default and least: {FEWEST_ROUNDS}",
    )
    return parser.parse_args(arguments)


def _rounds(text: str) -> int:
    rounds = int(text)
    if rounds < FEWEST_ROUNDS:
        raise argparse.ArgumentTypeError(f"at least {FEWEST_ROUNDS}")
    return rounds
