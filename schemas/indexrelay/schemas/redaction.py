"""What of a mistaken value may be shown: everything that cannot hold a password.

Mistakes are printed, logged and pasted into tickets. A password stands where it belongs (``url``)
or, being a mistake, anywhere near it: ``redis = "redis://:secret@host"``, a misspelt ``ulr``, a
``password`` that is no key of ours, a whole source table. So the rule looks at the key *and* at the
value, and hides when in doubt.
"""

import difflib
import re
from collections.abc import Sequence
from typing import Any, Final

HIDDEN: Final = "(hidden)"
_SECRET_WORDS = re.compile(r"url|uri|dsn|pass|pwd|secret|token|auth|credential|key$", re.IGNORECASE)
_SECRET_TABLES: Final = {"redis", "catalog"}
"""Tables whose keys are about a connection; a text among their unknown keys may be a password."""
_CONNECTION_STRING = re.compile(r"://|@|\bpassword\s*=", re.IGNORECASE)
_URL_LOGIN = re.compile(r"(?<=://)[^\s/@'\"]*:[^\s@'\"]*(?=@)")
_NAMED_SECRET = re.compile(
    r"(\b\w*(?:password|passwd|pwd|secret|token|api_?key|credential)\w*[\"']?\s*[=:]\s*)"
    r"(?:\"[^\"]*\"|'[^']*'|[^\s,;'\"()]+)",
    re.IGNORECASE,
)


def redacted(value: Any, *, key: Sequence[str], unknown: bool = False) -> Any:
    """``value`` as it may be shown under ``key`` (its parts); tables are looked through.

    Args:
        value: what was given, of JSON's or TOML's types.
        key: the parts of the dotted key that it was given for.
        unknown: no setting has that key, so nothing says what the value means.
    """
    if isinstance(value, dict):
        return {
            name: redacted(inner, key=[*key, str(name)], unknown=unknown)
            for name, inner in value.items()
        }
    if isinstance(value, list | tuple):
        return [redacted(inner, key=key, unknown=unknown) for inner in value]
    if value is None or isinstance(value, bool):
        return value
    if _is_secret(key, unknown=unknown):
        return HIDDEN
    return HIDDEN if isinstance(value, str) and _CONNECTION_STRING.search(value) else value


def _is_secret(key: Sequence[str], *, unknown: bool) -> bool:
    last = key[-1] if key else ""
    near_url = bool(difflib.get_close_matches(last.lower(), ["url"], cutoff=0.6))
    in_connection = unknown and any(part in _SECRET_TABLES or part == "source" for part in key[:-1])
    return bool(_SECRET_WORDS.search(last)) or near_url or in_connection or last in _SECRET_TABLES


def without_secrets(text: str) -> str:
    """A sentence or a line of source without the passwords of URLs and of what is named as one."""
    return _NAMED_SECRET.sub(rf"\1{HIDDEN}", _URL_LOGIN.sub(HIDDEN, text))
