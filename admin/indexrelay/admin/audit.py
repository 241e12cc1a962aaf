"""The audit log of this host: who had what done, page by page backwards.

GET  /audit
"""

from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Query

from indexrelay.admin.components import bounded
from indexrelay.admin.document import SHORT, Fact
from indexrelay.admin.resources import AdminResources
from indexrelay.schemas.names import shown
from indexrelay.service.problems import RefusedError


class AuditEntry(Fact):
    """One line of the audit log."""

    id: str
    time: str
    action: str
    who: str
    subject: str | None
    fields: dict[str, Any]
    """What else it is known by."""


class AuditEntries(Fact):
    """Some of the lines, the newest first."""

    entries: tuple[AuditEntry, ...]
    next: str | None
    """``before`` of the next page; null: these are the oldest."""


def audit_routes(resources: AdminResources) -> APIRouter:
    """List its lines."""
    router = APIRouter()

    @router.get("/audit")
    def audit(
        before: Annotated[str | None, Query(max_length=40)] = None,
        limit: Annotated[int, Query(ge=1, le=500)] = 100,
    ) -> AuditEntries:
        """Who had what done on this host, the newest first."""
        try:
            page = resources.audit.page(limit, before=before)
        except ValueError as error:
            raise RefusedError(422, f"before: {error}") from error
        return AuditEntries(
            entries=tuple(_entry(line.id, line.fields) for line in page.lines), next=page.next
        )

    return router


def _entry(id_: str, fields: Mapping[str, Any]) -> AuditEntry:
    others = {
        key: value
        for key, value in fields.items()
        if key not in ("time", "action", "who", "subject")
    }
    subject = fields.get("subject")
    return AuditEntry(
        id=id_,
        time=shown(str(fields["time"]), SHORT),
        action=shown(str(fields["action"]), SHORT),
        who=shown(str(fields["who"]), SHORT),
        subject=None if subject is None else shown(str(subject)),
        fields=bounded(others),
    )
