"""The URLs of the settings: the Redis server's in its three forms, and the database's.

The server's URL has one of these forms::

    redis://[USER:PASSWORD@]HOST[:PORT][/DB]                                one server
    unix://[USER:PASSWORD@]/PATH[?db=DB]                                    one on this machine
    redis+sentinel://[USER:PASSWORD@]HOST[:PORT],HOST[:PORT]…/SERVICE[/DB]  whichever is primary

With ``rediss`` instead of ``redis`` the connection is encrypted. Behind ``redis+sentinel`` stand
the Sentinels, as other clients of Redis write it; user and password are those of the servers, and
the Sentinels' own go into the query: ``?sentinel_username=…&sentinel_password=…``.

It is read with the settings, so that ``indexrelay check`` finds a mistake, and again where it is
used. Errors quote no part of a URL: in a wrong one the password may stand anywhere.

A path is never pasted into a database URL, where a ``?``, a ``#`` or a percent sequence in a
folder's name would lead elsewhere: SQLAlchemy's own constructor writes it, as its parser reads it.
Only then SQLAlchemy is loaded, which a check of settings does not need.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import SplitResult, parse_qsl, unquote, urlencode, urlsplit

from pydantic import SecretStr

SENTINEL_PORT: Final = 26379
_SINGLE: Final = ("redis", "rediss", "unix")
_SENTINELS: Final = ("redis+sentinel", "rediss+sentinel")
_OF_SENTINELS: Final = "sentinel_"
"""Options of the query that begin like this are for the Sentinels, without it."""
_ENCODED: Final = "special characters of a password are percent-encoded"


@dataclass(frozen=True, kw_only=True)
class ServerUrl:
    """A parsed URL; it may hold a password, and `repr` does not show it."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}(…)"


@dataclass(frozen=True, kw_only=True, repr=False)
class SingleUrl(ServerUrl):
    """One server, for redis-py to reach as it is written."""

    url: str


@dataclass(frozen=True, kw_only=True, repr=False)
class SentinelUrl(ServerUrl):
    """Servers of which one is the primary, and the Sentinels that know which."""

    sentinels: tuple[tuple[str, int], ...]
    """Host and port of each."""
    service: str
    """The name under which the Sentinels watch the servers."""
    server: str
    """User, password, database and options of the servers, as a URL of one of them."""
    sentinel: str
    """The same for a Sentinel."""


def read_server_url(url: str) -> SingleUrl | SentinelUrl:
    """Parse ``url``.

    Raises:
        ValueError: with what is wrong and what would be right; it quotes no part of the URL.
    """
    scheme, separator, _ = url.partition("://")
    if not separator or scheme not in (*_SINGLE, *_SENTINELS):
        raise ValueError(
            f"must begin with one of {', '.join(f'{s}://' for s in _SINGLE)}, {_SENTINELS[0]}://"
        )
    try:
        parts = urlsplit(url)
        options = dict(parse_qsl(parts.query, strict_parsing=bool(parts.query)))
    except ValueError:  # it quotes what it could not read
        raise ValueError(f"its host or query cannot be read; {_ENCODED}") from None
    if "db" in options:
        _database(options["db"])
    if scheme in _SENTINELS:
        return _sentinels(parts, options)
    if scheme == "unix":
        if not parts.path.strip("/"):
            raise ValueError("must name a socket: unix:///PATH")
    else:
        _host_and_port(parts.netloc.rpartition("@")[2], default=0)
        _database(unquote(parts.path).strip("/"))
    return SingleUrl(url=url)


def _sentinels(parts: SplitResult, options: dict[str, str]) -> SentinelUrl:
    login, _, hosts = parts.netloc.rpartition("@")
    sentinels = tuple(_host_and_port(each, default=SENTINEL_PORT) for each in hosts.split(","))
    service, _, database = unquote(parts.path).strip("/").partition("/")
    if not all(host for host, _ in sentinels) or not service:
        raise ValueError(
            "must name the Sentinels and the service that they watch: "
            "redis+sentinel://HOST:PORT,HOST:PORT/SERVICE/DB"
        )
    _database(database)
    scheme = parts.scheme.removesuffix("+sentinel")
    own = {key: value for key, value in options.items() if not key.startswith(_OF_SENTINELS)}
    theirs = {
        key.removeprefix(_OF_SENTINELS): value
        for key, value in options.items()
        if key.startswith((_OF_SENTINELS, "ssl_"))
    }
    return SentinelUrl(
        sentinels=sentinels,
        service=service,
        server=f"{scheme}://{login + '@' if login else ''}localhost/{database}?{urlencode(own)}",
        sentinel=f"{scheme}://localhost?{urlencode(theirs)}",
    )


def _host_and_port(text: str, *, default: int) -> tuple[str, int]:
    try:
        parts = urlsplit(f"//{text}")
        port = parts.port
    except ValueError:
        raise ValueError(f"its port must be a number up to 65535; {_ENCODED}") from None
    return parts.hostname or "", default if port is None else port


def _database(text: str) -> None:
    if text and not (text.isascii() and text.isdecimal()):
        raise ValueError(f"its database must be a number; {_ENCODED}")


def database_kind(url: SecretStr) -> str:
    """The kind of database, without a driver; empty where it is no URL with a port that can be."""
    try:
        parts = urlsplit(url.get_secret_value())
        _ = parts.port
    except ValueError:
        return ""
    return parts.scheme.partition("+")[0]


def sqlite_url(path: Path) -> str:
    """The URL of an SQLite database in a file, whatever its folders are called."""
    from sqlalchemy import URL

    url = URL.create("sqlite", database=str(path))
    return url.render_as_string(hide_password=False)


def anchored(url: SecretStr, folder: Path) -> SecretStr:
    """An SQLite URL whose file is seen from ``folder``, or from home; every other URL as it is."""
    if database_kind(url) != "sqlite":
        return url
    from sqlalchemy import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        parsed = make_url(url.get_secret_value())
    except (ArgumentError, ValueError):
        return url  # connecting reports what is wrong with it
    path = parsed.database
    if not path or path.startswith((":memory:", "file:")):
        return url
    there = parsed.set(database=str(folder / Path(path).expanduser()))
    return SecretStr(there.render_as_string(hide_password=False))
