"""Makes Redis's ACL file from the template ``users.acl`` and the passwords in the environment.

Runs once before Redis starts, in a container of its own, so that Redis only ever sees hashes. For
each ``$name`` in the template it takes ``NAME_PASSWORD``, or the first line of the file that
``NAME_PASSWORD_FILE`` names. Redis takes neither comments nor continued lines in an ACL file, so
both go.

Usage: ``python render_acl.py TEMPLATE TARGET``
"""
# ruff: noqa: INP001 - a script: it is run by its path, in a container

import hashlib
import os
import re
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from string import Template

MIN_PASSWORD_LENGTH = 16
"""Redis keeps a plain sha256, which is fast to guess: a short password would not last."""


INSTANCE = "[0-9a-f]" * 16
"""A glob for what a process draws beside its label (`indexrelay.streams.presence`): a name of fixed
length, so that nobody fills a list of names with long ones."""


class RenderError(Exception):
    """Raised when no safe ACL file can be made; the message says which variable to set."""


def render(template: str, environ: Mapping[str, str]) -> str:
    """The ACL file's text.

    Raises:
        RenderError: a password or the namespace is missing or unfit.
    """
    lines: list[str] = []
    for line in template.splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        if line[0].isspace() and lines:
            lines[-1] += f" {line.strip()}"
        else:
            lines.append(line.strip())
    filled = Template("\n".join(lines) + "\n")
    values = {name: _value(name, environ) for name in filled.get_identifiers()}
    return filled.substitute(values)


def _value(name: str, environ: Mapping[str, str]) -> str:
    match name:
        case "namespace":
            return _namespace(environ)
        case "instance":
            return INSTANCE
        case _:
            return _hash(name, environ)


def _namespace(environ: Mapping[str, str]) -> str:
    namespace = environ.get("INDEXRELAY_NAMESPACE") or "indexrelay"
    # It becomes part of a pattern: a star in it would open other keys.
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,63}", namespace):
        raise RenderError(
            f"INDEXRELAY_NAMESPACE is {namespace!r}; it takes lower-case letters, digits and "
            "underscores, after a letter"
        )
    return namespace


def _hash(name: str, environ: Mapping[str, str]) -> str:
    variable = f"{name.upper()}_PASSWORD"
    password = environ.get(variable, "")
    file = environ.get(f"{variable}_FILE")
    if not password and file:
        try:
            password = Path(file).read_text(encoding="utf-8").split("\n", 1)[0]
        except OSError as error:
            raise RenderError(f"{variable}_FILE: {file}: {error.strerror}") from error
    if len(password) < MIN_PASSWORD_LENGTH:
        raise RenderError(
            f"{variable} is {'too short' if password else 'not set'}; give it at least "
            f"{MIN_PASSWORD_LENGTH} random characters (make_passwords.py does)"
        )
    return hashlib.sha256(password.encode()).hexdigest()


def write(text: str, target: Path) -> None:
    """Put the file in place whole, readable for Redis, which runs as another user."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=target.parent, delete=False) as file:
        file.write(text)
    staged = Path(file.name)
    staged.chmod(0o644)
    staged.replace(target)


def main(arguments: list[str]) -> int:
    """Render and write; 2 for a wrong call, 1 when something is missing."""
    if len(arguments) != 2:
        sys.stderr.write("usage: render_acl.py TEMPLATE TARGET\n")
        return 2
    template, target = map(Path, arguments)
    try:
        text = render(template.read_text(encoding="utf-8"), os.environ)
    except RenderError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    write(text, target)
    sys.stdout.write(f"{target}: {text.count('user ')} users\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
