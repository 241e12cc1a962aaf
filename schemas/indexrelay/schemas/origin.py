"""Where in a user's own code an error came from: ``KeyError: 'genre'`` alone helps nobody.

Kinds, functions and modules of a user run inside of ours, and what they raise is one component's
failure. Its sentence names the last frames of the user's own code, the innermost first: file, line,
function and the line itself as it stands in the file. Values of variables are never among them, and
what looks like a secret is hidden.

The user's own code is what is neither indexrelay, nor Python itself, nor an installed library.
"""

import linecache
import re
import site
import sys
import sysconfig
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from types import CodeType, TracebackType
from typing import Final

from indexrelay.schemas.redaction import without_secrets
from indexrelay.schemas.system_advice import advice_on

_MOST_FRAMES: Final = 3
_MOST_CHARACTERS: Final = 160
"""Of one line of source."""
_MOST_WORDS: Final = 2000
"""Of the error's own message: what a function raises may quote a whole file."""
_OURS: Final = "indexrelay"
_ASSIGNED_TEXT = re.compile(
    r"((?:\w*(?:pass|pwd|secret|token|auth|credential|key)\w*)[\"']?\s*[=:]\s*)([rbf]?[\"']).*",
    re.IGNORECASE,
)


def told(error: BaseException) -> str:
    """The error in one line: type, message, what helps, and where in the user's code it came from.

    What helps is known of what the operating system refuses.
    """
    message = " ".join(str(error).split())
    if isinstance(error, SyntaxError):  # its own text names no folder
        message = error.msg
    sentence = type(error).__name__ + (f": {message[:_MOST_WORDS]}" if message else "")
    if isinstance(error, OSError) and (advice := advice_on(error.errno)):
        sentence += f"; {advice}"
    frames = origin(error)
    where = f" ({' ← '.join(frames)})" if frames else ""
    return without_secrets(sentence) + where


def origin(error: BaseException) -> tuple[str, ...]:
    """The last frames of the user's own code that led to ``error``, the innermost first."""
    frames = list(_frames(error))
    if isinstance(error, SyntaxError) and error.filename and _is_users(error.filename, ""):
        frames.append(_described(error.filename, error.lineno or 1, "<module>"))
    return tuple(reversed(frames[-_MOST_FRAMES:]))


def _frames(error: BaseException) -> Iterator[str]:
    """Of its own traceback, or else of the error that it was raised from; outermost first."""
    seen: set[int] = set()
    each: BaseException | None = error
    while each is not None and id(each) not in seen:
        seen.add(id(each))
        steps = list(_steps(each.__traceback__))
        # What calls us is an application, and not what it is told about.
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


def _relative(file: Path) -> Path:
    """The file as it is imported: below the longest folder that modules are looked for in."""
    folders = [Path(entry or ".").resolve() for entry in sys.path]
    above = [folder for folder in folders if file.is_relative_to(folder)]
    if not above:
        return file
    return file.relative_to(max(above, key=lambda folder: len(folder.parts)))
