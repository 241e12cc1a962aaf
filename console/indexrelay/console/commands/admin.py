"""``indexrelay admin``: the admin page, and who may log in to it."""

import getpass
import sys
from typing import Final

import typer

from indexrelay.console.commands import Json
from indexrelay.console.errors import WrongCallError
from indexrelay.console.terminal import print_json, stderr, stdout

app = typer.Typer(add_completion=False, no_args_is_help=True)

_NEXT: Final = (
    "The settings get this hash, under a name of your choice; then the admin page starts again:\n"
    "  [admin.users.NAME]\n"
    '  password = "{known}"\n'
    '  role = "viewer"       # or "operator", who may have things built and rolled back'
)


@app.callback()
def admin() -> None:
    """The admin page, and who may log in to it."""


@app.command()
def password(json: Json = False) -> None:
    """Ask for a password, without showing it, and print its hash for the settings."""
    from indexrelay.admin.logins import LEAST_PASSWORD, MAX_PASSWORD, password_hash

    given = _typed() if sys.stdin.isatty() else sys.stdin.readline().rstrip("\r\n")
    if not LEAST_PASSWORD <= len(given) <= MAX_PASSWORD:
        raise WrongCallError(
            f"a password has {LEAST_PASSWORD} to {MAX_PASSWORD} characters, and this one "
            f"{len(given)}: take several words"
        )
    known = password_hash(given)
    if json:
        print_json({"password": known})
        return
    stdout().print(known, soft_wrap=True, markup=False, highlight=False)
    stderr().print(_NEXT.format(known=known), soft_wrap=True, markup=False, highlight=False)


def _typed() -> str:
    """A password that was typed twice, and not shown.

    Raises:
        WrongCallError: the two are not the same.
    """
    # On stderr: stdout is for the answer, and may be a file.
    given = getpass.getpass("Password: ", stream=sys.stderr)
    if getpass.getpass("Once more: ", stream=sys.stderr) != given:
        raise WrongCallError("the two passwords are not the same")
    return given
