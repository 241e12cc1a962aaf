"""Makes the modules beside the settings importable, for kinds and functions of the user's own.

``kind = "my_kinds:Thing"`` names a module that may lie next to ``indexrelay.toml``, as a web
application lies in the folder where its server is started. It is the settings' folder and not the
current one, so that every role finds the same module, wherever it was started. The settings name
code to run anyway: whoever can write there needs no module beside them.

The folder comes last: a file of the user's that is called ``queue.py`` or ``redis.py`` must not
take the place of the module of that name, in this process and in the builds that it starts.
"""

import sys
from collections.abc import Mapping
from pathlib import Path

from indexrelay.schemas.settings_file import DEFAULT_FILE
from indexrelay.schemas.variables import CONFIG


def settings_folder(config: Path | None, environ: Mapping[str, str]) -> Path:
    """Where the settings are that `load_settings` would read; without any, the current folder."""
    return Path(config or environ.get(CONFIG) or DEFAULT_FILE).resolve().parent


def make_importable(folder: Path) -> None:
    """Let modules in ``folder`` be imported, after everything that is installed; safe twice."""
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
