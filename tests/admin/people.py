"""Who logs in to the admin page of a test, with what; the hashes cost nothing."""

from functools import cache
from typing import Any, Final

from argon2 import PasswordHasher

from indexrelay.service.tokens import digest_of, new_token

PASSWORDS: Final = {"ada": "correct horse battery", "ben": "staple of the viewer"}
ROLES: Final = {"ada": "operator", "ben": "viewer"}
TOKENS: Final = {"deploys": new_token(), "watches": new_token()}
TOKEN_ROLES: Final = {"deploys": "operator", "watches": "viewer"}


@cache
def cheap_hash(password: str, *, time_cost: int = 1) -> str:
    """Of a password, in microseconds."""
    return PasswordHasher(time_cost=time_cost, memory_cost=8, parallelism=1).hash(password)


def people() -> dict[str, Any]:
    """The tables ``users`` and ``tokens`` of ``[admin]``."""
    return {
        "users": {
            name: {"password": cheap_hash(password), "role": ROLES[name]}
            for name, password in PASSWORDS.items()
        },
        "tokens": {
            name: {"sha256": digest_of(token), "role": TOKEN_ROLES[name]}
            for name, token in TOKENS.items()
        },
    }
