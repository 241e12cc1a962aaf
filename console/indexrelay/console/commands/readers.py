"""``indexrelay readers``: who serves what, one reader in detail, and a retry of what failed.

Readers are found by their presence in Redis, and asked over HTTP on a port or a unix socket.
"""

from types import TracebackType
from typing import TYPE_CHECKING, Annotated, Any, Self

import httpx
import typer

from indexrelay.console.errors import CommandError, ExitCode
from indexrelay.console.options import Config, Json, alone
from indexrelay.schemas import commands

if TYPE_CHECKING:
    from indexrelay.console.installation import Installation
    from indexrelay.schemas.messages import ReaderState

Reader = Annotated[str, typer.Argument(metavar="READER", help="As readers list shows it.")]


def build_app() -> typer.Typer:
    """The command with its sub-commands."""
    app = typer.Typer(help="Who serves: a list, one in detail, or another attempt at what failed.")
    app.callback(invoke_without_command=True)(readers)
    app.command("list")(list_readers)
    app.command("show")(show)
    app.command("retry")(retry)
    return app


def readers(context: typer.Context, config: Config = None, json: Json = False) -> None:
    """Each live reader; the same as ``list``."""
    if alone(context, config=config, json=json):
        list_readers(config=config, json=json)


def list_readers(config: Config = None, json: Json = False) -> None:
    """What each live reader serves; exits 3 when one of them is not ready, 1 without any."""
    from indexrelay.console.installation import Installation
    from indexrelay.console.terminal import adapted, note, print_json, stdout
    from indexrelay.schemas import commands

    with Installation.at(config) as installation:
        states = _live(installation)
    if json:
        print_json(
            {"readers": {name: state.model_dump(mode="json") for name, state in states.items()}}
        )
    else:
        from indexrelay.console.commands.status import served_table

        for state in states.values():
            stdout().print(served_table(state))
    if not states:
        note(adapted(f"no reader is running; start one: {commands.READER}"))
        raise typer.Exit(ExitCode.FAILURE)
    if not all(state.ready for state in states.values()):
        raise typer.Exit(ExitCode.PARTIAL)


def show(reader: Reader, config: Config = None, json: Json = False) -> None:
    """What one reader serves; exits 3 when it is not ready."""
    from indexrelay.console.commands.search import reader_state
    from indexrelay.console.installation import Installation
    from indexrelay.console.terminal import print_json, stdout

    with Installation.at(config) as installation:
        state = reader_state(installation, reader)
    if json:
        print_json(state)
    else:
        from indexrelay.console.commands.status import served_table

        stdout().print(served_table(state))
    if not state.ready:
        raise typer.Exit(ExitCode.PARTIAL)


def retry(reader: Reader, config: Config = None, json: Json = False) -> None:
    """Let a reader load again what it gave up on."""
    from indexrelay.console.commands.search import reader_client
    from indexrelay.console.installation import Installation
    from indexrelay.console.terminal import print_json, stdout

    with Installation.at(config) as installation, reader_client(installation, reader) as client:
        client.retry()
    if json:
        print_json({"reader": reader, "retrying": True})
    else:
        stdout().print(f"✓ {reader} loads again what failed", soft_wrap=True)


def _live(installation: "Installation") -> "dict[str, ReaderState]":
    """Every reader that reports, by the name under which it does."""
    from indexrelay.console.errors import CommandError
    from indexrelay.console.installation import signals_of

    signals = signals_of(installation)
    if signals.error is not None:
        raise CommandError(f"readers report to Redis, and that does not answer: {signals.error}")
    return dict(signals.readers)


_TIMEOUT_SECONDS = 10.0


class ReaderClient:
    """Asks one reader; not to be shared between threads."""

    def __init__(self, reader: str, address: str) -> None:
        """``address`` is what the reader's presence says: ``http://…`` or ``unix:…``."""
        self.reader = reader
        socket = address.removeprefix("unix:").removeprefix("//") if "unix:" in address else None
        self._http = httpx.Client(
            transport=httpx.HTTPTransport(uds=socket) if socket is not None else None,
            base_url="http://reader" if socket is not None else address,
            timeout=_TIMEOUT_SECONDS,
            trust_env=False,
        )

    def search(self, component: str, body: dict[str, Any]) -> list[dict[str, Any]]:
        """The hits, each with ``id``, ``score`` and ``payload``.

        Raises:
            CommandError: it does not answer, or refuses; with its own words.
        """
        answer = self._asked("POST", f"/components/{component}/search", json=body)
        hits: list[dict[str, Any]] = answer["hits"]
        return hits

    def state(self) -> dict[str, Any]:
        """What the reader says of itself; raises as `search`."""
        return self._asked("GET", "/state")

    def retry(self) -> None:
        """Let it load again what failed for good; raises as `search`."""
        self._asked("POST", "/retry")

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
            told = answer.get("detail", answer) if isinstance(answer, dict) else answer
            raise CommandError(f"reader {self.reader!r} refused: {told}")
        if not isinstance(answer, dict):
            raise CommandError(f"reader {self.reader!r} gave no JSON object")
        return answer
