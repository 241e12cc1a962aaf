"""What people decide: committed, announced, and in the audit log under their name."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import fakeredis
import pytest
from sqlalchemy.exc import OperationalError

from indexrelay.operations.decisions import Decisions
from indexrelay.schemas.messages import Event, ReleasePublished
from indexrelay.schemas.settings import Settings
from indexrelay.schemas.versions import Release
from indexrelay.storage.artifacts import ArtifactStore, ComponentNotReleasedError
from indexrelay.storage.audit import AuditLog
from indexrelay.storage.catalog import Catalog
from indexrelay.storage.errors import TooManyRequestsError
from indexrelay.streams import Connection, Keys
from indexrelay.streams.consumer import deliveries_of, entries_in
from tests.storage.artifacts.samples import MOMENT, make_release, make_version


class Installed:
    """A store, a catalog and a server, and one person."""

    def __init__(self, folder: Path) -> None:
        self.settings = Settings.model_validate({"data_dir": folder})
        self.store = ArtifactStore.of(self.settings, by="admin/ada")
        self.catalog = Catalog.open(self.settings.catalog_url)
        self.redis = fakeredis.FakeRedis()
        self.is_away = False
        self.asked: list[str] = []
        self.decisions = Decisions(
            settings=self.settings,
            store=self.store,
            catalog=lambda: self.catalog,
            connection=self.connect,
            who="admin/ada",
            source="test",
            ask=self.asked.append,
        )

    def connect(self) -> Connection:
        if self.is_away:
            raise ConnectionError("away")
        return Connection(commands=self.redis, blocking=self.redis)

    def announced(self) -> list[int]:
        """The releases that readers hear of."""
        reply = self.redis.xread({Keys(self.settings.namespace).reloads: b"0"})
        data = [Event.from_bytes(each.raw or b"").data for each in deliveries_of(entries_in(reply))]
        return [each.release for each in data if isinstance(each, ReleasePublished)]

    def audited(self) -> list[tuple[str, str, str | None]]:
        return [
            (line["action"], line["who"], line.get("subject"))
            for line in AuditLog.of(self.settings).newest(100)
        ]


@pytest.fixture
def installed(tmp_path: Path) -> Iterator[Installed]:
    installed = Installed(tmp_path)
    yield installed
    installed.catalog.close()


def test_a_hold_a_lift_and_a_rollback_are_announced_and_kept_under_a_name(
    installed: Installed,
) -> None:
    store, decisions = installed.store, installed.decisions
    versions = [make_version(store, "maps", b"%d" % number) for number in range(2)]
    for version in versions:
        make_release(store, maps=version)
    assert decisions.hold(["maps"], reason="good enough").by == "admin/ada"
    release, lifted = decisions.lift(["maps"], reason="go on")
    assert (release.number, lifted) == (4, ["maps"])
    assert decisions.lift(["maps"], reason="again")[1] == []
    assert decisions.rollback(1, reason="bad maps").components == {"maps": versions[0]}
    assert installed.announced() == [3, 4, 5]
    assert installed.asked == ["lifted maps"]
    assert installed.audited() == [
        ("held", "admin/ada", "maps"),
        ("lifted", "admin/ada", "maps"),
        ("rolled_back", "admin/ada", "release 1"),
    ]


def test_a_pause_and_its_end_are_kept_and_what_fails_leaves_no_line(installed: Installed) -> None:
    make_release(installed.store, maps=make_version(installed.store, "maps", b"0"))
    installed.decisions.pause(["maps"], reason="for now")
    assert installed.catalog.attempts.paused()["maps"].reason == "for now"
    assert installed.decisions.resume(["maps"]) == ["maps"]
    assert installed.decisions.resume(["maps"]) == []
    with pytest.raises(ComponentNotReleasedError):
        installed.decisions.hold(["other"], reason="never was")
    assert [action for action, *_ in installed.audited()] == ["paused", "resumed"]


def test_many_that_are_resumed_at_once_make_a_request_of_a_length_that_is_taken(
    installed: Installed,
) -> None:
    names = [f"component_with_a_long_name_{number}" for number in range(100)]
    installed.decisions.pause(names, reason="for now")
    assert installed.decisions.resume(names) == names
    (reason,) = installed.asked
    assert len(reason) <= 1000


def test_a_decision_stands_where_nobody_can_be_told(installed: Installed) -> None:
    make_release(installed.store, maps=make_version(installed.store, "maps", b"0"))
    installed.is_away = True
    assert installed.decisions.hold(["maps"], reason="good").number == 2
    assert installed.audited() == [("held", "admin/ada", "maps")]


def _full(_: str) -> None:
    raise TooManyRequestsError(1000)


def _locked(_: str) -> None:
    raise OperationalError("insert", {}, Exception("the database is locked"))


@pytest.mark.parametrize("ask", [_full, _locked])
def test_what_is_resumed_or_lifted_is_so_where_no_rebuild_can_be_asked_for(
    installed: Installed, ask: Callable[[str], None]
) -> None:
    make_release(installed.store, maps=make_version(installed.store, "maps", b"0"))
    decisions = replace(installed.decisions, ask=ask)
    decisions.pause(["maps"], reason="for now")
    decisions.hold(["maps"], reason="good")
    assert decisions.resume(["maps"]) == ["maps"]
    assert decisions.lift(["maps"], reason="go on")[1] == ["maps"]
    assert [action for action, *_ in installed.audited()] == ["paused", "held", "resumed", "lifted"]


def test_the_audit_log_names_what_a_rollback_took_back_with_the_others_of_its_groups(
    installed: Installed,
) -> None:
    store, decisions = installed.store, installed.decisions
    for number in range(2):
        versions = {
            name: make_version(store, name, b"%d" % number) for name in ("maps", "words", "alone")
        }
        if number:
            versions["later"] = make_version(store, "later", b"0")
        store.commit_release(
            Release(
                number=store.next_number(),
                components=versions,
                groups={"maps": "both", "words": "both"},
                created_at=MOMENT,
                reason="a test",
                previous=number,
            )
        )
    decisions.hold(["alone"], reason="good")
    decisions.rollback(1, reason="bad maps", components=["maps"])
    decisions.rollback(1, reason="all of it")
    lines = AuditLog.of(installed.settings).newest(100)
    assert [line["components"] for line in lines if line["action"] == "rolled_back"] == [
        ["maps", "words"],
        ["alone", "maps", "words"],
    ]
