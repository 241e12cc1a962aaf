"""Writes ``.env`` with a fresh random password for each user of Redis, for docker-compose.yml.

It keeps those that stand there, which are in use, and adds the ones that are missing: all of them
the first time, those of new users after an upgrade, and one whose line somebody removed because it
leaked. Usage: ``python3 deploy/make_passwords.py``
"""
# ruff: noqa: INP001 - a script: it is run by its path

import os
import re
import secrets
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COMPOSE = ROOT / "docker-compose.yml"


def variables() -> list[str]:
    """What docker-compose.yml insists on: ``${NAME:?…}``."""
    names = re.findall(r"\$\{([A-Z_]+_PASSWORD):\?", COMPOSE.read_text(encoding="utf-8"))
    return sorted(set(names))


def main() -> int:
    """Add to the file, which is for its owner only."""
    target = ROOT / ".env"
    descriptor = os.open(target, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
    with os.fdopen(descriptor, "r+", encoding="utf-8") as file:
        text = file.read()
        there = {line.partition("=")[0].strip() for line in text.splitlines() if "=" in line}
        missing = [name for name in variables() if name not in there]
        # Hexadecimal, because a password stands in a URL and must need no quoting there.
        file.write("" if text.endswith("\n") or not text else "\n")
        file.writelines(f"{name}={secrets.token_hex(24)}\n" for name in missing)
    kept = len(variables()) - len(missing)
    sys.stdout.write(f"{target}: {len(missing)} passwords drawn, {kept} kept\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
