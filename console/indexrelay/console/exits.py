"""What a command's exit code says to a script."""

from enum import IntEnum


class ExitCode(IntEnum):
    """One meaning for each; 2 is what every command line uses for a wrong call."""

    SUCCESS = 0
    FAILURE = 1
    USAGE = 2
    """The command line or the settings are wrong; nothing was done."""
    PARTIAL = 3
    """It works, but not all of it: some components failed, or something is behind."""
    INTERRUPTED = 130
    """Ctrl-C, as shells count it: 128 + SIGINT."""
    UNREAD = 141
    """128 + SIGPIPE: who read the answer, such as ``head``, left before its end."""
    TERMINATED = 143
    """128 + SIGTERM, for a command that had not finished."""
