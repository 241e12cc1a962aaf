"""Who may look and who may change things: every request passes here before anything reads it.

What stands in the way of a request, in this order:

    the host that it names     a web page may resolve a name of its own to this machine (421)
    the page that it is from   pages of others may not ask, whatever a browser sends along (403)
    who it is from             a bearer token, or the cookie of a session (401)
    what it does               a viewer changes nothing (403)
    the token of the session   what a browser changes takes what only our page can read (403)

Everything under ``/api/`` is closed unless it is named here, and takes an operator unless its
method is safe or it is named here, so that a route that forgets to ask is closed. The files of the
page are open: they hold no data.

Where the settings name neither user nor token, everybody is an operator, and the service listens on
a loopback address only.
"""

import hmac
import ipaddress
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Final, Literal, Self
from urllib.parse import urlsplit

from anyio import to_thread
from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator
from starlette.datastructures import Headers
from starlette.requests import cookie_parser
from starlette.types import ASGIApp, Receive, Scope, Send

from indexrelay.admin.logins import (
    MAX_PASSWORD,
    Attempts,
    LoginLimit,
    Passwords,
    TooManyLoginsError,
    network_of,
)
from indexrelay.admin.sessions import (
    ENDED_FILE,
    EndedSessions,
    Session,
    SessionKind,
    Sessions,
    cookie_key,
)
from indexrelay.schemas import commands
from indexrelay.schemas.admin import AdminRole
from indexrelay.schemas.clock import Clock, SystemClock
from indexrelay.schemas.errors import IndexRelayError
from indexrelay.schemas.loggers import get_logger
from indexrelay.schemas.settings import Settings
from indexrelay.service.limits import names_host
from indexrelay.service.problems import RefusedError, problem
from indexrelay.service.tokens import digest_of
from indexrelay.storage.audit import AuditAction, AuditLog

log = get_logger(__name__)

API: Final = "/api/"
PREFIX: Final = "/api/admin"
OPEN: Final = frozenset({f"{PREFIX}/health", f"{PREFIX}/login"})
"""What is answered to whoever has not logged in."""
CSRF_HEADER: Final = "X-CSRF-Token"
_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_FOR_VIEWERS: Final = frozenset({f"{PREFIX}/logout", f"{PREFIX}/lab/search"})
"""What a viewer may POST: leaving, and questions that are too long for an address."""
_CALLER: Final = "indexrelay.admin.caller"
_ANYONE: Final = "anyone"
_UNKNOWN: Final = "unknown"
MAX_USER: Final = 128
"""Characters of a name that somebody logs in by."""
MAX_TOKEN: Final = 200
_MOST_REFUSALS: Final = 100
"""Refused logins and requests that the audit log has of one place in an hour, and of all places
together ten times as many: strangers may cause them, and older lines would be lost for theirs."""
_REFUSAL_SECONDS: Final = 3600.0
_REALM: Final = 'Bearer realm="admin"'


class PublicAddressError(IndexRelayError):
    """Raised when the admin page is to listen where other machines reach it, and the settings name
    nobody who may log in."""

    is_misuse = True

    def __init__(self, address: str) -> None:
        super().__init__(
            f"{address} is reached from other machines, and whoever reaches it could have things "
            f"built and rolled back: name a user in [admin.users.NAME] ({commands.ADMIN_PASSWORD} "
            f"makes the hash) or a token in [admin.tokens.NAME] ({commands.GENERATE_TOKEN}), or "
            "listen on 127.0.0.1"
        )
        self.address = address


@dataclass(frozen=True, kw_only=True)
class Caller:
    """Who asks, and what they may do."""

    kind: Literal["user", "token", "anyone"]
    name: str | None
    """Of the user or the token in the settings; ``None``: nobody is asked who they are."""
    role: AdminRole
    session: Session | None = None
    """``None``: a token was shown, or nobody is asked."""

    @property
    def anonymous(self) -> bool:
        """Whether nobody is asked who they are."""
        return self.kind == "anyone"

    @property
    def who(self) -> str:
        """For the audit log, and for who asked for a rebuild: ``admin/ada``, ``token/ci``."""
        return f"{'token' if self.kind == 'token' else 'admin'}/{self.name or _ANYONE}"


ANYONE: Final = Caller(kind="anyone", name=None, role="operator")


