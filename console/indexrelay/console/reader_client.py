"""A client of one reader service, over TCP or a unix socket."""

from types import TracebackType
from typing import Any, Self

import httpx

from indexrelay.console.errors import CommandError
from indexrelay.schemas import commands

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
