"""One installation as a command sees it: its settings, and what they name, opened on first use.

A command that only reads the artifacts opens no database; one that only checks the settings opens
nothing. `verdict_of` asks the judge about everything; `signals_of` reads who is present in Redis.
"""

import getpass
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Self

from redis.exceptions import RedisError

from indexrelay.components.registry import check_kind
from indexrelay.console.terminal import ANSWERS
from indexrelay.health.advice import advised
from indexrelay.health.judge import judge
from indexrelay.health.status import Verdict
from indexrelay.health.survey import Survey
from indexrelay.producers.events import open_connection
from indexrelay.producers.producer import Producer
from indexrelay.schemas.clock import SystemClock
from indexrelay.schemas.errors import IndexRelayError, Mistake, SettingsError
from indexrelay.schemas.logs import catch_strays, configure_logs
from indexrelay.schemas.messages import ReaderState, RebuilderState
from indexrelay.schemas.settings import Settings
from indexrelay.schemas.settings_file import load_settings
from indexrelay.storage.artifacts import ArtifactStore
from indexrelay.storage.audit import AuditAction, AuditLog, AuditValue
from indexrelay.storage.catalog import Catalog
from indexrelay.streams.connection import Connection
from indexrelay.streams.keys import Keys
from indexrelay.streams.presence import members_of


class Installation:
    """Opens what a command needs, and closes what it opened."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.keys = Keys(settings.namespace)

    @classmethod
    def at(cls, config: Path | None, *, talkative: bool = False) -> Self:
        """The installation whose settings are in ``config`` (or found as `load_settings` says).

        Sets up this process as well: modules beside the settings can be imported, and a role is
        ``talkative``: it logs as the settings say; a command that answers and ends shows warnings
        only. From here on stdout is for answers: the settings may name modules that print.

        Raises:
            SettingsError: with every mistake in them, or there are none at all.
        """
        ANSWERS.reserve()
        settings = read_settings(config)
        quiet = settings.log.model_copy(update={"level": "warning"})
        configure_logs(settings.log if talkative else quiet)
        if talkative:
            catch_strays()
        return cls(settings)

    @cached_property
    def catalog(self) -> Catalog:
        """The catalog; its tables are made where they are missing."""
        catalog = Catalog.open(self.settings.catalog_url)
        if catalog.migrated:
            self.audit(AuditAction.MIGRATED, subject="catalog", added=[*catalog.migrated])
        return catalog

    @cached_property
    def store(self) -> ArtifactStore:
        """The artifact store; its folders are made where they are missing."""
        return ArtifactStore.of(self.settings, by=person())

    @cached_property
    def connection(self) -> Connection:
        """Redis, as a client: no server is started for a command that only looks."""
        return open_connection(self.settings, warn=False)

    @cached_property
    def producer(self) -> Producer:
        """A producer on the same catalog; Redis is opened when it is first needed."""
        return Producer(self.settings, catalog=self.catalog)

    @property
    def survey(self) -> Survey:
        """What looks at this installation; whatever it looks at is opened then."""
        return Survey(
            self.settings,
            catalog=lambda: self.catalog,
            store=lambda: self.store,
            connection=lambda: self.connection,
            clock=SystemClock(),
        )

    def audit(self, action: AuditAction, *, subject: str | None = None, **of: AuditValue) -> None:
        """Record in this host's audit log what the person who types had done."""
        AuditLog.of(self.settings).record(action, who=person(), subject=subject, **of)

    def close(self) -> None:
        """Close what was opened; safe twice."""
        for name in ("producer", "connection", "catalog"):
            opened = self.__dict__.pop(name, None)
            if opened is not None:
                opened.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def read_settings(config: Path | None) -> Settings:
    """The settings in ``config``, or found as `load_settings` says, each kind checked.

    Raises:
        SettingsError: with every mistake in them, or there are none at all.
    """
    settings = load_settings(config, check_kind=check_kind)
    if not (settings.collections or settings.components):
        # Most likely the wrong folder; going on would leave an empty data folder there.
        nothing = Mistake(
            key="collections",
            value={},
            right="nothing is declared; go where indexrelay.toml is, or name it with --config",
        )
        raise SettingsError([nothing], origin=str(config or Path.cwd()))
    return settings


@dataclass(frozen=True, kw_only=True)
class Signals:
    """Who is present in Redis; ``error`` when it does not answer."""

    readers: Mapping[str, ReaderState] = field(default_factory=dict)
    """Each live process by its member id."""
    rebuilders: Mapping[str, RebuilderState] = field(default_factory=dict)
    error: str | None = None
    """With what to do about it."""

    @property
    def rebuilder_ids(self) -> tuple[str, ...]:
        """The ids of the live rebuilders."""
        return tuple(sorted(state.rebuilder for state in self.rebuilders.values()))


def verdict_of(installation: Installation) -> Verdict:
    """Look at everything once, and judge; what cannot be read is among the problems."""
    return judge(installation.survey.whole())


def signals_of(installation: Installation) -> Signals:
    """Everyone's presence."""
    try:
        connection, keys = installation.connection, installation.keys
        return Signals(
            readers=members_of(connection, keys, ReaderState).known,
            rebuilders=members_of(connection, keys, RebuilderState).known,
        )
    except (RedisError, IndexRelayError, OSError) as error:
        return Signals(error=advised(error))


def person() -> str:
    """Who types, as USER@HOST: kept in the releases that a command makes."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # a container may have no name for its user
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"
