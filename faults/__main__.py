"""Breaks the installation in every way that we know: ``python -m faults``; see ``--help``.

Prints one row for each fault and server, and below the table what did not hold. Ends with 0
only if everything held.
"""

import argparse
import json
import logging
import signal
import sys
import time
from pathlib import Path
from typing import TextIO

from faults.rows import Row, head
from faults.scenarios import SCENARIOS, Entry
from tests.fixtures.servers import OPTIONAL, PROGRAMS

_SHOWN = 12
"""Lines of what did not hold: the first say it, the others mostly follow from it."""


def main() -> int:
    asked = _arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # and clear up
    logging.getLogger("indexrelay").setLevel(
        logging.CRITICAL
    )  # ours: the processes log for themselves
    rows: list[Row] = []
    (sys.stderr if asked.json else sys.stdout).write(head() + "\n")
    for server in asked.server:
        program = PROGRAMS[server]()
        if program is None:
            sys.stderr.write(f"no {server} server on this machine\n")
            if server not in OPTIONAL:
                return 1
            continue
        for fault in asked.fault:
            scenario = SCENARIOS[fault]
            if not scenario.by_server and fault in {row.fault for row in rows}:
                continue
            row = Row(fault=fault, server=server)
            if asked.minutes is None:
                scenario.run(program, row, asked.runs or scenario.runs)
            else:
                _soak(scenario, program, row, asked.minutes)
            rows.append(row)
            _show(row, sys.stderr if asked.json else sys.stdout)
    if asked.json:
        sys.stdout.write(json.dumps([row.as_json() for row in rows], indent=2) + "\n")
    return 0 if all(row.held == row.runs for row in rows) else 1


def _soak(scenario: Entry, program: Path, row: Row, minutes: float) -> None:
    """One run after the other until the time is over."""
    end = time.monotonic() + minutes * 60
    while time.monotonic() < end:
        scenario.run(program, row, 1)


def _show(row: Row, to: TextIO) -> None:
    to.write(row.line + "\n")
    to.writelines(f"         {figure}\n" for figure in row.figures)
    to.writelines(f"       ✗ {broken}\n" for broken in row.broken[:_SHOWN])
    if len(row.broken) > _SHOWN:
        to.write(f"       ✗ … and {len(row.broken) - _SHOWN} more; --json has them all\n")
    to.flush()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m faults", description=__doc__)
    parser.add_argument(
        "--server",
        type=lambda text: list(PROGRAMS) if text == "all" else _known(text, PROGRAMS),
        default=["valkey"],
        help=f"{', '.join(PROGRAMS)} or all; default: valkey",
    )
    parser.add_argument(
        "--fault",
        type=lambda text: _known(text, SCENARIOS),
        default=list(SCENARIOS),
        help=f"some of {', '.join(SCENARIOS)}; default: all",
    )
    parser.add_argument("--runs", type=int, help="how often; default: as each fault asks for")
    parser.add_argument("--minutes", type=float, help="run each that long, instead of so often")
    parser.add_argument("--json", action="store_true", help="the rows as JSON")
    return parser.parse_args()


def _known(text: str, names: object) -> list[str]:
    chosen = text.split(",")
    unknown = [name for name in chosen if name not in list(names)]  # type: ignore[call-overload]
    if unknown:
        raise argparse.ArgumentTypeError(f"there is no {', '.join(unknown)}")
    return chosen


if __name__ == "__main__":
    sys.exit(main())
