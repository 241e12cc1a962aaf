"""The script ``indexrelay``: runs the command, and turns whatever went wrong into a sentence.

It can be started wherever the distribution is installed: an analysis job's environment has the
script too, but not what a command line needs, and that is then said like anything else.
"""

import os
import sys

from indexrelay.console.escaping import visible_lines
from indexrelay.console.exits import ExitCode
from indexrelay.schemas.failpoints import arm


def main() -> None:
    """Run the command that the arguments name, and exit with its code."""
    arm(os.environ)
    try:
        from indexrelay.console.command_line import build_app

        build_app()(prog_name="indexrelay")
    except KeyboardInterrupt:
        sys.exit(ExitCode.INTERRUPTED)
    except Exception as error:
        from indexrelay.console.explaining import explain

        explained = explain(error)
        if explained is None:
            raise  # ours to mend: the traceback says where
        sys.stderr.write(f"error: {visible_lines(explained.sentence)}\n")
        if explained.advice is not None:
            sys.stderr.write(f"  → {explained.advice}\n")
        sys.exit(explained.exit_code)


if __name__ == "__main__":
    main()