class Access:
    """Decides who may do what; for one event loop."""

    def __init__(
        self,
        settings: Settings,
        *,
        clock: Clock | None = None,
        audit: AuditLog | None = None,
        is_local: bool = True,
    ) -> None:
        """Take what the settings say of users and tokens.

        Args:
            settings: the installation.
            clock: in whose time sessions end and logins are counted; ``None``: the machine's.
            audit: where logins and refusals are recorded; ``None``: in the log of this host.
            is_local: whether it listens on a loopback address.

        Raises:
            CookieKeyError: the file of the key that sessions are signed with cannot be used.
        """
        clock = clock or SystemClock()
        self._admin = settings.admin
        self._audit = audit or AuditLog.of(settings, clock=clock)
        self.is_local = is_local
        self._hosts = frozenset(host.lower() for host in self._admin.hosts) | (
            frozenset() if is_local else {socket.gethostname().lower(), self._admin.host.lower()}
        )
        self._tokens = [
            (token.sha256.encode("ascii"), name) for name, token in self._admin.tokens.items()
        ]
        self._passwords = Passwords(self._admin.users)
        self._limit = LoginLimit(clock)
        self._refusals = Attempts(_MOST_REFUSALS, _REFUSAL_SECONDS, clock=clock)
        self._all_refusals = Attempts(10 * _MOST_REFUSALS, _REFUSAL_SECONDS, clock=clock)
        self._sessions = Sessions(
            cookie_key(settings),
            seconds=self._admin.session_seconds,
            credential=self._credential,
            ended=EndedSessions(settings.data_dir / ENDED_FILE, clock=clock),
            clock=clock,
        )
        prefix = "__Host-" if self._admin.https else ""
        self.cookie_name = f"{prefix}indexrelay_{settings.namespace}"

    @property
    def open(self) -> bool:
        """Whether nobody is asked who they are."""
        return self._admin.open

    @property
    def https(self) -> bool:
        """Whether browsers reach it by https."""
        return self._admin.https

    @property
    def session_seconds(self) -> float:
        """How long a login lasts."""
        return self._admin.session_seconds

    def still(self, caller: Caller) -> bool:
        """Whether who was let in may stay, as at a stream that lasts: the session has not ended."""
        return caller.session is None or self._sessions.is_valid(caller.session)

    def csrf_token(self, caller: Caller) -> str | None:
        """What the page of this caller shows; ``None``: a token needs none."""
        if caller.kind == "token" and caller.session is None:
            return None
        return self._sessions.csrf_token(_ANYONE if caller.session is None else caller.session.id)

    def check_host(self, headers: Headers) -> None:
        """See that the request names this service.

        Raises:
            RefusedError: it names somebody else's host.
        """
        given = headers.get("host", "localhost")  # HTTP/1.0 may name none
        if names_host(given, self._hosts) or (not self.is_local and _is_address(given)):
            return
        raise RefusedError(421, f"this does not answer as {given!r:.100}; add it to admin.hosts")

    def caller(self, headers: Headers) -> Caller | None:
        """Who shows a token or a cookie; ``None``: neither is right.

        All tokens are compared, each in the same time, wherever they differ.
        """
        if self.open:
            return ANYONE
        shown = headers.getlist("authorization")
        if shown:
            kind, _, token = shown[0].partition(" ")
            if len(shown) > 1 or kind.lower() != "bearer":
                return None
            name = self._token_name(token.strip(" "))
            return None if name is None else self._known("token", name)
        cookie = cookie_parser(headers.get("cookie", "")).get(self.cookie_name)
        session = None if cookie is None else self._sessions.read(cookie)
        return None if session is None else self._known(session.kind, session.name, session)

    def check_change(self, headers: Headers, caller: Caller, path: str) -> None:
        """See that the caller may change something, and that it is their own page that asks.

        Raises:
            RefusedError: it is a viewer, or another page.
        """
        if caller.role != "operator" and path not in _FOR_VIEWERS:
            raise _for_operators()
        wanted = self.csrf_token(caller)
        given = headers.get(CSRF_HEADER, "").encode("utf-8", "replace")
        if wanted is not None and not hmac.compare_digest(wanted.encode(), given):
            raise RefusedError(
                403, f"show csrf of {PREFIX}/me as the header {CSRF_HEADER}, or a bearer token"
            )

    async def log_in(self, asked: "LoginRequest", *, address: str) -> str:
        """The cookie of a new session.

        Raises:
            RefusedError: name or password are wrong, or it was tried too often.
        """
        name = "" if asked.user is None else asked.user
        try:
            self._limit.begin(asked.user, address)
        except TooManyLoginsError:
            await self.record_refusal(self._who_tries(name), address, subject="login: too often")
            raise
        try:
            known = await self._shown(asked)
        except RefusedError:  # too many others are checked now
            self._limit.unchecked(asked.user, address)
            raise
        if known is None:
            await self.record_refusal(self._who_tries(name), address, subject="login")
            wrong = "there is no such token" if asked.user is None else "wrong user or password"
            raise RefusedError(401, wrong, headers={"WWW-Authenticate": _REALM})
        self._limit.succeeded(asked.user, address)
        kind, known_name = known
        caller = self._known(kind, known_name)
        await self.record(AuditAction.LOGGED_IN, caller.who, address=address)
        return self._sessions.begin(kind, known_name)

    async def _shown(self, asked: "LoginRequest") -> tuple[SessionKind, str] | None:
        """Who has shown the right password or token; ``None``: nobody."""
        if asked.token is not None:
            found = self._token_name(asked.token.get_secret_value())
            return None if found is None else ("token", found)
        user, password = asked.user or "", asked.password or SecretStr("")
        right = await self._passwords.are_right(user, password.get_secret_value())
        return ("user", user) if right else None

    async def log_out(self, caller: Caller, *, address: str) -> None:
        """End the session of a caller, where there is one."""
        if caller.session is not None:
            await to_thread.run_sync(self._sessions.end, caller.session)
            await self.record(AuditAction.LOGGED_OUT, caller.who, address=address)

    def address_of(self, scope: Scope) -> str:
        """From where a request comes; through a proxy of the settings, as that says."""
        address = str((scope.get("client") or ("local",))[0])
        forwarded = ",".join(Headers(scope=scope).getlist("x-forwarded-for")).split(",")
        while address in self._admin.proxies and forwarded:
            found = _without_port(forwarded.pop())
            if not _is_address(found):
                break
            address = found
        return address[:100]

    async def record(self, action: AuditAction, who: str, **fields: str) -> None:
        """Write a line of the audit log, on a thread: it may wait for a lock."""
        await to_thread.run_sync(lambda: self._audit.record(action, who=who, **fields))

    async def record_refusal(self, who: str, address: str, *, subject: str) -> None:
        """Write down that somebody was refused, if not too often."""
        place = network_of(address)
        log.warning("admin.refused", who=who, address=address, subject=subject)
        if self._refusals.wait_seconds(place) or self._all_refusals.wait_seconds("all"):
            return
        self._refusals.add(place)
        self._all_refusals.add("all")
        await self.record(AuditAction.REFUSED, who, subject=subject, address=address)

    def _who_tries(self, name: str) -> str:
        """A name of the settings; others are not written down: people type passwords there."""
        return f"admin/{name if name in self._admin.users else _UNKNOWN}"

    def _token_name(self, token: str) -> str | None:
        given = digest_of(token.encode("utf-8", "replace").decode()).encode("ascii")
        found = None
        for known, name in self._tokens:
            if hmac.compare_digest(known, given):
                found = name
        return found

    def _known(self, kind: SessionKind, name: str, session: Session | None = None) -> Caller:
        of = self._admin.users[name] if kind == "user" else self._admin.tokens[name]
        return Caller(kind=kind, name=name, role=of.role, session=session)

    def _credential(self, kind: SessionKind, name: str) -> str | None:
        if kind == "user":
            user = self._admin.users.get(name)
            return None if user is None else user.password.get_secret_value()
        token = self._admin.tokens.get(name)
        return None if token is None else token.sha256


