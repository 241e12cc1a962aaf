"""``indexrelay readers``: who serves what, one reader in detail, and a retry of what failed.

Readers are found by their presence in Redis, and asked over HTTP on a port or a unix socket.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from typing import TYPE_CHECKING, Annotated, Final
from urllib.parse import urlsplit

import typer
from rich.console import Group

from indexrelay.console import figures
from indexrelay.console.commands import Config, Json, alone
from indexrelay.console.commands.status import LOAD_MARKS, NONE, covered
from indexrelay.console.errors import CommandError, ExitCode, WrongCallError
from indexrelay.console.installation import Installation, signals_of
from indexrelay.console.sheet import Sheet, flowing, number, spare, whole
from indexrelay.console.terminal import adapted, note, print_json, stdout, visible
from indexrelay.console.watch import Watch, show_again
from indexrelay.schemas import commands
from indexrelay.schemas.errors import suggestion
from indexrelay.schemas.messages import ReaderState
from indexrelay.schemas.settings_file import TOKEN

if TYPE_CHECKING:
    from indexrelay.service.client import Client

_NOT_TO_BE_ASKED: Final = frozenset({400, 422})
"""What a reader answers to a query that nobody could answer."""
app = typer.Typer(add_completion=False)
Reader = Annotated[str, typer.Argument(metavar="READER", help="As readers list shows it.")]


@app.callback(invoke_without_command=True)
def readers(context: typer.Context, config: Config = None, json: Json = False) -> None:
    """Each live reader; the same as ``list``."""
    if alone(context, config=config, json=json):
        list_readers(config=config, json=json)


@app.command("list")
def list_readers(config: Config = None, json: Json = False, watch: Watch = False) -> None:
    """What each live reader serves; exits 3 when one of them is not ready, 1 without any."""
    with Installation.at(config) as installation:
        if watch:
            show_again(lambda: Group(*map(served_table, _live(installation).values())), json=json)
        states = _live(installation)
    if json:
        print_json(
            {"readers": {name: state.model_dump(mode="json") for name, state in states.items()}}
        )
    else:
        for state in states.values():
            stdout().print(served_table(state))
    if not states:
        note(adapted(f"no reader is running; start one: {commands.READER}"))
        raise typer.Exit(ExitCode.FAILURE)
    if not all(state.ready for state in states.values()):
        raise typer.Exit(ExitCode.PARTIAL)


@app.command()
def show(reader: Reader, config: Config = None, json: Json = False) -> None:
    """What one reader serves; exits 3 when it is not ready."""
    with Installation.at(config) as installation:
        state = reader_state(installation, reader)
    if json:
        print_json(state)
    else:
        stdout().print(served_table(state))
    if not state.ready:
        raise typer.Exit(ExitCode.PARTIAL)


@app.command()
def retry(reader: Reader, config: Config = None, json: Json = False) -> None:
    """Let a reader retry the loads that failed for good."""
    with Installation.at(config) as installation, reader_client(installation, reader) as client:
        client.retry()
    if json:
        print_json({"reader": reader, "retrying": True})
    else:
        stdout().print(f"✓ {reader} loads again what failed", soft_wrap=True)


@contextmanager
def asking(reader: str, address: str) -> "Iterator[Client]":
    """A client of a reader's HTTP service; its errors become a `CommandError` that names it.

    Args:
        reader: its name.
        address: that of its presence, ``http://…`` or ``unix:…``. Whoever may write in Redis may
            have said it, so a token goes to this machine only.
    """
    from indexrelay.service.client import (  # it is waited for, and most commands ask nobody
        Client,
        NotAllowedError,
        ReaderError,
        RequestRefusedError,
    )

    token = os.environ.get(TOKEN) if _is_here(address) else None
    try:
        with Client(address, token=token or None) as client:
            yield client
    except NotAllowedError as error:
        advice = (
            f"; {TOKEN} is shown to readers of this machine"
            if token is None
            else f"; it does not know the one in {TOKEN}, or not for this"
        )
        raise CommandError(f"reader {reader!r} refused: {error}{advice}") from error
    except RequestRefusedError as error:
        kind = WrongCallError if error.status in _NOT_TO_BE_ASKED else CommandError
        raise kind(f"reader {reader!r} refused: {error}") from error
    except ReaderError as error:
        raise CommandError(
            f"reader {reader!r} does not answer: {error}; "
            f"see whether it still runs: {commands.READERS}"
        ) from error


def _is_here(address: str) -> bool:
    """Whether an address is a unix socket, or one that only this machine has."""
    if address.startswith("unix:"):
        return True
    try:
        host = urlsplit(address).hostname or ""
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


@contextmanager
def reader_client(installation: Installation, reader: str) -> "Iterator[Client]":
    """A client of a running reader's HTTP service.

    Raises:
        CommandError: as `reader_state` and `asking`, or it has no address.
    """
    state = reader_state(installation, reader)
    if state.address is None:
        raise CommandError(
            f"reader {reader!r} runs inside a program and has no HTTP service; ask the artifacts "
            "instead (search without --reader), or the program itself"
        )
    with asking(reader, state.address) as client:
        yield client


def reader_state(installation: Installation, reader: str) -> ReaderState:
    """The state that a live reader reports.

    Raises:
        CommandError: Redis does not answer, or no such reader is running.
    """
    states = _live(installation).values()
    processes = [state for state in states if state.reader == reader]
    # Any of them that can be asked: all of them answer for one id.
    state = next((each for each in processes if each.address), next(iter(processes), None))
    if state is None:
        near = suggestion(reader, {each.reader for each in states})
        raise CommandError(
            f"no reader {reader!r} is running{near}; to ask the artifacts, leave --reader out; "
            f"to start it: {commands.reader(reader)}"
        )
    return state


def served_table(state: ReaderState) -> Sheet:
    """One reader in detail: a row for each component."""
    ready = "ready" if state.ready else "not ready"
    sheet = Sheet(
        visible(f"{state.process}: release {state.release}, {ready}"),
        whole(""),
        flowing("component"),
        whole("outcome"),
        flowing("covers"),
        spare("version"),
        number("entries"),
        number("load"),
        flowing("error"),
    )
    for name, component in state.components.items():
        sheet.add(
            LOAD_MARKS[component.outcome],
            name,
            str(component.outcome),
            covered(component.covers),
            (component.version or NONE)[:12],
            f"{component.entries:,}",
            figures.seconds(component.seconds),
            component.error or "",
        )
    return sheet


def _live(installation: Installation) -> dict[str, ReaderState]:
    """Every reader that reports, by the name under which it does."""
    signals = signals_of(installation)
    if signals.error is not None:
        raise CommandError(f"readers report to Redis, which does not answer: {signals.error}")
    return dict(signals.readers)
