"""How an error is shown to people: where it came from, what helps, and no secrets.

Kinds, functions and modules of a user run inside of ours, and what they raise is one component's
failure. Its sentence names the last frames of the user's own code, the innermost first: file, line,
function and the line itself as it stands in the file. Values of variables are never among them. The
user's own code is what is neither indexrelay, nor Python itself, nor an installed library.

Errors and mistakes are printed, logged and pasted into tickets. A password stands where it belongs
(``url``) or anywhere near it: ``redis = "redis://:secret@host"``, a misspelt ``ulr``, a whole
source table; a private key where the public one belongs. So of what is wrong a text is shown only
where the setting takes nothing but words, and of what is right where neither key nor value looks
like a secret.
"""

import difflib
import errno
import linecache
import os
import re
import site
import sys
import sysconfig
from collections.abc import Iterator, Mapping, Sequence
from datetime import date, time
from functools import lru_cache
from pathlib import Path
from types import CodeType, TracebackType
from typing import Any, Final

_MOST_FRAMES: Final = 3
_MOST_CHARACTERS: Final = 160
"""Of one line of source code."""
_MOST_MESSAGE: Final = 2000
"""Characters of the error's own message: it may quote a whole file."""


def describe_error(error: BaseException) -> str:
    """The error in one line: type, message, advice, and where in the user's code it came from.

    Advice is given where the operating system refused something.
    """
    message = " ".join(_message(error).split())
    if isinstance(error, SyntaxError):  # its own text names no folder
        message = error.msg
    sentence = type(error).__name__ + (f": {message[:_MOST_MESSAGE]}" if message else "")
    if isinstance(error, OSError) and (advice := advice_on(error.errno)):
        sentence += f"; {advice}"
    frames = origin(error)
    where = f" ({' ← '.join(frames)})" if frames else ""
    return without_secrets(sentence) + where


def _message(error: BaseException) -> str:
    """What it says, where it can: its ``__str__`` is the user's code as well."""
    try:
        return str(error)
    except Exception as failure:  # noqa: BLE001 - whatever it is, the error has a name
        return f"its message cannot be read ({type(failure).__name__})"


def origin(error: BaseException) -> tuple[str, ...]:
    """The last frames of the user's own code that led to ``error``, the innermost first."""
    frames = list(_frames(error))
    if isinstance(error, SyntaxError) and error.filename and _is_users(error.filename, ""):
        frames.append(_described(error.filename, error.lineno or 1, "<module>"))
    return tuple(reversed(frames[-_MOST_FRAMES:]))


def _frames(error: BaseException) -> Iterator[str]:
    """From its own traceback, or else from that of its cause; outermost first."""
    seen: set[int] = set()
    each: BaseException | None = error
    while each is not None and id(each) not in seen:
        seen.add(id(each))
        steps = list(_steps(each.__traceback__))
        # The frames above our first one are the application that calls us.
        called = next((place for place, (module, _, _) in enumerate(steps) if _is_ours(module)), 0)
        own = [
            _described(code.co_filename, line, code.co_qualname)
            for module, line, code in steps[called:]
            if _is_users(code.co_filename, module)
        ]
        if own:
            yield from own
            return
        each = each.__cause__


def _steps(trace: TracebackType | None) -> Iterator[tuple[str, int, CodeType]]:
    """Of each frame: the name of its module, the line, and its code; outermost first."""
    while trace is not None:
        frame = trace.tb_frame
        yield str(frame.f_globals.get("__name__", "")), trace.tb_lineno, frame.f_code
        trace = trace.tb_next


_OURS: Final = "indexrelay"


def _is_ours(module: str) -> bool:
    return module.partition(".")[0] == _OURS


def _is_users(file: str, module: str) -> bool:
    if file.startswith("<") or _is_ours(module):
        return False
    return not any(Path(file).is_relative_to(folder) for folder in _installed())


