"""``indexrelay readers``: who serves what, one reader in detail, and a retry of what failed.

Readers are found by their presence in Redis, and asked over HTTP on a port or a unix socket.
"""

from types import TracebackType
from typing import Annotated, Any, Final, Self

import httpx
import typer

from indexrelay.console import figures
from indexrelay.console.commands import Config, Json, alone
from indexrelay.console.commands.status import LOAD_MARKS, NONE, covered
from indexrelay.console.errors import CommandError, ExitCode
from indexrelay.console.installation import Installation, signals_of
from indexrelay.console.sheet import Sheet, flowing, number, spare, whole
from indexrelay.console.terminal import adapted, note, print_json, stdout, visible
from indexrelay.schemas import commands
from indexrelay.schemas.errors import suggestion
from indexrelay.schemas.messages import ReaderState

_TIMEOUT_SECONDS: Final = 10.0

app = typer.Typer(add_completion=False)
Reader = Annotated[str, typer.Argument(metavar="READER", help="As readers list shows it.")]


@app.callback(invoke_without_command=True)
def readers(context: typer.Context, config: Config = None, json: Json = False) -> None:
    """Each live reader; the same as ``list``."""
    if alone(context, config=config, json=json):
        list_readers(config=config, json=json)


@app.command("list")
def list_readers(config: Config = None, json: Json = False) -> None:
    """What each live reader serves; exits 3 when one of them is not ready, 1 without any."""
    with Installation.at(config) as installation:
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


class ReaderClient:
    """Asks one reader service over TCP or a unix socket; not to be shared between threads."""

    def __init__(self, reader: str, address: str) -> None:
        """``address`` is that of the reader's presence: ``http://…`` or ``unix:…``."""
        self.reader = reader
        socket = address.removeprefix("unix:").removeprefix("//") if "unix:" in address else None
        self._http = httpx.Client(
            transport=httpx.HTTPTransport(uds=socket) if socket is not None else None,
            base_url="http://reader" if socket is not None else address,
            timeout=_TIMEOUT_SECONDS,
            trust_env=False,
        )

    def search(self, component: str, body: dict[str, Any]) -> list[dict[str, Any]]:
        """The hits, each with ``id``, ``score`` and ``payload``; raises as `ask`."""
        hits: list[dict[str, Any]] = self.ask(component, body)["hits"]
        return hits

    def ask(self, component: str, body: dict[str, Any]) -> dict[str, Any]:
        """The whole answer to a search: ``hits``, and an ``explanation`` where that is asked for.

        Raises:
            CommandError: it does not answer, or refuses; with its own words.
        """
        return self._asked("POST", f"/v1/components/{component}/search", json=body)

    def retry(self) -> None:
        """Let it retry the loads that failed for good; raises as `search`."""
        self._asked("POST", "/v1/retry")

    def close(self) -> None:
        """Close its connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _asked(self, method: str, path: str, *, json: Any = None) -> dict[str, Any]:
        try:
            response = self._http.request(method, path, json=json)
            answer = response.json()
        except (httpx.HTTPError, ValueError) as error:
            raise CommandError(
                f"reader {self.reader!r} does not answer: {error}; "
                f"see whether it still runs: {commands.READERS}"
            ) from error
        if response.is_error:
            words = answer.get("detail", answer) if isinstance(answer, dict) else answer
            raise CommandError(f"reader {self.reader!r} refused: {words}")
        if not isinstance(answer, dict):
            raise CommandError(f"reader {self.reader!r} answered with no JSON object")
        return answer


def reader_client(installation: Installation, reader: str) -> ReaderClient:
    """A client of a reader's HTTP service; to be closed.

    Raises:
        CommandError: as `reader_state`, or it has no address.
    """
    state = reader_state(installation, reader)
    if state.address is None:
        raise CommandError(
            f"reader {reader!r} runs inside a program and has no HTTP service; ask the artifacts "
            "instead (search without --reader), or the program itself"
        )
    return ReaderClient(reader, state.address)


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
