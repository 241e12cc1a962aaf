"""Builds: events → due components → build → verify → release → reload message.

Never talks to a reader: what it has to say is in the release.
"""

from indexrelay.rebuilder.builds import (
    BuildCancelledError,
    BuildDiedError,
    BuildError,
    BuildTimedOutError,
    GateFailedError,
)
from indexrelay.rebuilder.builds.runner import BuildRunner, BuildSession, InlineRunner
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
