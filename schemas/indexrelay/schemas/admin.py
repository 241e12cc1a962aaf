"""The table ``[admin]``: where the admin page is served, who may look, and who may change things.

The settings know digests only: of a password an Argon2 hash, of a token its sha256. Where they name
neither, whoever reaches the page may do everything, and so it is reached from this machine only.
"""

import ipaddress
import re
from typing import Annotated, Final, Literal, Self, TypeAlias

from pydantic import AfterValidator, Field, SecretStr, field_validator, model_validator

from indexrelay.schemas import commands
from indexrelay.schemas.monitoring import is_loopback
from indexrelay.schemas.names import Name
from indexrelay.schemas.tables import PositiveSeconds, Table, UserPath

AdminRole: TypeAlias = Literal["viewer", "operator"]
CookieKey = Annotated[SecretStr, Field(min_length=32, max_length=1000)]

_HASH: Final = re.compile(
    r"\$argon2id\$v=19\$m=(?P<memory>[0-9]{1,7}),t=(?P<time>[0-9]{1,3}),p=(?P<lanes>[0-9]{1,2})"
    r"\$[A-Za-z0-9+/]{11,86}\$[A-Za-z0-9+/]{22,86}"
)
"""The string format of Argon2 (RFC 9106; PHC string format)."""
_MOST_MEMORY_KIB: Final = 262_144
_MOST_PASSES: Final = 20
_MOST_LANES: Final = 16


def _address(text: str) -> str:
    """In the one form in which a socket names it."""
    return str(ipaddress.ip_address(text))


Address = Annotated[str, AfterValidator(_address)]


class AdminUser(Table):
    """One table ``[admin.users.NAME]``: who logs in by a password."""

    password: SecretStr
    """Its Argon2 hash, as ``indexrelay admin password`` makes it; it is never shown. Who reads it
    can try passwords against it: keep the file to yourself, or give it by its variable,
    ``INDEXRELAY_ADMIN__USERS__NAME__PASSWORD``."""
    role: AdminRole = "viewer"
    """``viewer``: sees everything, and changes nothing. ``operator``: also has things done, such as
    rebuilds and rollbacks."""

    @field_validator("password")
    @classmethod
    def _is_a_hash(cls, password: SecretStr) -> SecretStr:
        """The error quotes no part of it: somebody may have written the password."""
        found = _HASH.fullmatch(password.get_secret_value())
        if found is None:
            raise ValueError(f"write an Argon2 hash, as {commands.ADMIN_PASSWORD} prints it")
        if (
            int(found["memory"]) > _MOST_MEMORY_KIB
            or int(found["time"]) > _MOST_PASSES
            or int(found["lanes"]) > _MOST_LANES
        ):
            raise ValueError(
                f"this hash would take too much for each login: at most m={_MOST_MEMORY_KIB}, "
                f"t={_MOST_PASSES} and p={_MOST_LANES} may be in it"
            )
        return password


class AdminToken(Table):
    """One table ``[admin.tokens.NAME]``: a bearer token for programs, by its sha256. ``indexrelay
    tokens generate`` makes one."""

    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    """Of the token, in hexadecimal: who reads the settings cannot log in with it."""
    role: AdminRole = "viewer"
    """As of a user."""


class AdminSettings(Table):
    """The admin page and its API (``indexrelay admin``): where they are, and for whom."""

    host: str = "127.0.0.1"
    """The address to listen on. Without users and tokens it must be a loopback address."""
    port: Annotated[int, Field(ge=0, le=65535)] = 8090
    """The port; 0: any that is free, which is printed at start."""
    hosts: tuple[str, ...] = ()
    """Names, without a port, that it answers to beside ``localhost``, addresses and this machine's
    own name (421): those that a proxy passes on as Host."""
    https: bool = False
    """Whether browsers reach it by https, through a proxy that speaks TLS: its cookie is then sent
    over https only."""
    proxies: tuple[Address, ...] = ()
    """Addresses of proxies whose ``X-Forwarded-For`` says who asks, for the limit of logins and the
    audit log. None: who is connected asks."""
    users: dict[Name, AdminUser] = Field(default_factory=dict)
    """Who logs in by a password."""
    tokens: dict[Name, AdminToken] = Field(default_factory=dict)
    """What programs show. Without users and tokens nobody is asked, whoever reaches it is an
    operator, and it is reached from this machine only."""
    session_seconds: PositiveSeconds = 43_200.0
    """How long a login lasts: a working day. A changed password ends it at the next start."""
    cookie_key: CookieKey | None = None
    """The secret that sessions are signed with, of 32 characters and more; ``openssl rand -hex 32``
    makes one. Give it by its variable, ``INDEXRELAY_ADMIN__COOKIE_KEY``. Another one ends every
    session. ``None``: that of ``cookie_key_file``."""
    cookie_key_file: UserPath | None = None
    """A file that holds this secret, for its owner alone. Relative to the file that names it.
    ``None``: ``DATA_DIR/admin-cookie.key``, which is made where it is missing."""

    @field_validator("tokens")
    @classmethod
    def _each_has_one_name(cls, tokens: dict[str, AdminToken]) -> dict[str, AdminToken]:
        names: dict[str, str] = {}
        for name, token in tokens.items():
            first = names.setdefault(token.sha256, name)
            if first != name:
                raise ValueError(f"{first} and {name} are the same token: draw another one")
        return tokens

    @model_validator(mode="after")
    def _strangers_log_in(self) -> Self:
        if self.open and not is_loopback(self.host):
            raise ValueError(
                f"{self.host} is reached from other machines: name a user in [admin.users.NAME] "
                f"({commands.ADMIN_PASSWORD} makes the hash) or a token, or use 127.0.0.1"
            )
        if self.cookie_key is not None and self.cookie_key_file is not None:
            raise ValueError("give cookie_key or cookie_key_file, not both")
        return self

    @property
    def open(self) -> bool:
        """Whether nobody is asked who they are."""
        return not self.users and not self.tokens
