"""Session tokens: what a client has written and read, so that no later answer goes back behind it.

A token says, by collection, which generation an answer has to contain. Every write and every answer
gives one; tokens merge, and may be handed to another client. Nobody but us has to read them, and
nobody is believed because of one: whoever makes one up waits in vain, for a bounded time.

There is no clock in it. Generations of one **epoch** compare, since the catalog numbers its commits
in their order. A collection that was dropped and declared again has another epoch, drawn at random,
of which nobody can say by itself whether it is the older one: a merge keeps both. A reader asks the
catalog which one is over, and what was written there was dropped with it. Its answer replaces both
(`SessionToken.after`).

The text is ``s1.`` and the base64url (RFC 4648, section 5, without padding) of the canonical JSON
of a sorted list ``[[collection, epoch, generation], …]``. There is one text for each token.
"""

import base64
import binascii
import json
import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from indexrelay.schemas.errors import IndexRelayError
from indexrelay.schemas.names import canonical_json, is_name

HEADER: Final = "Indexrelay-Session"
"""The header of HTTP that carries one, of requests and of answers."""
MAX_LIVES: Final = 32
"""Collections, those counted twice of which there are two epochs: a header has 16 kB of room."""
MAX_CHARACTERS: Final = 6000
"""The longest names, epochs and generations fit in."""
_VERSION: Final = "s1"
_EPOCH: Final = re.compile(r"[A-Za-z0-9_.-]{1,32}")
_MAX_GENERATION: Final = 2**63 - 1
_FACTS: Final = 3


class SessionTokenError(IndexRelayError, ValueError):
    """Raised when a text is no session token; send one as it was given, or none."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"this is no session token: {reason}")


@dataclass(frozen=True, slots=True)
class Life:
    """One epoch of a collection, and how far into it somebody has seen."""

    collection: str
    epoch: str
    generation: int


class SessionToken:
    """What a client has written and read; immutable.

    Two are equal where they ask for the same. One that is empty asks for nothing.
    """

    __slots__ = ("_seen", "_text")

    def __init__(self, lives: Iterable[Life] = ()) -> None:
        """Of each collection and epoch the greatest generation counts.

        Of more than `MAX_LIVES` those that come first are forgotten.

        Raises:
            SessionTokenError: one of them is of no collection, or no number of a commit.
        """
        seen: dict[tuple[str, str], int] = {}
        for life in lives:
            _check(life)
            key = (life.collection, life.epoch)
            seen[key] = max(life.generation, seen.pop(key, 0))
        for key in list(seen)[: len(seen) - MAX_LIVES]:
            del seen[key]
        self._seen = seen
        self._text: str | None = None

    @classmethod
    def at(cls, collection: str, epoch: str, generation: int) -> "SessionToken":
        """Of one commit, or of an answer that contains everything up to it."""
        return cls([Life(collection, epoch, generation)])

    @classmethod
    def from_text(cls, text: str) -> "SessionToken":
        """The token that `str` gave.

        Raises:
            SessionTokenError: it is none.
        """
        if not isinstance(text, str) or len(text) > MAX_CHARACTERS:
            raise SessionTokenError(f"it is a text of at most {MAX_CHARACTERS} characters")
        version, dot, content = text.partition(".")
        if version != _VERSION or not dot:
            raise SessionTokenError(f"it begins with {_VERSION!r} and a dot")
        token = cls(_lives(content))
        if str(token) != text:  # also where it has too many, or one of them twice
            raise SessionTokenError("it was altered")
        return token

    def __str__(self) -> str:
        if self._text is None:
            content = base64.urlsafe_b64encode(
                canonical_json([[*key, self._seen[key]] for key in sorted(self._seen)])
            )
            self._text = f"{_VERSION}.{content.decode('ascii').rstrip('=')}"
        return self._text

    def __repr__(self) -> str:
        return f"SessionToken({sorted((*key, seen) for key, seen in self._seen.items())})"

    def __iter__(self) -> Iterator[Life]:
        return (Life(*key, generation) for key, generation in self._seen.items())

    def __len__(self) -> int:
        """How many collections and epochs it asks for; 0: it asks for nothing."""
        return len(self._seen)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SessionToken) and self._seen == other._seen

    def __hash__(self) -> int:
        return hash(frozenset(self._seen.items()))

    def merge(self, *others: "SessionToken") -> "SessionToken":
        """What asks for everything that one of them asks for.

        The order does not matter, nor does it to merge one twice.
        """
        return SessionToken(life for token in (self, *others) for life in token)

    def of(self, collections: Collection[str]) -> "SessionToken":
        """What it asks for of these collections, and of no others."""
        return SessionToken(life for life in self if life.collection in collections)

    def after(self, sent: "SessionToken", answer: "SessionToken") -> "SessionToken":
        """What is asked for from now on, where a request with ``sent`` got ``answer``.

        The answer contains what was sent, so an epoch that was sent and is not in the answer's
        collections is over.
        """
        answered = {life.collection: life.epoch for life in answer}
        over = {
            (life.collection, life.epoch)
            for life in sent
            if answered.get(life.collection, life.epoch) != life.epoch
        }
        left = (life for life in self if (life.collection, life.epoch) not in over)
        return SessionToken([*left, *answer])


def _check(life: Life) -> None:
    if not (isinstance(life.collection, str) and is_name(life.collection)):
        raise SessionTokenError(f"{life.collection!r:.100} names no collection")
    if not (isinstance(life.epoch, str) and _EPOCH.fullmatch(life.epoch)):
        raise SessionTokenError(f"{life.epoch!r:.100} is no epoch of a collection")
    # A truth value is an int for Python.
    if type(life.generation) is not int or not 0 <= life.generation <= _MAX_GENERATION:
        raise SessionTokenError(f"{life.generation!r:.100} is no generation of a collection")


def _lives(content: str) -> list[Life]:
    """The facts of a token; raises `SessionTokenError`."""
    try:
        raw = base64.b64decode(content + "=" * (-len(content) % 4), altchars=b"-_", validate=True)
        facts: Any = json.loads(raw)
    except (binascii.Error, ValueError, RecursionError):
        raise SessionTokenError("what follows the dot cannot be read") from None
    if not isinstance(facts, list) or not all(
        isinstance(each, list) and len(each) == _FACTS for each in facts
    ):
        raise SessionTokenError("it holds something else")
    return [Life(*each) for each in facts]
