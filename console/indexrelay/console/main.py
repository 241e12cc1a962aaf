"""The script ``indexrelay``: runs the command, and turns whatever went wrong into a sentence.

It can be started wherever the distribution is installed. An analysis job's environment has the
script, but not what a command line needs; the answer then names the extra to install.
"""

import os
import sys
from contextlib import ExitStack
from typing import Final

from indexrelay.console.errors import ExitCode, explain
from indexrelay.console.hangup import noting_hangup
from indexrelay.console.terminal import (
    ANSWERS,
    adapted,
    leave_quietly,
    prepare_streams,
    print_json,
    visible_lines,
)
from indexrelay.schemas.failpoints import arm

_ROLES: Final = frozenset({"rebuilder", "reader", "operator", "admin", "up"})
"""Commands that read their settings again at SIGHUP."""


def main() -> None:
    """Run the command that the arguments name, and exit with its code."""
    with ExitStack() as stack:
        if not _ROLES.isdisjoint(sys.argv[1:2]):
            stack.enter_context(noting_hangup())  # before what takes long is imported
        arm(os.environ)
        prepare_streams()
        code: int = ExitCode.FAILURE
        try:
            code = _run()
        finally:
            code = _finished(code)
    sys.exit(code)


def _run() -> int:
    """The exit code of the command."""
    try:
        from indexrelay.console.commands import build_command

        build_command()(prog_name="indexrelay")
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else ExitCode.FAILURE
    except Exception as error:
        explained = explain(error)
        if explained is None:
            raise  # a fault of the program: the traceback shows where
        if "--json" in sys.argv and not ANSWERS.given:
            print_json({"error": explained.sentence, "advice": explained.advice})
        sys.stderr.write(f"error: {visible_lines(adapted(explained.sentence))}\n")
        if explained.advice is not None:
            sys.stderr.write(f"  → {adapted(explained.advice)}\n")
        return explained.exit_code
    return ExitCode.SUCCESS


def _finished(code: int) -> int:
    """Write what is left of the answer; the exit code, another one where that fails."""
    try:
        ANSWERS.give_back()
        sys.stdout.flush()
    except BrokenPipeError:
        code = ExitCode.UNREAD
    except OSError as error:
        sys.stderr.write(f"error: the answer cannot be written: {error}\n")
        code = ExitCode.FAILURE
    else:
        return code
    leave_quietly()
    return code


if __name__ == "__main__":
    main()
