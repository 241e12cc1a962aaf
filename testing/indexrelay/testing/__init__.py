"""Users' tests: a pipeline on fakeredis, with injected time and no threads.

For tests only; nothing else imports it. The names are resolved when they are first used: pytest
imports this in every run of an environment that has indexrelay.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from indexrelay.testing.clock import FakeClock
    from indexrelay.testing.faults import NothingToCorruptError
    from indexrelay.testing.pipeline import NotSettledError, Pipeline
    from indexrelay.testing.plugin import MakePipeline

__all__ = ["FakeClock", "MakePipeline", "NotSettledError", "NothingToCorruptError", "Pipeline"]

_HOMES = {
    "FakeClock": "clock",
    "MakePipeline": "plugin",
    "NotSettledError": "pipeline",
    "NothingToCorruptError": "faults",
    "Pipeline": "pipeline",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
