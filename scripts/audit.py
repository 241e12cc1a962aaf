"""Asks for the known vulnerabilities of everything that is pinned, and says what came of it.

Usage: ``audit.py PIP_AUDIT REQUIREMENTS``. Exits

- 0 where none is known,
- 1 where some are: one line for each, with the versions that mend it,
- 2 where nothing was learned: without a network, for one.

pip-audit alone ends with 1 in the last two cases. Standard library only, like everything that runs
before the environment is there. It sends the names and versions of the pins to pypi.org.
"""
# ruff: noqa: INP001 - a script: nothing is installed from this folder

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

NONE, SOME, UNKNOWN = 0, 1, 2
_OPTIONS = (
    "--require-hashes",
    "--disable-pip",
    "--strict",  # what could not be looked up is no answer
    "--progress-spinner=off",
    "--format=json",
)


def main(pip_audit: str, requirements: str) -> int:
    """Ask, print what came of it, and return the exit code."""
    command = [pip_audit, *_OPTIONS, "--requirement", requirements]
    try:
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
        audited = json.loads(ended.stdout)["dependencies"]
    except OSError as error:
        return _unknown(str(error))
    except (ValueError, KeyError, TypeError):
        said = [line for line in ended.stderr.splitlines() if line.strip()]
        return _unknown(said[-1] if said else f"pip-audit ended with {ended.returncode}")
    found = list(_found(audited))
    found.append(f"{len(audited)} pins looked up; {len(found)} known vulnerabilities")
    sys.stdout.write("".join(f"{line}\n" for line in found))
    return SOME if len(found) > 1 else NONE


def _found(audited: list[Any]) -> Iterator[str]:
    for each in audited:
        for known in each.get("vulns", ()):
            fixed = ", ".join(known.get("fix_versions", ())) or "no version yet"
            yield f"{each['name']} {each['version']}: {known['id']}; mended in {fixed}"


def _unknown(why: str) -> int:
    sys.stderr.write(
        f"nothing was looked up, so nothing is known of vulnerabilities: {why}\n"
        "pip-audit asks pypi.org for each pin; it needs a network that reaches it\n"
    )
    return UNKNOWN


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