class AccessCheck:
    """ASGI middleware; refuses a request before anything of its body is read."""

    def __init__(self, app: ASGIApp, *, access: Access) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the application for the caller, or refuse."""
        if scope["type"] == "http":
            try:
                await self._check(scope)
            except RefusedError as error:
                close = scope["method"] not in _SAFE  # or its body would have to be read
                answer = problem(error.status, str(error), _uncached(error.headers), close=close)
                await answer(scope, receive, send)
                return
        await self._app(scope, receive, send)

    async def _check(self, scope: Scope) -> None:
        headers, path, method = Headers(scope=scope), scope["path"], scope["method"]
        self._access.check_host(headers)
        if not path.startswith(API):
            return
        _check_origin(headers, method)
        if path in OPEN:
            return
        caller = self._access.caller(headers)
        if caller is None:
            detail = f"log in ({PREFIX}/login), or send a token: Authorization: Bearer TOKEN"
            raise RefusedError(401, detail, headers={"WWW-Authenticate": _REALM})
        if method not in _SAFE:
            try:
                self._access.check_change(headers, caller, path)
            except RefusedError:
                address = self._access.address_of(scope)
                subject = f"{method} {path}"[:200]
                await self._access.record_refusal(caller.who, address, subject=subject)
                raise
        scope[_CALLER] = caller


def caller_of(request: Request) -> Caller:
    """Who asks.

    Raises:
        RefusedError: `AccessCheck` has let nobody in.
    """
    found: Caller | None = request.scope.get(_CALLER)
    if found is None:
        raise RefusedError(401, f"log in ({PREFIX}/login)", headers={"WWW-Authenticate": _REALM})
    return found


async def viewer(request: Request) -> Caller:
    """A dependency: who asks, at least a viewer."""
    return caller_of(request)


async def operator(request: Request) -> Caller:
    """A dependency: who asks, an operator.

    Raises:
        RefusedError: it is a viewer.
    """
    caller = caller_of(request)
    if caller.role != "operator":
        raise _for_operators()
    return caller


Viewer = Annotated[Caller, Depends(viewer)]
Operator = Annotated[Caller, Depends(operator)]


class LoginRequest(BaseModel):
    """A user with a password, or a token."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    user: Annotated[str, Field(max_length=MAX_USER)] | None = None
    password: Annotated[SecretStr, Field(max_length=MAX_PASSWORD)] | None = None
    token: Annotated[SecretStr, Field(max_length=MAX_TOKEN)] | None = None

    @model_validator(mode="after")
    def _is_one_of_both(self) -> Self:
        by_password = self.user is not None and self.password is not None
        if by_password == (self.token is not None) or (self.user is None) != (
            self.password is None
        ):
            raise ValueError("give user and password, or token")
        return self


