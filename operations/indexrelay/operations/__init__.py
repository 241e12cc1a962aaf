"""Running it unattended: schedules, backups, metrics, alerts, notifications and service units.

Nothing here builds, releases or serves. A schedule asks for a rebuild by a row of the inbox, as
people do; an alert is a rule over what the one judge and the results say; a backup is a release
with its blobs. It needs the extra ``operations``.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from indexrelay.operations.backups import Backups
    from indexrelay.operations.service import Duty, DutyResources, OperatorService

__all__ = ["Backups", "Duty", "DutyResources", "OperatorService"]

_HOMES = {
    "Backups": "backups",
    "Duty": "service",
    "DutyResources": "service",
    "OperatorService": "service",
}

if not TYPE_CHECKING:  # or a type checker would take any name for one of ours

    def __getattr__(name: str) -> Any:
        """Import one of the public names (PEP 562)."""
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
