"""Who asks: bearer tokens (RFC 6750), and what each of them may do.

The settings know the sha256 of each token and never the token. Where they name one, nothing is
answered without a token but ``/health`` and ``/ready``; where they name none, whoever reaches the
service may ask everything, and it listens where only this machine does. A token comes in the
header ``Authorization`` and nowhere else: addresses are logged on the way, headers are not.

A token with a filter belongs to a tenant: the filter is forced into everything that it asks
(`indexrelay.service.dispatch`), and what counts or shows everybody's entries it may not ask.
"""

import hashlib
import hmac
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from indexrelay.schemas.settings import TokenScope, TokenSettings
from indexrelay.service.problems import RefusedError, problem

OPEN_PATHS: Final = frozenset({"/health", "/ready"})
"""What is answered without a token: to whoever watches the process, or sends requests to it."""
PREFIX: Final = "ir_"
"""Of every token that is made here, so that a scanner for secrets finds one that was published."""
_TOKEN_BYTES: Final = 32
"""256 bits: the sha256 of a shorter one, or of a password, could be searched for."""
_CALLER: Final = "indexrelay.caller"
_REALM: Final = 'Bearer realm="indexrelay"'
_ADVICE: Final = (
    "this reader answers to those who have a token: send it as the header Authorization: "
    "Bearer TOKEN, not in the address"
)


@dataclass(frozen=True, kw_only=True)
class Caller:
    """Who asks, and what that one may do."""

    name: str | None = None
    """The token's name in the settings; ``None``: nobody has to say who they are."""
    scope: Literal["none"] | TokenScope = "admin"
    filter: Mapping[str, Any] | None = None
    """What is forced into everything that is asked; ``None``: everything may be seen."""


EVERYBODY: Final = Caller()
"""Who asks where there are no tokens."""
NOBODY: Final = Caller(scope="none")
"""Who has shown no token, where there are some."""


def new_token() -> str:
    """A token, drawn at random; shown once, to the one who is to have it."""
    return PREFIX + secrets.token_urlsafe(_TOKEN_BYTES)


def digest_of(token: str) -> str:
    """What the settings know of a token."""
    return hashlib.sha256(token.encode()).hexdigest()


class Tokens:
    """The tokens that the settings name."""

    def __init__(self, tokens: Mapping[str, TokenSettings]) -> None:
        self._callers = [
            (each.sha256.encode("ascii"), Caller(name=name, scope=each.scope, filter=each.filter))
            for name, each in tokens.items()
        ]

    def __len__(self) -> int:
        return len(self._callers)

    def caller(self, token: str) -> Caller | None:
        """Whose token this is; ``None``: nobody's.

        All digests are compared, each in the same time, wherever they differ.
        """
        given = digest_of(token).encode("ascii")
        found = None
        for known, caller in self._callers:
            if hmac.compare_digest(known, given):
                found = caller
        return found


class Authentication:
    """ASGI middleware; refuses a request without a token before anything of it is read."""

    def __init__(self, app: ASGIApp, *, tokens: Tokens) -> None:
        self._app = app
        self._tokens = tokens

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the application for the caller, or refuse."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        caller, challenge = self._caller(scope)
        if caller is None and scope["path"] in OPEN_PATHS:
            caller = NOBODY
        if caller is None:
            headers = {"WWW-Authenticate": challenge}
            await problem(401, _ADVICE, headers, close=True)(scope, receive, send)
            return
        scope[_CALLER] = caller
        await self._app(scope, receive, send)

    def _caller(self, scope: Scope) -> tuple[Caller | None, str]:
        """Who asks, and what to say where that is nobody."""
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        if not given:
            return None, _REALM
        kind, _, token = given[0].decode("latin-1").partition(" ")
        caller = None
        if len(given) == 1 and kind.lower() == "bearer":
            caller = self._tokens.caller(token.strip(" "))
        return caller, f'{_REALM}, error="invalid_token"'


def caller_of(request: Request) -> Caller:
    """Who asks."""
    found: Caller = request.scope.get(_CALLER, EVERYBODY)
    return found


def see_admin(request: Request) -> None:
    """See that the caller may change something.

    Raises:
        RefusedError: its token is for reading.
    """
    if caller_of(request).scope != "admin":
        raise _forbidden('this takes a token whose scope is "admin"', scope="admin")


def see_writer(request: Request) -> None:
    """See that the caller may write entries.

    Raises:
        RefusedError: its token is for reading.
    """
    if caller_of(request).scope not in ("write", "admin"):
        raise _forbidden('this takes a token whose scope is "write"', scope="write")


def see_everything(request: Request) -> None:
    """See that the caller may see what belongs to everybody.

    Raises:
        RefusedError: its token has a filter.
    """
    if caller_of(request).filter is not None:
        raise _forbidden("this shows what everybody has, and this token has a filter", scope="read")


def _forbidden(detail: str, *, scope: str) -> RefusedError:
    challenge = f'{_REALM}, error="insufficient_scope", scope="{scope}"'
    return RefusedError(403, detail, headers={"WWW-Authenticate": challenge})
