"""How an error is shown to people: where it came from, what helps, and no secrets.

Kinds, functions and modules of a user run inside of ours, and what they raise is one component's
failure. Its sentence names the last frames of the user's own code, the innermost first: file, line,
function and the line itself as it stands in the file. Values of variables are never among them. The
user's own code is what is neither indexrelay, nor Python itself, nor an installed library.

Errors and mistakes are printed, logged and pasted into tickets. A password stands where it belongs
(``url``) or anywhere near it: ``redis = "redis://:secret@host"``, a misspelt ``ulr``, a whole
source table. So the rule looks at the key *and* at the value, and hides when in doubt.
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
_SECRET_WORDS = re.compile(r"url|uri|dsn|pass|pwd|secret|token|auth|credential|key$", re.IGNORECASE)
_SECRET_TABLES: Final = {"redis", "catalog"}
"""Tables whose keys are about a connection; a text among their unknown keys may be a password."""
_CONNECTION_STRING = re.compile(r"://|@|\bpassword\s*=", re.IGNORECASE)


def redacted(value: Any, *, key: Sequence[str], unknown: bool = False) -> Any:
    """``value`` as it may be shown under ``key`` (its parts); tables are searched.

    Args:
        value: what was given, of JSON's or TOML's types.
        key: the parts of the dotted key that it was given for.
        unknown: no setting has that key, so the value may mean anything.
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
    # Where the sha256 of a token belongs, somebody may have written the token itself.
    of_token = "tokens" in key[:-1] and last not in ("scope", "filter")
    of_live = list(key[:2]) == ["live", "keys"]
    is_named = bool(_SECRET_WORDS.search(last)) or last in _SECRET_TABLES
    return is_named or near_url or in_connection or of_token or of_live


_URL_LOGIN = re.compile(r"(?<=://)[^\s/@'\"]*:[^\s@'\"]*(?=@)")
_NAMED_SECRET = re.compile(
    r"(\b\w*(?:password|passwd|pwd|secret|token|api_?key|credential)\w*[\"']?\s*[=:]\s*)"
    r"(?:\"[^\"]*\"|'[^']*'|[^\s,;'\"()]+)",
    re.IGNORECASE,
)


def without_secrets(text: str) -> str:
    """A sentence or a line of source without the passwords of URLs and of what is named as one."""
    return _NAMED_SECRET.sub(rf"\1{HIDDEN}", _URL_LOGIN.sub(HIDDEN, text))
