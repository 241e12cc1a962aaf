"""Slow queries of a process that asks by itself; the service has tests of its own for them."""

import gc
import time
import weakref
from typing import Any

import numpy as np
import pytest

from indexrelay.reloaders.slow_queries import counted_elsewhere, time_queries
from indexrelay.schemas.loggers import FIELDS
from indexrelay.schemas.settings import ComponentDefinition, ReaderSettings
from tests.reloaders.bench import Bench
from tests.service.search_kinds import MODULE, ServedSongs

KIND = f"{MODULE}:Songs"


def slow(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    return [
        getattr(record, FIELDS)
        for record in caplog.records
        if record.getMessage().startswith("query.slow")
    ]


def songs() -> ServedSongs:
    return ServedSongs([("calm", np.zeros(2, np.float32), "jazz")])


@pytest.mark.parametrize("milliseconds", [1e-9, None])
def test_a_reader_in_process_logs_its_slow_queries_where_the_settings_say_so(
    bench: Bench, caplog: pytest.LogCaptureFixture, milliseconds: float | None
) -> None:
    reader_settings = ReaderSettings(slow_query_ms=milliseconds, start_spread_seconds=0)
    declared = {"songs": ComponentDefinition.of(KIND, "tracks")}
    bench.settings = bench.settings.model_copy(
        update={"reader": reader_settings, "components": declared}
    )
    bench.publish_texts({"songs": "calm 0 0 jazz\nloud 4 1 rock\n"}, kind=KIND)
    reader = bench.reader()
    reader.step()
    with reader.acquire() as snapshot:
        hits = snapshot["songs"].search(np.zeros(2, np.float32), k=1, explain=True)
        snapshot["songs"].get(["my-secret"])
        version = snapshot.versions["songs"]
        if milliseconds is None:
            assert vars(snapshot["songs"]).keys() == {"_songs"}, "nothing is paid"
    assert [hit.id for hit in hits] == ["calm"]
    if milliseconds is None:
        assert slow(caplog) == []
        return
    search, entries = slow(caplog)
    assert search == {
        "event": "query.slow",
        "component": "songs",
        "version": version,
        "operation": "search",
        "plan": "exact",
        "k": 1,
        "seconds": search["seconds"],
    }
    assert search["seconds"] > 0
    assert (entries["operation"], entries["plan"], entries["k"]) == ("entries", None, None)
    assert "my-secret" not in caplog.text


def test_a_query_that_asks_another_is_logged_once_and_not_at_all_where_it_is_timed_elsewhere(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    value = songs()
    search = ServedSongs.search
    monkeypatch.setattr(ServedSongs, "count", lambda self: len(self.search([0, 0])), raising=True)
    monkeypatch.setattr(
        ServedSongs, "search", lambda self, *_: search(self, np.zeros(2, np.float32))
    )
    time_queries(value, component="songs", version="v", threshold_ms=0.0)
    assert value.count() == 1
    assert [each["operation"] for each in slow(caplog)] == ["count"]
    with counted_elsewhere():
        assert value.count() == 1
    assert len(slow(caplog)) == 1
    with pytest.raises(TypeError):
        value.search_like(1, 2, 3)  # type: ignore[call-arg, arg-type] # it is to fail
    assert value.count() == 1
    assert len(slow(caplog)) == 2, "one that fails is not slow, and the next one is timed again"


def test_only_what_takes_longer_is_slow(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = iter([0.0, 0.02, 1.0, 1.021])
    monkeypatch.setattr(time, "perf_counter", lambda: next(times))
    value = songs()
    time_queries(value, component="songs", version="v", threshold_ms=20.0)
    assert value.count() == value.count() == 1
    assert [each["seconds"] for each in slow(caplog)] == [0.021]


def test_what_is_timed_is_not_kept_in_memory_by_it() -> None:
    gc.disable()
    try:
        value = songs()
        time_queries(value, component="songs", version="v", threshold_ms=1.0)
        gone = weakref.ref(value)
        del value
        assert gone() is None
    finally:
        gc.enable()


def test_what_takes_no_attributes_stays_as_it_is() -> None:
    class Slotted:
        __slots__ = ("__weakref__",)

        def count(self) -> int:
            return 3

    class Bare:
        __slots__ = ()
        count = Slotted.count

    for value in (Slotted(), Bare()):
        time_queries(value, component="songs", version="v", threshold_ms=0.0)
        assert value.count() == 3  # type: ignore[misc] # it does not look at itself
