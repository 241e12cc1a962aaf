"""``indexrelay admin``: the admin page, served in the foreground; and who may log in to it.

It is a role as the others are (`indexrelay.console.commands.roles`): SIGTERM and Ctrl-C stop it in
order, and a catalog that is away at start is waited for.
"""

import getpass
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Final

import typer

from indexrelay.console.commands import Config, Json, alone
from indexrelay.console.errors import ExitCode, WrongCallError
from indexrelay.console.hangup import noting_hangup
from indexrelay.console.installation import Installation
from indexrelay.console.processes import Stop
from indexrelay.console.settings_reload import SettingsReload
from indexrelay.console.terminal import note, print_json, stderr, stdout
from indexrelay.schemas import commands
from indexrelay.schemas.settings import Settings
from indexrelay.storage.artifacts import ArtifactStore

app = typer.Typer(add_completion=False)

_LOOK_SECONDS: Final = 1.0
_OPEN: Final = (
    "Nobody is asked who they are: whoever reaches this address, from this machine, may do "
    f"everything. To ask them: {commands.ADMIN_PASSWORD}"
)
_NEXT: Final = (
    "The settings get this hash, under a name of your choice; the admin page reads it at SIGHUP:\n"
    "  [admin.users.NAME]\n"
    '  password = "{known}"\n'
    '  role = "viewer"       # or "operator", who may have things built and rolled back'
)


@app.callback(invoke_without_command=True)
def admin(
    context: typer.Context,
    host: Annotated[
        str | None, typer.Option(help="The address to listen on; otherwise admin.host.")
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="The port; 0: a free one; otherwise admin.port."),
    ] = None,
    config: Config = None,
) -> None:
    """Serve the admin page until SIGTERM or Ctrl-C; or make a password for it."""
    if not alone(context, host=host, port=port, config=config):
        return
    with Installation.at(config, talkative=True) as installation:
        code = run_admin(installation, host=host, port=port, config=config)
    raise typer.Exit(code)


def run_admin(
    installation: Installation,
    *,
    host: str | None = None,
    port: int | None = None,
    config: Path | None = None,
) -> ExitCode:
    """Serve the page until a signal comes; the server and the artifacts may be away meanwhile.

    At SIGHUP it begins again by the settings of then, and open pages find it again.

    Raises:
        PublicAddressError: other machines reach the address, and nobody may log in.
        CookieKeyError: the file of the key that sessions are signed with cannot be used.
        OSError: it cannot listen there.
    """
    from indexrelay.admin import AdminService
    from indexrelay.admin.sessions import cookie_key
    from indexrelay.console.commands.roles import awaited, go_on, service_manager

    with ExitStack() as stack:
        stop = stack.enter_context(Stop())
        asked = stack.enter_context(noting_hangup())
        reload = SettingsReload(installation.settings, config, asked=asked, reads=cookie_key)
        manager = service_manager()

        def opened(at: Installation) -> AdminService | None:
            catalog = awaited(
                lambda: at.catalog, what="catalog", stop=stop, manager=manager, reload=reload
            )
            if catalog is None:
                return None
            service = AdminService(
                at.settings,
                catalog=catalog,
                store=ArtifactStore.of(at.settings, may_be_away=True),
                host=host,
                port=port,
                watcher=manager,
                settings_refused=lambda: reload.refused,
            )
            try:
                service.start()
                reload.note_read(at.settings)
            except BaseException:
                service.stop()
                raise
            return service

        def run(at: Installation, service: AdminService) -> Settings | None:
            note(f"admin page: {service.address}")
            if at.settings.admin.open:
                note(_OPEN)
            try:
                while not stop.wait(_LOOK_SECONDS):
                    asked_again = reload.asked
                    new = reload.look()
                    if new is not None:
                        return new
                    if manager is not None:
                        manager.say(reload.refused or "")
                    if asked_again:
                        service.state.wake()  # what is refused is a problem there
                return None
            finally:
                service.stop()
                at.close()

        go_on(installation, reload, stop=stop, opened=opened, run=run)
        return stop.role_exit_code


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
