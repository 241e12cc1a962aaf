"""What a reader says of each component: what it serves, what it should serve, how that came."""

from collections.abc import Collection, Mapping

from indexrelay.reloaders.loading import Round
from indexrelay.reloaders.planning import served_names
from indexrelay.schemas.results import ComponentState, LoadOutcome
from indexrelay.schemas.versions import Release


def states_after(
    result: Round,
    release: Release,
    *,
    chosen: Collection[str] | None,
    before: Mapping[str, ComponentState],
) -> dict[str, ComponentState]:
    """The state of every component that is served or should be.

    Args:
        before: the states after an earlier round of the same release: what was applied then is
            not called unchanged because something else was tried again. Empty for a new release.
    """
    names = served_names(release, chosen) | result.contents.components.keys()
    return {name: _state(name, result, release, before.get(name)) for name in sorted(names)}


def _state(
    name: str, result: Round, release: Release, before: ComponentState | None
) -> ComponentState:
    outcome = _outcome(name, result, before)
    wanted = release.components.get(name)
    error = result.failed.get(name)
    served = result.contents.components.get(name)
    if served is None:
        return ComponentState(outcome=outcome, wanted=wanted, error=error)
    return ComponentState(
        outcome=outcome,
        version=served.version,
        wanted=wanted,
        covers=dict(served.covers),
        epochs=served.manifest.epochs,
        stamps=served.manifest.stamps,
        entries=served.manifest.entries,
        seconds=served.seconds,
        error=error,
        applied_at=served.applied_at,
    )


def _outcome(name: str, result: Round, before: ComponentState | None) -> LoadOutcome:
    if name in result.applied:
        return LoadOutcome.APPLIED
    if name in result.failed:
        return LoadOutcome.FAILED
    if name in result.superseded:
        return LoadOutcome.SUPERSEDED
    if before is not None and before.outcome is LoadOutcome.APPLIED:
        return LoadOutcome.APPLIED
    return LoadOutcome.UNCHANGED
