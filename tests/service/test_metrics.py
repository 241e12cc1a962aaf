"""The page of metrics: it counts what is asked, and is what docs/metrics.md lists."""

import re
from pathlib import Path

import httpx
from prometheus_client.parser import text_string_to_metric_families

from indexrelay.reloaders import Reloader
from indexrelay.service.metrics import BUCKETS, QueryCounts
from indexrelay.service.queries import Observation
from tests.reloaders.bench import Bench
from tests.service.conftest import CONTENTS, KINDS

DOCUMENT = Path(__file__).parents[2] / "docs" / "metrics.md"
Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def samples(client: httpx.Client) -> Samples:
    answer = client.get("/metrics")
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def of(found: Samples, name: str, **labels: str) -> float:
    return found[name, frozenset(labels.items())]


def test_queries_are_counted_by_component_operation_and_outcome(client: httpx.Client) -> None:
    at = "/v1/components"
    for path, body in (
        ("songs/search", {"vector": [0, 0]}),
        ("songs/search", {"id": "calm"}),
        ("songs/search", {"id": "nobody"}),
        ("songs/search", {}),
        ("songs/search/batch", {"queries": [{"id": "calm"}, {"id": "nobody"}]}),
        ("songs/count", {}),
        ("lines/search", {"text": "raise"}),
        ("my-secret-name/search", {"text": "a"}),
    ):
        client.post(f"{at}/{path}", json=body)
    found = samples(client)
    counted = {
        tuple(dict(labels)[each] for each in ("component", "operation", "outcome")): value
        for (name, labels), value in found.items()
        if name == "indexrelay_queries_total"
    }
    assert counted == {
        ("songs", "search", "answered"): 2,
        ("songs", "search", "unknown"): 1,
        ("songs", "search", "refused"): 1,
        ("songs", "batch", "answered"): 1,
        ("songs", "count", "answered"): 1,
        ("lines", "search", "failed"): 1,
        ("", "search", "not_served"): 1,
    }
    labels = {"component": "songs", "operation": "search"}
    assert of(found, "indexrelay_index_search_latency_seconds_count", **labels) == 2
    assert of(found, "indexrelay_index_search_latency_seconds_bucket", **labels, le="+Inf") == 2
    assert 0 < of(found, "indexrelay_index_search_latency_seconds_sum", **labels) < 100
    assert "my-secret-name" not in client.get("/metrics").text


def test_a_duration_is_counted_in_the_first_bucket_that_holds_it() -> None:
    counts = QueryCounts()
    for seconds in (0.0, BUCKETS[0], BUCKETS[0] * 1.01, BUCKETS[-1], BUCKETS[-1] + 1):
        counts.observe(
            Observation(operation="search", outcome="answered", seconds=seconds, component="songs")
        )
    _, durations = counts.families()
    buckets = {
        sample.labels["le"]: sample.value
        for sample in durations.samples
        if sample.name.endswith("_bucket")
    }
    assert list(buckets) == [*map(str, BUCKETS), "+Inf"]
    assert buckets[str(BUCKETS[0])] == 2
    assert buckets[str(BUCKETS[1])] == 3
    assert buckets[str(BUCKETS[-1])] == 4
    assert buckets["+Inf"] == 5


def test_the_page_says_what_is_served_and_what_is_wrong(
    client: httpx.Client, bench: Bench, reader: Reloader
) -> None:
    found = samples(client)
    newest = len(KINDS)
    listed = client.get("/v1/components").json()["components"]
    assert of(found, "indexrelay_ready") == 1
    assert of(found, "indexrelay_release") == of(found, "indexrelay_newest_release") == newest
    for name in KINDS:
        assert of(found, "indexrelay_component_bytes", component=name) == len(CONTENTS[name])
        assert of(found, "indexrelay_component_load_failed", component=name) == 0
        generation = of(
            found, "indexrelay_component_generation", component=name, collection="tracks"
        )
        assert {"tracks": generation} == listed[name]["covers"]
    assert of(found, "indexrelay_mapped_bytes") == sum(map(len, CONTENTS.values()))
    assert of(found, "indexrelay_resident_bytes", of="process") > 1_000_000
    bench.publish_texts({"points": "no numbers"}, kind=KINDS["points"])
    reader.step()
    found = samples(client)
    assert of(found, "indexrelay_component_load_failed", component="points") == 1
    assert of(found, "indexrelay_component_load_failed", component="songs") == 0
    outcomes = {
        dict(labels)["component"]: dict(labels)["outcome"]
        for name, labels in found
        if name == "indexrelay_reload_duration_seconds"
    }
    assert outcomes == {**dict.fromkeys(KINDS, "unchanged"), "points": "failed"}
    assert sum(value for (name, _), value in found.items() if name == "indexrelay_problems") > 0


def test_the_page_lists_what_the_document_does(client: httpx.Client) -> None:
    client.post("/v1/components/songs/search", json={"id": "calm"})
    shown = {
        family.name + ("_total" if family.type == "counter" else ""): (
            family.type,
            family.documentation,
        )
        for family in text_string_to_metric_families(client.get("/metrics").text)
    }
    rows = re.findall(
        r"^\| `(\w+)` \| (\w+) \|(.*?)\| (.*?) \|$",
        DOCUMENT.read_text().partition("## The installation")[0],
        re.MULTILINE,
    )
    assert {name: (kind, text) for name, kind, _, text in rows} == shown
    listed = {name: set(re.findall(r"`(\w+)`", labels)) for name, _, labels, _ in rows}
    for family in text_string_to_metric_families(client.get("/metrics").text):
        name = family.name + ("_total" if family.type == "counter" else "")
        assert name.startswith("indexrelay_")
        for sample in family.samples:
            assert set(sample.labels) - {"le"} == listed[name]
