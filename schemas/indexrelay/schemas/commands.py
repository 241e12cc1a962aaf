"""The commands that errors and pages advise, each written once.

Advice is pasted into a terminal, so a command in it is complete: every argument that the command
line requires, quoted where a shell needs it. A test parses all of them by the real command line,
and allows no command in any other text.
"""

import shlex
from typing import Final

PROGRAM: Final = "indexrelay"
UP: Final = f"{PROGRAM} up"
REBUILDER: Final = f"{PROGRAM} rebuilder"
OPERATOR: Final = f"{PROGRAM} operator"
ADMIN: Final = f"{PROGRAM} admin"
ADMIN_PASSWORD: Final = f"{PROGRAM} admin password"
READER: Final = f"{PROGRAM} reader --id web-1 --port 8001"
"""A label and a port that a user will change; it works on most machines as it is."""
STATUS: Final = f"{PROGRAM} status"
CHECK: Final = f"{PROGRAM} check"
CHECK_SETTINGS: Final = f"{PROGRAM} config check"
RECONCILE: Final = f"{PROGRAM} reconcile"
REPAIR_REDIS: Final = f"{PROGRAM} repair redis"
DO_REPAIR_REDIS: Final = f"{PROGRAM} repair redis --yes"
READERS: Final = f"{PROGRAM} readers list"
RELEASES: Final = f"{PROGRAM} releases list"
COMPONENTS: Final = f"{PROGRAM} components list"
COLLECTIONS: Final = f"{PROGRAM} collections list"
DEAD_LETTERS: Final = f"{PROGRAM} dead list"
GENERATE_KEY: Final = f"{PROGRAM} keys generate signing.pem"
"""A user will choose another file name."""
CREATE_BACKUP: Final = f"{PROGRAM} backup create"
PROMETHEUS_RULES: Final = f"{PROGRAM} monitor alerts --prometheus"
INSTALL_SERVICE: Final = f"{PROGRAM} service install"
GENERATE_TOKEN: Final = f"{PROGRAM} tokens generate"
SHOW_KEY: Final = f"{PROGRAM} keys show"
RETRY_ALL_LETTERS: Final = f"{PROGRAM} dead retry --all"
DROP_ALL_LETTERS: Final = f"{PROGRAM} dead drop --all"


def rebuild(*components: str, force: bool = False, full: bool = False, here: bool = False) -> str:
    """Build ``components``, due or not; none: whatever is due."""
    wishes = {"--full": full, "--force": force, "--here": here}
    return _command("rebuild", *components, *(each for each, wanted in wishes.items() if wanted))


def run_schedule(name: str, *, force: bool = False) -> str:
    """Ask now for what a schedule asks for."""
    return _command("schedule", "run", name, *(("--force",) if force else ()))


def resume(*components: str) -> str:
    """Build paused components again."""
    return _command("resume", *components)


def sign_release(number: int) -> str:
    """Sign a release with the key that the settings name, after a question."""
    return _command("releases", "sign", str(number))


def lift(*components: str) -> str:
    """Release held components from their versions."""
    return _command("lift", *components)


def component(name: str) -> str:
    """Show one component with its checks, files and history."""
    return _command("components", "show", name)


def collection(name: str) -> str:
    """Show one collection."""
    return _command("collections", "show", name)


def drop_collection(name: str) -> str:
    """Drop a collection, after a question."""
    return _command("collections", "drop", name)


def restore_collection(name: str) -> str:
    """Number a collection's next commits above what releases cover already."""
    return _command("collections", "restore", name)


def reconcile_above(number: int) -> str:
    """Number the next releases above one that was lost with its catalog."""
    return _command("reconcile", "--above", str(number))


def release(number: int) -> str:
    """Show one release."""
    return _command("releases", "show", str(number))


def retry_reader(name: str) -> str:
    """Retry what a reader loads no more."""
    return _command("readers", "retry", name)


def letter(number: int) -> str:
    """Show one dead letter."""
    return _command("dead", "show", str(number))


def reader(label: str) -> str:
    """Start a reader under a label."""
    return _command("reader", "--id", label, "--port", "8001")


def _command(*words: str) -> str:
    """One line for a shell."""
    return shlex.join((PROGRAM, *words))