@lru_cache(maxsize=1)
def _installed() -> tuple[Path, ...]:
    """Where Python and its libraries are."""
    paths = sysconfig.get_paths()
    folders = [paths[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    folders += site.getsitepackages() if hasattr(site, "getsitepackages") else []
    folders.append(site.getusersitepackages())
    return tuple({Path(folder).resolve() for folder in folders} | {Path(f) for f in folders})


def _described(file: str, line: int, function: str) -> str:
    source = linecache.getline(file, line).strip()
    shown = source if len(source) <= _MOST_CHARACTERS else f"{source[:_MOST_CHARACTERS]}…"
    hidden = without_secrets(_ASSIGNED_TEXT.sub(r"\1(hidden)", shown))
    where = f"{_relative(Path(file))}:{line} in {function}"
    return f"{where}: {hidden}" if hidden else where


_ASSIGNED_TEXT = re.compile(
    r"((?:\w*(?:pass|pwd|secret|token|auth|credential|key)\w*)[\"']?\s*[=:]\s*)([rbf]?[\"']).*",
    re.IGNORECASE,
)


def _relative(file: Path) -> Path:
    """The file as it is imported: below the longest folder that modules are looked for in."""
    folders = [Path(entry or ".").resolve() for entry in sys.path]
    above = [folder for folder in folders if file.is_relative_to(folder)]
    if not above:
        return file
    return file.relative_to(max(above, key=lambda folder: len(folder.parts)))


_FULL: Final = "make room on that disk; it goes on by itself then"
_DENIED: Final = "let this process's user read and write there, or name another place"
_AWAY: Final = "see that the volume is mounted; whoever starts makes the folders that are missing"
_NO_FOLDER: Final = "something else lies where a folder should be: move it away, or name another"
_FAILING: Final = "look after that disk, or the network file system"
_ADVICE: Final[Mapping[int, str]] = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EACCES: _DENIED,
    errno.EPERM: _DENIED,
    errno.EROFS: _DENIED,
    errno.ENOENT: _AWAY,
    errno.ENOTDIR: _NO_FOLDER,
    errno.EEXIST: _NO_FOLDER,
    errno.EIO: _FAILING,
    errno.ESTALE: _FAILING,
    errno.EMFILE: "allow this process more open files (ulimit -n)",
    errno.ENOMEM: "give this process more memory, or more room for maps (vm.max_map_count)",
    errno.ENFILE: "allow this machine more open files (fs.file-max)",
    errno.ENAMETOOLONG: "name a shorter path",
    errno.EADDRINUSE: "another process listens there: end it, or name another port",
    errno.EADDRNOTAVAIL: "this machine has no such address: name one that it has",
    errno.ECONNREFUSED: "start the server, or correct its address",
}


def advice_on(number: int | None) -> str | None:
    """The advice for an ``errno``; ``None``: there is none that is always right."""
    return None if number is None else _ADVICE.get(number)


def errno_in(words: str) -> int | None:
    """The ``errno`` whose text ends ``words``; ``None``: none does.

    For libraries that report the operating system's refusal in words only, as FAISS does:
    ``could not open … for reading: Too many open files``.
    """
    text = words.rstrip(" .)")
    found = [number for number in errno.errorcode if text.endswith(os.strerror(number))]
    return max(found, key=lambda number: len(os.strerror(number)), default=None)


HIDDEN: Final = "(hidden)"
_HIDDEN_FORM = re.compile(r"\(hidden(: [a-z0-9, ]+)?\)")
_SECRET_WORDS = re.compile(r"url|uri|dsn|pass|pwd|secret|token|auth|credential|key$", re.IGNORECASE)
_SECRET_TABLES: Final = {"redis", "catalog"}
"""Tables whose keys are about a connection."""
_CONNECTION_STRING = re.compile(r"://|@|\bpassword\s*=", re.IGNORECASE)
_KNOWN_SECRET = re.compile(
    r"AGE-SECRET-KEY-\w+|-----BEGIN [^-]*-----[^\"']*|\$argon2\w*\$[\w$=,+/]+"
    r"|\b(?:xox[a-z]-|sk-|gh[a-z]_|github_pat_|glpat-|AKIA|eyJ)[\w.-]{6,}",
    re.IGNORECASE,
)
"""Keys, hashes and tokens that are known by how they begin."""
_WORD = r"(?:[A-Z]{0,3}[a-z]+(?:[A-Z][a-z]+){0,3}[0-9]{0,4}|[A-Z]+[0-9]{0,4}|[0-9]{1,4}[a-z]?)"
_PLAIN_TEXT = re.compile(
    r"|[-+]?[0-9][0-9._,]{0,11} ?[A-Za-z%]{0,12}"
    rf"|:?{_WORD}(?:(?:[-_.:,/ ]| → ){_WORD}){{0,11}}\s?"
)
"""Nothing, a number with its unit, or a few words, as of a name: none has digits in its midst."""
_MOST_PLAIN: Final = 80
_KEY_PART = re.compile(r"[\w-]{1,64}", re.ASCII)
_NAMED_TABLES: Final = {"tokens", "users", "targets"}
"""Tables of secrets by names; somebody may have written the secret in the place of its name."""
_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")
_DRAWN = re.compile(r"(?=.*[a-z])(?=.*[A-Z])(?=.*[0-9]).{16,}|[0-9a-fA-F]{32,}")
"""What nobody has written by hand."""


def redacted(value: Any, *, key: Sequence[str]) -> Any:
    """The ``value`` of a setting that is right, as it may be shown; tables are searched.

    Args:
        value: what was given, of JSON's or TOML's types.
        key: the parts of the dotted key that it was given for.
    """
    if isinstance(value, dict):
        return {name: redacted(inner, key=[*key, str(name)]) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [redacted(inner, key=key) for inner in value]
    if value is None or isinstance(value, bool):
        return value
    if _is_secret(key):
        return HIDDEN
    return HIDDEN if isinstance(value, str) and _looks_secret(value) else value


def quoted(value: Any, *, key: Sequence[str], plain: bool) -> Any:
    """The ``value`` of a mistake as it may be shown: only where it cannot be a secret.

    A secret stands where a mistake is likeliest: in the line beside its own, under a key that is
    misspelt, in the place of its public half. So numbers, truth values and dates are shown, and a
    short text where the setting takes nothing but words; of all else only what it is.

    Args:
        value: what was given, of JSON's or TOML's types.
        key: the parts of the dotted key that it was given for.
        plain: whether the setting takes only numbers, truth values, names and words of a list.
    """
    match value:
        case None | bool() | date() | time():
            return value
        case dict() if not value:
            return value
        case list() | tuple():
            return [quoted(each, key=key, plain=plain) for each in value]
        case str() if _HIDDEN_FORM.fullmatch(value):
            return value
        case str() | int() | float() if _is_secret(key):
            return HIDDEN
        case int() | float():
            return value
        case str() if plain and _is_plain(value):
            return value
        case str() if list(key) == [_FILE] and not _looks_secret(value):
            return value
        case _:
            return unquoted(value)


_FILE: Final = "config"
"""No setting: the path of the settings file, as it was given on the command line."""


def unquoted(value: Any) -> str:
    """What a value is that may not be shown."""
    match value:
        case str():
            kind = f"text of {len(value)} character{'' if len(value) == 1 else 's'}"
        case dict():
            kind = "table"
        case list() | tuple():
            kind = "list"
        case bool():
            kind = "true or false"
        case int() | float():
            kind = "number"
        case _:
            return HIDDEN
    return f"(hidden: {kind})"


def is_hidden(value: Any) -> bool:
    """Whether this stands in the place of a value that may not be shown."""
    return isinstance(value, str) and _HIDDEN_FORM.fullmatch(value) is not None


def without_quotes(sentence: str, value: Any, *, plain: bool) -> str:
    """The sentence, without the texts of a ``value`` that may not be shown, if it quotes them."""
    if isinstance(value, dict):
        value = [*value.values()]
    if isinstance(value, list | tuple):
        for each in value:
            sentence = without_quotes(sentence, each, plain=plain)
    elif isinstance(value, str) and value and not is_hidden(value):
        if plain and _is_plain(value):
            return sentence
        sentence = sentence.replace(repr(value), HIDDEN)
        if len(value) >= (_LONG if value.isalpha() else _SHORT):
            sentence = re.sub(rf"(?<!\w){re.escape(value)}(?!\w)", HIDDEN, sentence)
    return sentence


_SHORT: Final = 8
_LONG: Final = 16
"""Characters of a text that is no common word, and so is looked for without its quotes as well;
fewer where they are not all letters."""


def shown_key(key: str) -> str:
    """A dotted key without those of its parts that no person would have named anything."""
    if _looks_secret(key):
        return HIDDEN
    parts = key.split(".")
    return ".".join(
        part if part == HIDDEN or _is_key(part, below) else HIDDEN
        for below, part in zip(["", *parts], parts, strict=False)
    )


def _is_key(part: str, below: str) -> bool:
    pattern = _NAME if below in _NAMED_TABLES else _KEY_PART
    return bool(pattern.fullmatch(part) and not _DRAWN.fullmatch(part))


def _is_plain(text: str) -> bool:
    return (
        len(text) <= _MOST_PLAIN
        and not _looks_secret(text)
        and not _DRAWN.fullmatch(text)
        and _PLAIN_TEXT.fullmatch(text) is not None
    )


def _looks_secret(text: str) -> bool:
    return bool(_CONNECTION_STRING.search(text) or _KNOWN_SECRET.search(text))


def _is_secret(key: Sequence[str]) -> bool:
    last = key[-1] if key else ""
    near_url = bool(difflib.get_close_matches(last.lower(), ["url"], cutoff=0.6))
    # Where the sha256 of a token belongs, somebody may have written the token itself.
    of_token = "tokens" in key[:-1] and last not in ("scope", "filter", "role")
    of_live = list(key[:2]) == ["live", "keys"]
    is_named = bool(_SECRET_WORDS.search(last)) or last in _SECRET_TABLES
    return is_named or near_url or of_token or of_live


_URL_LOGIN = re.compile(r"(?<=://)[^\s/@'\"]*:[^\s@'\"]*(?=@)")
_NAMED_SECRET = re.compile(
    r"(\b\w*(?:password|passwd|pwd|secret|token|api_?key|credential)\w*[\"']?\s*[=:]\s*)"
    r"(?:\"[^\"]*\"|'[^']*'|[^\s,;'\"()]+)",
    re.IGNORECASE,
)


def without_secrets(text: str) -> str:
    """A sentence or a line of source without the passwords of URLs, without keys and tokens that
    are known by how they begin, and without what is named as one."""
    text = _KNOWN_SECRET.sub(HIDDEN, _URL_LOGIN.sub(HIDDEN, text))
    return _NAMED_SECRET.sub(rf"\1{HIDDEN}", text)
