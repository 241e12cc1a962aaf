"""Backups over the admin API: made and verified behind the answer, one at a time."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from indexrelay.admin.backups import BackupWork
from indexrelay.operations.backups import Backups
from indexrelay.testing import MakePipeline
from tests.admin.desk import Desk, desk_of

WAIT_SECONDS = 30.0


@pytest.fixture
def desk(indexrelay_pipeline: MakePipeline) -> Iterator[Desk]:
    pipeline = indexrelay_pipeline(
        collections={"tracks": {"dimension": 3}},
        components={"cache": {"kind": "embedding_cache", "from": "tracks"}},
    )
    with desk_of(pipeline) as desk:
        yield desk


def release(desk: Desk) -> None:
    with desk.pipeline.producer.batch("tracks") as batch:
        batch.upsert(["a"], [[1.0, 2.0, 3.0]])
    desk.pipeline.settle()


def ended(desk: Desk) -> Any:
    """What is to be seen once nothing runs any more."""
    thread = desk.resources.backups.thread
    assert thread is not None
    thread.join(WAIT_SECONDS)
    found = desk.get("backups")
    assert found["running"] is None
    return found


def test_a_backup_is_made_listed_and_verified_behind_the_answer(desk: Desk) -> None:
    release(desk)
    assert desk.get("backups")["backups"] == []
    begun = desk.post("backups", status=202)
    assert (begun["what"], begun["by"]) == ("create", "admin/anyone")
    found = ended(desk)
    (backup,) = found["backups"]
    assert (found["last"]["ok"], found["last"]["id"]) == (True, backup["id"])
    assert (backup["release"], backup["components"], backup["catalog"]) == (1, ["cache"], True)
    assert (backup["by"], backup["error"], backup["verified"]) == ("admin/anyone", None, None)
    desk.post(f"backups/{backup['id']}/verify", status=202)
    (backup,) = ended(desk)["backups"]
    assert backup["verified"]["ok"]
    (file,) = desk.pipeline.settings.backups_dir.glob("*.zst")
    file.write_bytes(file.read_bytes()[:-200])
    desk.post(f"backups/{backup['id']}/verify", status=202)
    found = ended(desk)
    assert not found["backups"][0]["verified"]["ok"]
    assert found["last"]["detail"]
    assert [action for action, *_ in desk.audited()] == ["backed_up", "verified", "verified"]
    desk.post("backups/20200101_000000/verify", status=404)
    desk.post("backups/latest/verify", status=422)


def test_what_fails_is_told_to_who_looks(desk: Desk) -> None:
    desk.post("backups", status=202)
    last = ended(desk)["last"]
    assert not last["ok"]
    assert "nothing is released yet" in last["detail"]
    assert desk.audited() == []


def test_one_at_a_time_is_made_and_it_ends_when_the_service_stops(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    release(desk)
    begun, go_on = threading.Event(), threading.Event()

    def slow(_: Backups, *, progress: Callable[[int, int], None], **_given: Any) -> None:
        progress(1, 4)
        begun.set()
        assert go_on.wait(WAIT_SECONDS)
        progress(2, 4)

    monkeypatch.setattr(Backups, "create", slow)
    desk.post("backups", status=202)
    assert begun.wait(WAIT_SECONDS)
    assert desk.get("backups")["running"]["share"] == 0.25
    assert "is being made" in desk.post("backups", status=409)["detail"]
    stopping = threading.Thread(target=desk.resources.backups.stop)
    stopping.start()
    desk.resources.backups.stopping.wait(WAIT_SECONDS)
    go_on.set()
    stopping.join(WAIT_SECONDS)
    assert "stopped" in ended(desk)["last"]["detail"]
    desk.post("backups", status=503)


def test_two_who_list_backups_at_once_each_get_what_they_listed(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    release(desk)
    desk.post("backups", status=202)
    ended(desk)
    work = desk.resources.backups

    class Raced(BackupWork):
        """Another thread, which has listed no backup yet, is always faster."""

        @property
        def _facts(self) -> dict[Any, Any]:
            return {}

        @_facts.setter
        def _facts(self, _: dict[Any, Any]) -> None: ...

    monkeypatch.setattr(work, "__class__", Raced)
    assert len(work.all()) == 1


def test_a_library_that_ends_the_thread_of_a_backup_leaves_room_for_the_next_one(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ends(*_: Any, **_given: Any) -> None:
        raise SystemExit("enough")

    monkeypatch.setattr(Backups, "create", ends)
    for _ in range(2):
        desk.post("backups", status=202)
        assert ended(desk)["last"]["detail"] == "enough"
