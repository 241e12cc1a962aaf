"""Sessions: a signed cookie that says who has logged in, and what ends it before its time.

The cookie holds an id, who it is, and a mark of the password or token by which they came in. It is
signed (itsdangerous: HMAC-SHA256 with the time of signing), so that nothing of it is kept here, and
a restart of the service ends nobody's session. It ends by its age, when it is logged out, and when
the settings know another password, or none, for that name.

What was logged out is kept in a file until its age would have ended it: the cookie may have been
copied before. All admin processes on one data folder share it, so that a session that one of them
ends is over for all of them at their next request.
"""

import fcntl
import hashlib
import hmac
import json
import os
import secrets
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final, Literal, TypeAlias

from itsdangerous import BadData, TimestampSigner, URLSafeTimedSerializer

from indexrelay.schemas.clock import Clock
from indexrelay.schemas.errors import IndexRelayError
from indexrelay.schemas.files import (
    LockWaits,
    make_private_folder,
    open_private,
    wait_for_lock,
)
from indexrelay.schemas.loggers import LogOnce, get_logger
from indexrelay.schemas.settings import Settings

log = get_logger(__name__)

SessionKind: TypeAlias = Literal["user", "token"]

KEY_FILE: Final = "admin-cookie.key"
ENDED_FILE: Final = "admin-sessions.json"
MAX_COOKIE: Final = 2000
"""Characters; ours have some 200."""
MAX_ENDED: Final = 10_000
"""Sessions that are kept as logged out. One more ends all that were begun before."""
_LOCK_SECONDS: Final = 5.0
"""For which another process is waited for that writes the file; that takes milliseconds."""
_KEY_BYTES: Final = 32
_LEAST_KEY_BYTES: Final = 32
_MOST_KEY_BYTES: Final = 1000
_SALT: Final = "indexrelay.admin.session"


class CookieKeyError(IndexRelayError):
    """Raised when the file of the key that sessions are signed with cannot be used."""

    is_misuse = True

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(f"admin.cookie_key_file: {path} {why}")
        self.path = path


def cookie_key(settings: Settings) -> bytes:
    """The secret that sessions are signed with; one is made where the settings name none.

    Raises:
        CookieKeyError: the file cannot be read or made, others may read it, or it is too short.
    """
    given = settings.admin.cookie_key
    if given is not None:
        return given.get_secret_value().encode()
    path = settings.admin.cookie_key_file or settings.data_dir / KEY_FILE
    try:
        if settings.admin.cookie_key_file is None:
            _make_key(path)
        return _read_key(path)
    except OSError as error:
        raise CookieKeyError(path, f"cannot be used: {error.strerror or error}") from error


