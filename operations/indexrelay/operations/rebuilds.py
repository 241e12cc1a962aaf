"""Rebuilds that people ask for: by the command line, the admin page, or another program.

A request is a row of the inbox, and one line of the audit log, whoever makes it and wherever.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from indexrelay.producers import Producer
from indexrelay.schemas.errors import IndexRelayError
from indexrelay.schemas.settings import Settings
from indexrelay.schemas.versions import Release
from indexrelay.storage.audit import AuditAction, AuditLog
from indexrelay.storage.catalog import Pause


@dataclass(frozen=True, kw_only=True)
class RebuildRequest:
    """A request for a rebuild, as a person makes it."""

    components: Sequence[str] = ()
    """Due or not; empty: whatever is due."""
    force: bool = False
    """Also if more entries went than ``max_shrink`` allows."""
    full: bool = False
    """From scratch."""
    failure_cooldown_seconds: float | None = None
    """Leave out what is paused, or failed too often and not so long ago (`RebuildRequested`)."""
    reason: str = "by hand"


class AllKeptBackError(IndexRelayError):
    """Raised when every component was to be built, and each of them is paused or held."""

    def __init__(self, kept_back: Mapping[str, str]) -> None:
        super().__init__(f"every component is kept back: {listed(kept_back)}")
        self.kept_back = kept_back


def ask_for_rebuild(
    wanted: RebuildRequest,
    *,
    producer: Producer,
    audit: AuditLog,
    who: str,
    unless_covered: bool = False,
) -> str:
    """Record the request, and who made it; its id. Raises what `Producer.request_rebuild` does."""
    request_id = producer.request_rebuild(
        wanted.components,
        force=wanted.force,
        full=wanted.full,
        failure_cooldown_seconds=wanted.failure_cooldown_seconds,
        reason=wanted.reason,
        requested_by=who,
        unless_covered=unless_covered,
    )
    audit.record(
        AuditAction.REBUILD_REQUESTED,
        who=who,
        subject=", ".join(wanted.components) or None,
        request_id=request_id,
        reason=wanted.reason,
        force=wanted.force or None,
        full=wanted.full or None,
    )
    return request_id


def all_components(
    settings: Settings, *, release: Release | None, paused: Mapping[str, Pause]
) -> tuple[tuple[str, ...], dict[str, str]]:
    """Every declared component but those that are paused or held; and these with the reason.

    Somebody decided about each of them by its name; "all" does not overrule that.

    Raises:
        AllKeptBackError: all of them are kept back.
    """
    held = {} if release is None else release.holds
    kept_back = {
        name: f"held: {held[name].reason}" if name in held else f"paused: {paused[name].reason}"
        for name in settings.components
        if name in held or name in paused
    }
    names = tuple(name for name in settings.components if name not in kept_back)
    if not names:
        raise AllKeptBackError(kept_back)
    return names, kept_back


def listed(kept_back: Mapping[str, str]) -> str:
    """``map (paused: too loud), index (held: by hand)``."""
    return ", ".join(f"{name} ({why})" for name, why in kept_back.items()) or "there is none"
