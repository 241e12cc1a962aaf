"""Writes ``.env`` with a fresh random password for each user of Redis, for docker-compose.yml.

It never overwrites: passwords in use would be lost. Usage: ``python3 deploy/make_passwords.py``
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
    """Write the file, for its owner only."""
    target = ROOT / ".env"
    try:
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        sys.stderr.write(f"{target} is there already; remove it to draw new passwords\n")
        return 1
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        # Hexadecimal, because a password stands in a URL and must need no quoting there.
        file.writelines(f"{name}={secrets.token_hex(24)}\n" for name in variables())
    sys.stdout.write(f"{target}: {len(variables())} passwords\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
