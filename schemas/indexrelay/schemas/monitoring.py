"""The settings of what watches an installation: its port, the limits of its alerts, whom it calls.

They belong to the roles `operator` and `rebuilder`; a reader has a port of its own already.
"""

import ipaddress
import re
from enum import StrEnum
from typing import Annotated, Final, Literal, Self, TypeAlias

from pydantic import AfterValidator, Field, SecretStr, field_validator, model_validator

from indexrelay.schemas.names import Name
from indexrelay.schemas.tables import PositiveCount, PositiveSeconds, Table

_ADDRESS: Final = re.compile(r"^(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+):(?P<port>[0-9]{1,5})$")
_MAX_PORT: Final = 65535


def split_address(address: str) -> tuple[str, int]:
    """The host, without brackets, and the port of ``HOST:PORT``.

    Raises:
        ValueError: it is no such address.
    """
    found = _ADDRESS.match(address)
    if found is None or int(found["port"]) > _MAX_PORT:
        raise ValueError("write HOST:PORT, as 127.0.0.1:9464 or [::1]:9464")
    return found["host"].strip("[]"), int(found["port"])


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches what listens there."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _understood(address: str) -> str:
    split_address(address)
    return address


ListenAddress = Annotated[str, AfterValidator(_understood)]
Share = Annotated[float, Field(gt=0, le=1)]


class MonitoringSettings(Table):
    """The ports at which the operator and the rebuilder say how the installation is."""

    operator: ListenAddress | None = None
    """Where the operator answers ``/metrics`` and ``/health``: ``HOST:PORT``, such as
    ``127.0.0.1:9464``. ``None``: nowhere. Without a token it must be a loopback address."""
    rebuilder: ListenAddress | None = None
    """The same for a rebuilder; ``None``: nowhere. Each process of a host needs its own port."""
    token_sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = None
    """Of the bearer token that both take, in hexadecimal (``indexrelay tokens generate`` makes
    one). ``None``: whoever reaches the port may look."""
    look_seconds: PositiveSeconds = 15.0
    """How often everything is looked at; ``/metrics`` and ``/health`` answer from the last look, so
    that nobody waits for a database, and asking often costs nothing. As often as a monitoring
    system asks."""
    traces: bool = False
    """Whether jobs, rebuilders and readers make spans of OpenTelemetry: of batches, builds, gates,
    releases and loads, one trace from the job to the readers. It takes the extra ``tracing``; where
    spans go is set up by ``opentelemetry-instrument`` or by your application."""

    @model_validator(mode="after")
    def _strangers_need_a_token(self) -> Self:
        for name in ("operator", "rebuilder"):
            address: str | None = getattr(self, name)
            reachable = address is not None and not is_loopback(split_address(address)[0])
            if reachable and self.token_sha256 is None:
                raise ValueError(
                    f"{name} listens where other machines reach it: set token_sha256, or use "
                    "127.0.0.1"
                )
        return self


AlertName: TypeAlias = Literal[
    "BuildSlow",
    "RebuildFailing",
    "RebuildSuccessLow",
    "RebuildOverdue",
    "RecallLow",
    "ChangesNotServed",
    "ReaderBehind",
    "ReaderRefusing",
    "DeadLetters",
    "TombstonesHigh",
    "DiskLow",
    "BackupOld",
    "BackupMissing",
    "ProblemCritical",
    "ProblemWarning",
    "MonitorLate",
    "MonitorAbsent",
]


class AlertSettings(Table):
    """When an alert begins. The rules for Prometheus have the same limits
    (``indexrelay monitor alerts --prometheus``)."""

    build_seconds: PositiveSeconds = 3600.0
    """A build that took longer: what was quick once and grew is seen before it takes a night."""
    consecutive_failures: PositiveCount = 3
    """So many failed builds of a component in a row: then it is not tried again by itself
    (``rebuilder.max_consecutive_failures``)."""
    success_ratio: Share = 0.8
    """The share of the rebuilds of the last 24 hours that must have succeeded."""
    overdue_seconds: PositiveSeconds = 604_800.0
    """How long a component that is not current may be without a successful build: a week, the
    longest usual schedule."""
    recall: Share = 0.90
    """The recall@10 that a released index must have, as its gates measured it."""
    freshness_seconds: PositiveSeconds = 900.0
    """How long a committed change may wait until every reader serves it; what the collection's own
    policy keeps back does not count."""
    tombstones: Share = 0.08
    """The share of a base that may be deleted or replaced; it is built again above 0.1
    (``max_tombstones``)."""
    disk_free: Share = 0.10
    """The share of a volume that must be free: a full build needs room beside what serves."""
    backup_seconds: PositiveSeconds = 7200.0
    """How long after its slot a scheduled backup may be missing: it takes a while, and one that
    fails is tried again."""
    off: tuple[AlertName, ...] = ()
    """Alerts that are not wanted: ``["BuildSlow"]``."""


class NoticeKind(StrEnum):
    """What somebody may want to be told of."""

    FAILURE = "failure"
    """An alert began, or a build failed."""
    RECOVERY = "recovery"
    """An alert ended, or a component was built again that had failed."""
    ROLLBACK = "rollback"
    """An earlier version serves again, and is held."""
    PAUSE = "pause"
    """A component is not built any more: a person paused it, or it failed too often."""
    REFUSED_GATE = "refused_gate"
    """A version was built, and a gate refused to release it."""


_SCHEME: Final = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]*://")


class NotificationTarget(Table):
    """One table ``[notifications.targets.NAME]``: whom to call."""

    url: SecretStr
    """Where to, as a URL of apprise: ``mailtos://…``, ``slack://…``, ``json://…`` for a webhook and
    about a hundred others; ``log://`` writes into the log of the role. It holds passwords and is
    never shown: give it by its variable,
    ``INDEXRELAY_NOTIFICATIONS__TARGETS__NAME__URL``."""
    kinds: Annotated[tuple[NoticeKind, ...], Field(min_length=1)] = tuple(NoticeKind)
    """What it is told of."""
    least: Literal["warning", "critical"] = "warning"
    """The least severe that it is told of: ``critical`` is for what wakes somebody."""

    @field_validator("url")
    @classmethod
    def _is_one(cls, url: SecretStr) -> SecretStr:
        """The error quotes no part of the URL."""
        if not _SCHEME.match(url.get_secret_value()):
            raise ValueError("write a URL of apprise, as mailtos://USER:PASSWORD@HOST, or log://")
        return url


class NotificationSettings(Table):
    """Whom the operator calls, and how often at most."""

    targets: dict[Name, NotificationTarget] = Field(default_factory=dict)
    """By a name of your choice, which logs and errors show in place of the URL."""
    group_seconds: Annotated[float, Field(ge=0)] = 10.0
    """How long the first notice waits for others, so that what fails together comes together."""
    interval_seconds: PositiveSeconds = 300.0
    """… and how long it takes at least from one message to a target to the next. What comes
    meanwhile is put together; what repeats is counted."""
    timeout_seconds: PositiveSeconds = 30.0
    """How long a target may take for a message. It has failed then, and is tried again later; the
    others, and the builds, do not wait for it."""
