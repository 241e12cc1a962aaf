"""The models of what crosses a boundary: events, results, versions, releases, settings.

Nothing in here opens a file, a socket or a database, but for the settings file and the files that a
test arms failpoints with.

The names below are imported when they are first used: ``indexrelay --help`` and the pytest plugin
import something from here, and need no pydantic.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from indexrelay.schemas.clock import SystemClock
    from indexrelay.schemas.errors import IndexRelayError, MissingExtraError, SettingsError
    from indexrelay.schemas.filters import (
        FieldType,
        InvalidFilterError,
        filter_schema,
        parse_filter,
    )
    from indexrelay.schemas.logs import configure_logs
    from indexrelay.schemas.messages import (
        ComponentState,
        Event,
        LoadOutcome,
        ReaderState,
        RebuildResult,
    )
    from indexrelay.schemas.session import SessionToken, SessionTokenError
    from indexrelay.schemas.settings import LogSettings, RedisSettings, Settings
    from indexrelay.schemas.settings_file import load_settings

__all__ = [
    "ComponentState",
    "Event",
    "FieldType",
    "IndexRelayError",
    "InvalidFilterError",
    "LoadOutcome",
    "LogSettings",
    "MissingExtraError",
    "ReaderState",
    "RebuildResult",
    "RedisSettings",
    "SessionToken",
    "SessionTokenError",
    "Settings",
    "SettingsError",
    "SystemClock",
    "configure_logs",
    "filter_schema",
    "load_settings",
    "parse_filter",
]

_HOMES = {
    "ComponentState": "messages",
    "Event": "messages",
    "FieldType": "filters",
    "IndexRelayError": "errors",
    "InvalidFilterError": "filters",
    "LoadOutcome": "messages",
    "LogSettings": "settings",
    "MissingExtraError": "errors",
    "ReaderState": "messages",
    "RebuildResult": "messages",
    "RedisSettings": "settings",
    "SessionToken": "session",
    "SessionTokenError": "session",
    "Settings": "settings",
    "SettingsError": "errors",
    "SystemClock": "clock",
    "configure_logs": "logs",
    "filter_schema": "filters",
    "load_settings": "settings_file",
    "parse_filter": "filters",
}

if not TYPE_CHECKING:  # or a type checker would take any name for one of ours

    def __getattr__(name: str) -> Any:
        """Import one of the public names (PEP 562)."""
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
