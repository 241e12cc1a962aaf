"""One reconciliation by hand: what a rebuilder compares every half minute, and what is left then.

It repairs what needs no build: the release, its announcement, the group, a lease without an end.
What is not well then says the judge, as everywhere.
"""

from typing import Final

from pydantic import BaseModel, ConfigDict
from redis.exceptions import RedisError

from indexrelay.console.collecting import verdict_of
from indexrelay.console.installation import Installation
from indexrelay.health.verdict import Code, Verdict
from indexrelay.rebuilder.findings import Finding, Standing
from indexrelay.rebuilder.reconciling import Reconciler
from indexrelay.schemas.clock import SystemClock
from indexrelay.schemas.errors import IndexRelayError
from indexrelay.streams import ConsumerGroup
from indexrelay.streams.keys import REBUILDERS_GROUP

_SAID_BY: Final = {
    "redis": Code.REDIS_UNREADABLE,
    "release": Code.COMPONENT_UNDECLARED,
    "store": Code.ARTIFACTS_UNREADABLE,
}
"""The problem that says of a place what a repair says that could not reach it."""


class Reconciled(BaseModel):
    """What came of it."""

    model_config = ConfigDict(frozen=True)

    findings: tuple[Finding, ...]
    """What was repaired, and what could not be."""
    verdict: Verdict
    """How things stand after that."""

    @property
    def unrepaired(self) -> tuple[Finding, ...]:
        """What could not be repaired, as far as the verdict does not say so already."""
        said = {problem.code for problem in self.verdict.problems}
        return tuple(
            each
            for each in self.findings
            if each.standing is Standing.LEFT and _SAID_BY.get(each.about) not in said
        )

    @property
    def well(self) -> bool:
        """Whether nothing differs any more: a repair that failed is not well, whatever is seen."""
        return self.verdict.well and not self.unrepaired


def reconcile_once(installation: Installation) -> Reconciled:
    """Compare everything with everything once, and repair what needs no build.

    Raises:
        IndexRelayError, OSError: the artifacts cannot be opened at all.
    """
    findings = _repaired(installation)
    return Reconciled(findings=findings, verdict=verdict_of(installation))


def _repaired(installation: Installation) -> tuple[Finding, ...]:
    try:
        connection, store = installation.connection, installation.store
    except (RedisError, IndexRelayError, OSError):
        return ()  # the judge says why it cannot be reached
    group = ConsumerGroup(
        connection, installation.keys.events, group=REBUILDERS_GROUP, consumer="console"
    )
    return (
        Reconciler(
            installation.settings,
            store=store,
            connection=connection,
            group=group,
            source="indexrelay/console",
            clock=SystemClock(),
        )
        .reconcile()
        .findings
    )
