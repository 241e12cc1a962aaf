"""Builds: events → due components → build → verify → release → reload message.

It never talks to a reader: everything that a reader needs is in the release.
"""

from indexrelay.rebuilder.builds import (
    BuildCancelledError,
    BuildDiedError,
    BuildError,
    BuildRunner,
    BuildSession,
    BuildTimedOutError,
    GateFailedError,
)
from indexrelay.rebuilder.builds.job import InlineRunner
from indexrelay.rebuilder.service import Rebuilder
from indexrelay.schemas.logs import show_logs

__all__ = [
    "BuildCancelledError",
    "BuildDiedError",
    "BuildError",
    "BuildRunner",
    "BuildSession",
    "BuildTimedOutError",
    "GateFailedError",
    "InlineRunner",
    "Rebuilder",
    "show_logs",
]