class Me(BaseModel):
    """Who is logged in."""

    user: str | None
    """Null: nobody is asked who they are."""
    role: AdminRole
    csrf: str | None
    """What goes into the header ``X-CSRF-Token`` of everything that is not a GET; null: a token was
    shown, and it takes none."""
    anonymous: bool
    """Whether the settings name nobody, so that whoever reaches this may do everything."""
    loopback_only: bool
    """Whether only this machine reaches it."""
    session_ends_at: datetime | None
    """Null: there is no session."""


def access_routes(access: Access) -> APIRouter:
    """Logging in and out, and who is logged in."""
    router = APIRouter()

    @router.post("/login", status_code=204)
    async def login(request: Request, asked: LoginRequest) -> Response:
        """Begin a session, by a cookie that no script can read."""
        cookie = await access.log_in(asked, address=access.address_of(request.scope))
        answer = Response(status_code=204, headers=_uncached())
        answer.set_cookie(
            access.cookie_name,
            cookie,
            max_age=int(access.session_seconds),
            secure=access.https,
            httponly=True,
            samesite="strict",
        )
        return answer

    @router.post("/logout", status_code=204)
    async def logout(request: Request, caller: Viewer) -> Response:
        """End the session, here and for whoever has copied its cookie."""
        await access.log_out(caller, address=access.address_of(request.scope))
        answer = Response(status_code=204, headers=_uncached())
        answer.delete_cookie(
            access.cookie_name, secure=access.https, httponly=True, samesite="strict"
        )
        return answer

    @router.get("/me")
    async def me(response: Response, caller: Viewer) -> Me:
        """Who is logged in, and what they may do."""
        response.headers.update(_uncached())
        session = caller.session
        return Me(
            user=caller.name,
            role=caller.role,
            csrf=access.csrf_token(caller),
            anonymous=caller.anonymous,
            loopback_only=access.is_local,
            session_ends_at=None if session is None else session.ends_at,
        )

    return router


def describe_access(described: dict[str, Any], access: Access) -> None:
    """Put into an OpenAPI document how callers say who they are."""
    described["components"]["securitySchemes"] = {
        "token": {"type": "http", "scheme": "bearer"},
        "session": {"type": "apiKey", "in": "cookie", "name": access.cookie_name},
    }
    for path, operations in described["paths"].items():
        for operation in operations.values():
            operation["security"] = [] if path in OPEN else [{"token": []}, {"session": []}]


def _check_origin(headers: Headers, method: str) -> None:
    """See that no page of another origin asks (Fetch Metadata; RFC 6454).

    Raises:
        RefusedError: one does.
    """
    site = headers.get("sec-fetch-site")  # browsers let no script set it
    if site in ("cross-site", "same-site"):
        raise RefusedError(403, "this answers to its own page, and not to pages of others")
    origin = headers.get("origin")
    if method in _SAFE or origin is None or site == "same-origin":
        return
    try:
        named = urlsplit(origin).netloc.lower()
    except ValueError:
        named = ""
    if not named or named != headers.get("host", "").lower():
        raise RefusedError(
            403,
            f"{origin!r:.100} is not the address of this page; a proxy in front has to pass on "
            "the Host that it was asked for",
        )


def _is_address(host: str) -> bool:
    """Whether a host, with or without a port, is an address: no name stands for it."""
    try:
        ipaddress.ip_address(_without_port(host))
    except ValueError:
        return False
    return True


def _without_port(host: str) -> str:
    """A host, or address, without its port and brackets."""
    host = host.strip()
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0] if host.count(":") == 1 else host


def _for_operators() -> RefusedError:
    return RefusedError(403, "this takes the role operator, and you are a viewer")


def _uncached(headers: Mapping[str, str] | None = None) -> dict[str, str]:
    return {**(headers or {}), "Cache-Control": "no-store"}