def _make_key(path: Path) -> None:
    """Write a key where there is none; of two processes that do so one wins, and both use its."""
    if path.exists():
        return
    make_private_folder(path.parent)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with open_private(draft, "wb") as file:
            file.write(secrets.token_hex(_KEY_BYTES).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(draft, path)
        except FileExistsError:
            return
    finally:
        draft.unlink(missing_ok=True)


def _read_key(path: Path) -> bytes:
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise CookieKeyError(path, "is no file")
        if stat.S_IMODE(found.st_mode) & 0o077:
            raise CookieKeyError(path, f"may be read by others: chmod 600 {path}")
        key = file.read(_MOST_KEY_BYTES + 1).strip()
    if not _LEAST_KEY_BYTES <= len(key) <= _MOST_KEY_BYTES:
        raise CookieKeyError(
            path,
            f"has to hold {_LEAST_KEY_BYTES} to {_MOST_KEY_BYTES} bytes: remove it, or write "
            "what `openssl rand -hex 32` prints",
        )
    return key


@dataclass(frozen=True, kw_only=True)
class Session:
    """A login that has not ended."""

    id: str
    kind: SessionKind
    name: str
    """Of the user or the token in the settings."""
    began_at: datetime
    ends_at: datetime


class EndedSessions:
    """The sessions that were logged out, of all admin processes on one data folder; safe to use
    from any thread.

    The file is what counts: it is read again whenever another process has replaced it, and added to
    under a lock. Where it cannot be read or written that is a warning, and what was logged out here
    counts as long as this process runs.
    """

    def __init__(self, path: Path, *, clock: Clock, most: int = MAX_ENDED) -> None:
        self._path = path
        self._clock = clock
        self._most = most
        self._lock = threading.Lock()
        """Of what follows; never held while another process is waited for."""
        self._writing = threading.Lock()
        self._waits = LockWaits(clock)
        self._ended: dict[str, float] = {}
        """When the session would have ended anyhow, by its id."""
        self._unwritten: dict[str, float] = {}
        """Those of them that the file may not have."""
        self._floor = 0.0
        """Sessions that were begun before this are ended."""
        self._stamp: tuple[int, ...] | None = None
        """Of the file that was read last; ``None``: there was none."""
        self._was_read = False
        self._failed = LogOnce()
        self._renew()

    def add(self, session: Session) -> None:
        """End a session, here at once, and for the other processes with the file."""
        with self._lock:
            self._ended[session.id] = self._unwritten[session.id] = session.ends_at.timestamp()
        with self._writing, self._alone():
            self._renew()
            self._prune()
            self._write()

    def __contains__(self, session: Session) -> bool:
        """Whether it was logged out, here or by another process."""
        self._renew()
        with self._lock:
            return session.id in self._ended or session.began_at.timestamp() < self._floor

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """No other process reads, adds and writes meanwhile, unless the lock cannot be had."""
        with ExitStack() as stack:
            try:
                make_private_folder(self._path.parent)
                lock = self._path.with_name(f".{self._path.name}.lock")
                file = stack.enter_context(open_private(lock, "ab"))
                taken = wait_for_lock(
                    file.fileno(),
                    fcntl.LOCK_EX,
                    name="admin sessions",
                    waits=self._waits,
                    clock=self._clock,
                    most_seconds=_LOCK_SECONDS,
                )
                if not taken:
                    log.warning("admin.sessions_not_locked", path=str(lock))
            except OSError as error:
                log.warning("admin.sessions_not_locked", path=str(self._path), error=str(error))
            yield

    def _renew(self) -> None:
        """Read the file if it is not the one that was read last."""
        with self._lock:
            failed: dict[str, str] = {}
            try:
                stamp = _stamp_of(self._path)
                if stamp == self._stamp and self._was_read:
                    return
                if stamp is not None:
                    self._take(self._path.read_bytes())
                self._stamp, self._was_read = stamp, True
            except FileNotFoundError:
                pass  # between the two: the next time shows what there is
            except OSError as error:
                failed = {str(self._path): str(error)}
                if not self._was_read:
                    # Who logged out is unknown, so everybody logs in once more.
                    self._floor, self._was_read = self._clock.now().timestamp(), True
            for path, why in self._failed.new(failed).items():
                log.warning("admin.sessions_unreadable", path=path, error=why)

    def _take(self, content: bytes) -> None:
        try:
            found = json.loads(content)
            floor = float(found["floor"])
            ended = {str(each): float(until) for each, until in dict(found["ended"]).items()}
        except (ValueError, TypeError, KeyError) as error:
            self._floor = self._clock.now().timestamp()
            log.warning("admin.sessions_unreadable", path=str(self._path), error=str(error))
        else:
            self._floor = max(self._floor, floor)
            self._ended = ended | self._unwritten

    def _prune(self) -> None:
        with self._lock:
            now = self._clock.now().timestamp()
            self._ended = {each: until for each, until in self._ended.items() if until > now}
            if len(self._ended) > self._most:
                self._ended, self._floor = {}, now

    def _write(self) -> None:
        draft = self._path.with_name(f".{self._path.name}.{secrets.token_hex(8)}.part")
        with self._lock:
            told = dict(self._unwritten)
            content = json.dumps({"floor": self._floor, "ended": self._ended}).encode()
        try:
            try:
                with open_private(draft, "wb") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
                draft.replace(self._path)
            finally:
                draft.unlink(missing_ok=True)
        except OSError as error:
            log.warning("admin.sessions_not_written", path=str(self._path), error=str(error))
            return
        with self._lock:
            for each in told:
                self._unwritten.pop(each, None)


def _stamp_of(path: Path) -> tuple[int, ...] | None:
    """What changes whenever the file is replaced; ``None``: there is none."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


class Sessions:
    """Makes cookies, and reads them."""

    def __init__(
        self,
        key: bytes,
        *,
        seconds: float,
        credential: Callable[[SessionKind, str], str | None],
        ended: EndedSessions,
        clock: Clock,
    ) -> None:
        """Take what cookies are signed with.

        Args:
            key: the secret.
            seconds: how long a session lasts.
            credential: what the settings know of a user or token: a hash or digest; ``None``:
                there is none of that name.
            ended: those that were logged out.
            clock: in whose time they end.
        """
        self._key = key
        self._seconds = seconds
        self._credential = credential
        self._ended = ended
        self._clock = clock
        self._serializer = URLSafeTimedSerializer(
            key,
            salt=_SALT,
            signer=_signer_with(clock),
            signer_kwargs={"key_derivation": "hmac", "digest_method": hashlib.sha256},
        )

    def begin(self, kind: SessionKind, name: str) -> str:
        """The cookie of a new session.

        Raises:
            KeyError: the settings have no user or token of that name.
        """
        mark = self._mark(kind, name)
        if mark is None:
            raise KeyError(name)
        value = {"id": secrets.token_urlsafe(16), "kind": kind, "name": name, "mark": mark}
        made = self._serializer.dumps(value)
        return made if isinstance(made, str) else made.decode("ascii")

    def read(self, cookie: str) -> Session | None:
        """The session of a cookie; ``None``: it is none of ours, or has ended."""
        if len(cookie) > MAX_COOKIE:
            return None
        try:
            value, signed_at = self._serializer.loads(cookie, return_timestamp=True)
        except (BadData, ValueError, OverflowError):
            return None
        began_at: datetime = signed_at
        session = Session(
            id=value["id"],
            kind=value["kind"],
            name=value["name"],
            began_at=began_at,
            ends_at=began_at + timedelta(seconds=self._seconds),
        )
        mark = self._mark(session.kind, session.name)
        if mark is None or not hmac.compare_digest(mark, value["mark"]):
            return None
        return session if self.is_valid(session) else None

    def is_valid(self, session: Session) -> bool:
        """Whether it has not ended meanwhile."""
        # A signature of the future is of a clock that was wrong: its session would last too long.
        ahead = session.began_at - self._clock.now()
        if ahead > timedelta(minutes=1) or self._clock.now() >= session.ends_at:
            return False
        return session not in self._ended

    def end(self, session: Session) -> None:
        """Log a session out; it writes a file."""
        self._ended.add(session)

    def csrf_token(self, session_id: str) -> str:
        """What a page has to show with what it changes; a page of somebody else cannot read it."""
        return self._digest("csrf", session_id)

    def _mark(self, kind: SessionKind, name: str) -> str | None:
        known = self._credential(kind, name)
        return None if known is None else self._digest("credential", f"{kind}:{known}")[:32]

    def _digest(self, purpose: str, of: str) -> str:
        text = f"{_SALT}.{purpose}:{of}".encode()
        return hmac.new(self._key, text, hashlib.sha256).hexdigest()


def _signer_with(clock: Clock) -> type[TimestampSigner]:
    """The signer, whose time is that of ``clock``."""

    class ClockedSigner(TimestampSigner):
        def get_timestamp(self) -> int:
            return int(clock.now().timestamp())

    return ClockedSigner
