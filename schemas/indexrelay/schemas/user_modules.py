"""Makes the modules beside the settings importable, for kinds and functions of the user's own.

``kind = "my_kinds:Thing"`` names a module that may lie next to ``indexrelay.toml``, as a web
application lies in the folder where its server is started. It is the settings' folder and not the
current one, so that every role finds the same module, wherever it was started: whoever opens kinds
(a reader, a rebuilder and what builds for it, the testing pipeline, a command) calls `let_import`.
The settings name code to run anyway: whoever can write there needs no module beside them.

The folder is added to ``sys.path`` only where the settings name a module at all, and last: a file
of the user's that is called ``queue.py`` or ``redis.py`` must not take the place of the module of
that name, in this process and in the builds that it starts.
"""

import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from indexrelay.schemas.settings import Settings

_REFERENCE: Final = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")
_added: list[str] = []
"""The folders that were added here: with ``sys.path`` they say where was looked."""


def let_import(settings: "Settings") -> None:
    """Let the modules be imported that the components of ``settings`` name; safe twice."""
    named = any(
        _names_module(definition.kind) or any(map(_names_module, definition.parameters.values()))
        for definition in settings.components.values()
    )
    if settings.modules_dir is not None and named:
        make_importable(settings.modules_dir)


def make_importable(folder: Path) -> None:
    """Let modules in ``folder`` be imported, after everything that is installed; safe twice."""
    text = str(folder.resolve())
    if text not in sys.path:
        sys.path.append(text)
    if text not in _added:
        _added.append(text)


def modules_folder(raw: Mapping[str, Any], folder: Path) -> Path:
    """The folder of the modules, for tables that were read in ``folder``."""
    given = raw.get("modules_dir")
    return folder / given if isinstance(given, str) else folder


def where_was_looked() -> str:
    """For an error: the folders of the settings that were read, and this Python's own."""
    folders = [folder for folder in _added if folder in sys.path]
    if not folders:
        return "looked among what is installed, and in no folder of settings (modules_dir)"
    return f"looked in {', '.join(folders)} and among what is installed"


def _names_module(value: object) -> bool:
    return isinstance(value, str) and _REFERENCE.fullmatch(value) is not None
