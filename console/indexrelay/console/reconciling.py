"""One reconciliation by hand: what a rebuilder compares every half minute, and what is left then.

It repairs what needs no build: the release, its announcement, the group, a lease without an end.
What is not well then says the judge, as everywhere.
"""

from typing import Final

from pydantic import BaseModel, ConfigDict
from redis.exceptions import RedisError
from sqlalchemy.exc import SQLAlchemyError

from indexrelay.console.collecting import verdict_of
from indexrelay.console.errors import CommandError
from indexrelay.console.installation import Installation
from indexrelay.health.verdict import Code, Verdict
from indexrelay.rebuilder.findings import Finding, Standing
from indexrelay.rebuilder.reconciling import Reconciler
from indexrelay.schemas import commands
from indexrelay.schemas.clock import SystemClock
from indexrelay.schemas.errors import IndexRelayError
from indexrelay.streams import ConsumerGroup
from indexrelay.streams.keys import REBUILDERS_GROUP

MOST_LOST: Final = 1_000_000_000
"""A number that is further ahead was never announced: not at a release a second for 30 years."""

_SAID_BY: Final = {
    "catalog": Code.CATALOG_UNREADABLE,
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


def reconcile_once(installation: Installation, *, above: int | None = None) -> Reconciled:
    """Compare everything with everything once, and repair what needs no build.

    Args:
        above: a release that was lost together with the catalog that knew of it: what is released
            now gets a number above it first.

    Raises:
        CommandError: nothing is released that could get a number, or no release can have had it.
        IndexRelayError, OSError: the artifacts cannot be opened at all.
    """
    gone_on = () if above is None else (_gone_on(installation, above),)
    findings = (*gone_on, *_repaired(installation))
    return Reconciled(findings=findings, verdict=verdict_of(installation))


def _gone_on(installation: Installation, above: int) -> Finding:
    store = installation.store
    highest = store.next_number() - 1
    if above - highest > MOST_LOST:
        raise CommandError(f"nobody counts from {highest} to {above:,}: that release was made up")
    if store.newest_release() is None:
        raise CommandError(f"nothing is released yet; build first: {commands.rebuild()}")
    if above <= highest:
        raise CommandError(f"the newest release is {highest} already: nothing is lost")
    release = store.renumber(lost=above, reason=f"releases up to {above} were lost")
    installation.catalog.release_record.note(release.number)
    what = f"what release {highest} served is release {release.number} now"
    return Finding(about="release", what=what, standing=Standing.MENDED)


def _repaired(installation: Installation) -> tuple[Finding, ...]:
    try:
        connection, store = installation.connection, installation.store
        catalog = installation.catalog
    except (RedisError, IndexRelayError, OSError, SQLAlchemyError):
        return ()  # the judge says why it cannot be reached
    group = ConsumerGroup(
        connection, installation.keys.events, group=REBUILDERS_GROUP, consumer="console"
    )
    return (
        Reconciler(
            installation.settings,
            catalog=catalog,
            store=store,
            connection=connection,
            group=group,
            source="indexrelay/console",
            clock=SystemClock(),
        )
        .reconcile()
        .findings
    )
