"""The two sides of an installation: whoever searches, and whoever has it rebuilt."""

import threading
import time
from typing import Any, Final, Self

import httpx

QUESTIONS: Final = {
    "Who can save a painting that a flood has soaked?": "Beatrice Anselmi",
    "I look for a doctor who operates on the hearts of babies": "Henrik Falstad",
    "Who writes music for old films?": "Liese Vandermeulen",
    "Somebody has to find the flaw in our encryption": "Viktor Hollender",
    "Is that dam safe when the earth shakes?": "Saule Abenova",
}
"""What people want, and the expert for it."""
_LOOK_SECONDS: Final = 0.05
_PATIENCE_SECONDS: Final = 120.0


class Searcher:
    """Asks one reader over HTTP; as a context it goes on asking, on a thread of its own."""

    def __init__(self, url: str) -> None:
        self._client = httpx.Client(base_url=url, trust_env=False, timeout=_PATIENCE_SECONDS)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._go_on)
        self.answered = 0
        self.wrong: list[str] = []
        """What went wrong meanwhile, or found somebody else."""

    def best(self, question: str) -> dict[str, Any]:
        """The first hit.

        Raises:
            httpx.HTTPError: there is no answer, or it is an error.
        """
        asked = {"text": question, "k": 1}
        answer = self._client.post("/v1/components/experts/search", json=asked)
        hit: dict[str, Any] = answer.raise_for_status().json()["hits"][0]
        return hit

    def _go_on(self) -> None:
        while not self._ended.is_set():
            for question, expert in QUESTIONS.items():
                try:
                    found = self.best(question)["id"]
                except httpx.HTTPError as error:
                    self.wrong.append(str(error))
                else:
                    self.answered += 1
                    if found != expert:
                        self.wrong.append(f"{question} {found}")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self._client.close()


class Admin:
    """Asks the admin API for what the page's buttons ask for."""

    def __init__(self, url: str) -> None:
        self._client = httpx.Client(
            base_url=f"{url}/api/admin", trust_env=False, timeout=_PATIENCE_SECONDS
        )
        # Without credentials everybody on this machine may do everything, but no page of another
        # site: whoever changes something sends a token along that only our own pages can read.
        me = self._client.get("/me").raise_for_status().json()
        self._client.headers["X-CSRF-Token"] = me["csrf"]

    def state(self) -> dict[str, Any]:
        """The state of everything."""
        state: dict[str, Any] = self._client.get("/state").raise_for_status().json()
        return state

    def rebuild(self, **asked: Any) -> httpx.Response:
        """Have components rebuilt: 202 with the rebuild's id, or 409 while one runs."""
        return self._client.post("/rebuilds", json=asked)

    def finished(self, rebuild: str) -> dict[str, Any]:
        """The rebuild, once it is no longer running.

        Raises:
            TimeoutError: it goes on and on.
        """
        end = time.monotonic() + _PATIENCE_SECONDS
        while time.monotonic() < end:
            found: dict[str, Any] = self._client.get(f"/rebuilds/{rebuild}").json()
            if found["state"] in ("complete", "failed"):
                return found
            time.sleep(_LOOK_SECONDS)
        raise TimeoutError(f"rebuild {rebuild} does not end")
