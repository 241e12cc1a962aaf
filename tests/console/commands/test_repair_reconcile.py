"""``indexrelay reconcile``: what it repairs, what it reports, and its exit code."""

import json
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from indexrelay.console.commands.repair import Reconciled, findings_page
from indexrelay.console.installation import Installation
from indexrelay.health.facts import Area, Unknown
from indexrelay.health.judge import judge
from indexrelay.rebuilder.reconciler import Finding, RepairOutcome
from indexrelay.schemas.declarations import declared_to_build
from indexrelay.streams import Lease, Presence
from tests.console.conftest import CONFIG, Run, commit
from tests.health.healthy_facts import healthy, rebuilder

pytestmark = pytest.mark.server


def test_what_an_emptied_server_lost_is_repaired_without_a_person(run: Run, built: Path) -> None:
    at = ("--config", str(built))
    with Installation.at(built) as installation:
        installation.connection.commands.flushall()
        said = run("reconcile", "--json", *at)
        document = json.loads(said.out)
        roles = {"no_rebuilder", "no_reader"}
        assert said.code == 3
        assert {each["code"] for each in document["problems"]} == roles
        assert [each["about"] for each in document["findings"]] == ["release", "group"]
        assert {each["outcome"] for each in document["findings"]} == {"repaired"}
        assert installation.connection.commands.get(installation.keys.release) is not None
    again = json.loads(run("reconcile", "--json", *at).out)
    assert again["findings"] == []


def test_a_person_may_name_a_release_that_was_lost_with_its_catalog(run: Run, built: Path) -> None:
    at = ("--config", str(built))
    with Installation.at(built) as installation:
        highest = installation.store.next_number() - 1
        refused = run("reconcile", "--above", str(highest), *at)
        assert (refused.code, "nothing is lost" in refused.err) == (1, True)
        refused = run("reconcile", "--above", "9000000000", *at)
        assert (refused.code, "there can have been no release" in refused.err) == (1, True)
        assert installation.store.next_number() == highest + 1
        document = json.loads(run("reconcile", "--above", "900", "--json", *at).out)
        assert document["findings"][0]["what"] == (
            f"what release {highest} served is release 901 now"
        )
        assert installation.catalog.release_record.highest() == 901
        newest = installation.store.newest_release()
        assert newest is not None
        assert newest.number == 901
        assert installation.connection.commands.get(installation.keys.release) == b"901"


def test_a_process_with_other_settings_is_named_by_every_command_and_keeps_its_work(
    run: Run, built: Path
) -> None:
    at = ("--config", str(built))
    before = built.read_text()
    with Installation.at(built) as installation:
        settings = installation.settings
        old = rebuilder(declares=declared_to_build(settings.components, settings.collections))
        presence = Presence(installation.connection, installation.keys, "rebuilder")
        presence.publish(old.member, old.model_dump_json().encode(), ttl_seconds=60)
        gone = max(settings.components)
        try:
            built.write_text(before[: before.index(f"[components.{gone}]")])
            for door in ("status", "check", "reconcile"):
                said = run(door, "--json", *at)
                found = {each["code"]: each for each in json.loads(said.out)["problems"]}
                assert said.code == 3
                assert found["rebuilder_other_settings"]["what"] == (
                    "rebuilder r1 (h:2) runs with other settings than these: "
                    f"{gone} is declared there and no longer here"
                )
            assert "declare it again, or start that one again" in said.out
            page = run("reconcile", *at)
            assert page.out.count(f"{gone} is released, and the settings do not declare it") == 1
            assert "will end without you" not in page.out
        finally:
            presence.remove(old.member)
            built.write_text(before)


def test_what_only_a_person_can_repair_is_reported_with_what_to_do(run: Run, built: Path) -> None:
    at = ("--config", str(built))
    run("reconcile", *at)
    with Installation.at(built) as installation:
        letter = installation.catalog.dead_letters.add(
            stream="events", entry_id="1-0", raw=b"?", reason="not JSON"
        )
        presence = Presence(installation.connection, installation.keys, "reader")
        presence.publish("web", b"{}", ttl_seconds=60)
        lease = Lease(
            installation.connection,
            installation.keys.lease("map"),
            owner="gone:1:a",
            ttl_seconds=60,
        )
        lease.acquire()
        said = run("reconcile", *at)
        lease.release()
        presence.remove("web")
        installation.catalog.dead_letters.discard(letter)
    assert said.code == 3
    for told in (
        "⚠ 1 event(s) could not be read",
        "which they are: indexrelay dead list",
        "⚠ reader web reports in a form",
        "… map is leased by a rebuilder that is gone",
        "not all is well: 3 need a person, 1 will end without you",
    ):
        assert told in said.out
    assert said.err == ""


def test_without_a_server_the_rest_is_compared_all_the_same(run: Run, tmp_path: Path) -> None:
    config = tmp_path / "indexrelay.toml"
    config.write_text(CONFIG)
    commit(config, "first", 2)
    said = run("reconcile", "--json", "--config", str(config))
    found = {each["code"]: each for each in json.loads(said.out)["problems"]}
    assert said.code == 3
    assert "indexrelay up" in found["redis_unreadable"]["what"]
    assert found["component_missing"]["acts"] == "person"
    assert "indexrelay rebuild --here" in found["component_missing"]["advice"]


@pytest.mark.parametrize(("about", "area"), [("redis", Area.REDIS), ("store", Area.ARTIFACTS)])
def test_a_repair_that_failed_is_not_well_and_is_reported_once(about: str, area: Area) -> None:
    failed = Finding(about=about, what="it refuses", outcome=RepairOutcome.LEFT, advice="let it in")
    mended = Finding(about="group", what="the group was made", outcome=RepairOutcome.REPAIRED)
    unseen = {area: Unknown(reason="it refuses", advice="let it in")}

    refused = Reconciled(findings=(mended, failed), verdict=judge(healthy()))
    assert refused.verdict.well
    assert not refused.well  # whatever else is seen
    page = written(refused)
    assert "⚠ it refuses" in page
    assert "not all is well: 1 needs a person" in page
    assert "nothing differs" not in page

    away = Reconciled(findings=(failed,), verdict=judge(healthy(unknown=unseen)))
    assert not away.well
    assert written(away).count("it refuses") == 1

    both = Reconciled(findings=(failed,), verdict=judge(healthy(dead_letters=1)))
    assert "not all is well: 2 need a person" in written(both)

    done = Reconciled(findings=(mended,), verdict=judge(healthy()))
    assert done.well
    assert "✓ 1 repaired, and all is well now" in written(done)


def written(found: Reconciled) -> str:
    """What a person reads."""
    console = Console(width=200, record=True, file=StringIO())
    console.print(findings_page(found))
    return console.export_text()
