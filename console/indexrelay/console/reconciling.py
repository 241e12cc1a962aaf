"""One reconciliation by hand: what a rebuilder compares every half minute, and the rest besides.

It repairs what needs no build: the release, its announcement, the group, a lease without an end.
What needs one is told, with who does it.
"""

from collections.abc import Iterator

from redis.exceptions import RedisError

from indexrelay.console.collecting import survey_of
from indexrelay.console.installation import Installation
from indexrelay.health.backoff import Patience
from indexrelay.rebuilder.comparing import compare
from indexrelay.rebuilder.findings import Finding, Reconciliation, Standing
from indexrelay.rebuilder.reconciling import Reconciler
from indexrelay.rebuilder.surveying import Survey
from indexrelay.schemas.clock import Clock, SystemClock
from indexrelay.schemas.errors import IndexRelayError
from indexrelay.streams import ConsumerGroup
from indexrelay.streams.keys import REBUILDERS_GROUP


def reconcile_once(installation: Installation) -> Reconciliation:
    """Compare everything with everything once.

    Raises:
        IndexRelayError, OSError: the catalog or the artifacts cannot be read.
        sqlalchemy.exc.SQLAlchemyError: the database does not answer.
    """
    clock = SystemClock()
    rebuilders, findings = _with_redis(installation, clock)
    settings = installation.settings
    facts = survey_of(installation).of_builds()
    compared = compare(facts, Patience.of(settings.rebuilder), rebuilders=rebuilders)
    return Reconciliation(findings=(*findings, *compared, *_dead_letters(installation)))


def _with_redis(installation: Installation, clock: Clock) -> tuple[bool, tuple[Finding, ...]]:
    """Whether a rebuilder is running, and what the rebuilders' own comparison finds."""
    try:
        connection = installation.connection
    except (RedisError, IndexRelayError, OSError) as error:
        advice = "start it: indexrelay up starts one, or correct redis.url"
        what = f"Redis cannot be reached: {error}"
        return False, (Finding(about="redis", what=what, standing=Standing.LEFT, advice=advice),)
    group = ConsumerGroup(
        connection, installation.keys.events, group=REBUILDERS_GROUP, consumer="console"
    )
    found = Reconciler(
        installation.settings,
        store=installation.store,
        connection=connection,
        group=group,
        source="indexrelay/console",
        clock=clock,
    ).reconcile()
    try:
        alive = Survey(installation.settings, connection, installation.keys).rebuilders()
    except RedisError:
        alive = {}  # it is among the findings that the server does not answer
    return bool(alive), found.findings


def _dead_letters(installation: Installation) -> Iterator[Finding]:
    if count := installation.catalog.dead_letters.count():
        yield Finding(
            about="dead_letters",
            what=f"{count} event(s) could not be read and are dead letters",
            standing=Standing.LEFT,
            advice="see indexrelay dead list; then indexrelay dead retry, or drop",
        )
