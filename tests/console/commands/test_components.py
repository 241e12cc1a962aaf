"""`components show` of an index: the decision, the trade-off, the versions before."""

import json
import shutil
from collections.abc import Iterator
from datetime import datetime
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from indexrelay.console.commands.components import decision_page
from indexrelay.console.installation import Installation
from indexrelay.producers import Producer
from indexrelay.schemas.settings_file import load_settings
from indexrelay.storage.artifacts import ArtifactStore
from indexrelay.streams import EmbeddedServer
from tests.components.jobs import clustered
from tests.console.conftest import Run, build

pytestmark = pytest.mark.server

CONFIG = """
[collections.tracks]
dimension = 8

[components.similar]
kind = "vector_index"
from = "tracks"
index = "IVF16,Flat"

[components.words]
kind = "text_index"
from = "tracks"

[components.find]
kind = "search"
from = "tracks"
vector = { index = "IVF16,Flat" }
"""


def commit(config: Path, batch_id: str, first: int, count: int) -> None:
    vectors = clustered(first + count, 8)[first:]
    with (
        Producer.open(load_settings(config, environ={})) as producer,
        producer.batch("tracks", batch_id) as batch,
    ):
        ids = [f"t{number:05d}" for number in range(first, first + count)]
        batch.upsert(ids, vectors, texts=["sound"] * count)


def test_a_component_that_was_never_released_is_shown_with_the_reason(
    run: Run, tmp_path: Path
) -> None:
    config = tmp_path / "indexrelay.toml"
    config.write_text(CONFIG)
    at = ("--config", str(config))
    with EmbeddedServer(tmp_path / "indexrelay-data"):
        with (
            Producer.open(load_settings(config, environ={})) as producer,
            producer.batch("tracks", "without-texts") as batch,
        ):
            batch.upsert(["a", "b"], np.eye(2, 8))
        build(config)
        for asking in (("components", "show"), ("hold",)):
            said = run(*asking, "words", *at)
            assert said.code == 1
            assert "its last build failed" in said.err
            assert "no entry has a text" in said.err
            said = run(*asking, "wods", *at)
            assert (said.code, "did you mean 'words'" in said.err) == (2, True)


@pytest.fixture(scope="module")
def built_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An installation that was built twice, and that nobody uses: each test gets a copy."""
    folder = tmp_path_factory.mktemp("twice_built")
    config = folder / "indexrelay.toml"
    config.write_text(CONFIG)
    with EmbeddedServer(folder / "indexrelay-data"):
        for batch, (first, count) in enumerate([(0, 700), (700, 100)]):
            commit(config, f"batch-{batch}", first, count)
            build(config)
    return folder


@pytest.fixture
def twice_built(built_once: Path, tmp_path: Path) -> Iterator[Path]:
    folder = shutil.copytree(built_once, tmp_path / "copy", ignore=shutil.ignore_patterns("*.sock"))
    with EmbeddedServer(folder / "indexrelay-data"):
        yield folder / "indexrelay.toml"


def test_the_decision_the_trade_off_and_the_history_are_shown(run: Run, twice_built: Path) -> None:
    said = run("components", "show", "similar", "--json", "--config", str(twice_built))
    shown = json.loads(said.out)
    details = shown["details"]
    assert (details["index"], details["reason"]) == ("IVF16,Flat", "asked for")
    chosen = {key: details["effort"][key] for key in ("nprobe",)}
    assert any(trial["nprobe"] == chosen["nprobe"] for trial in details["trials"])
    assert all({"nprobe", "recall", "milliseconds"} <= set(trial) for trial in details["trials"])
    assert shown["bytes"] == sum(blob["size"] for blob in shown["files"].values())
    newest, oldest = shown["history"]
    assert (newest["version"], newest["entries"]) == (shown["version"], 800)
    assert (oldest["entries"], oldest["covers"]) == (700, {"tracks": 1})
    assert (oldest["first_release"], oldest["last_release"]) == (1, 1)

    page = run("components", "show", "similar", "--config", str(twice_built)).out
    assert "IVF16,Flat was asked for" in page
    for heading in ("Trade-off", "Checks", "Files", "History"):
        assert heading in page
    marked = next(line for line in page.splitlines() if "→" in line)
    assert marked.split()[1] == str(chosen["nprobe"])
    assert "attempts" not in page


def test_the_halves_of_a_search_are_shown_as_what_they_are(run: Run, twice_built: Path) -> None:
    page = run("components", "show", "find", "--config", str(twice_built)).out
    assert "IVF16,Flat was asked for" in page
    assert "Trade-off" in page
    facts = {line.split("  ")[0].strip(): line for line in page.splitlines()}
    assert "words" in facts["text tokenizer"]
    assert "more than 10% of the base" in facts["vector build"]
    assert any("vector.recall" in line for line in page.splitlines())


def test_everything_that_auto_tried_is_shown_with_what_it_takes_and_why_it_was_left_out() -> None:
    def tried(index: str, **facts: object) -> dict[str, object]:
        return {
            "index": index,
            "reason": "it is fast",
            "rows": 4096,
            "recall": 0.96,
            "milliseconds": 0.5,
            "bytes": 48_000_000,
            "seconds": 12.0,
            "short_of": [],
            "front": False,
            "left_out": "",
            **facts,
        }

    details = {
        "index": "HNSW32,SQfp16",
        "reason": "it is fast",
        "prefer": "latency",
        "attempts": [
            tried("IVF1024,Flat", front=True, left_out="behind the chosen one"),
            tried("HNSW32,SQfp16", rows=200_000, milliseconds=0.07, front=True),
            tried("IVF1024,SQ8", recall=0.91, short_of=["recall"]),
        ],
    }
    console = Console(width=160, record=True, file=StringIO())
    console.print(*decision_page(details, {"prefer": "latency"}))
    page = console.export_text()
    assert "HNSW32,SQfp16  (chosen by auto, for its latency: it is fast)" in page
    rows = {line.split()[1]: line for line in page.splitlines() if len(line.split()) > 5}
    lists, graph, few_bits = (
        rows[index] for index in ("IVF1024,Flat", "HNSW32,SQfp16", "IVF1024,SQ8")
    )
    assert "◦" in lists
    assert "≈" in lists
    assert "behind the chosen one" in lists
    assert "✓" in graph
    assert "≈" not in graph
    assert "45.8 MiB" in graph
    assert "✗" in few_bits
    assert "too little recall" in few_bits


def test_a_search_is_asked_by_words_and_a_vector_at_once(run: Run, twice_built: Path) -> None:
    at = ("--config", str(twice_built))
    vector = json.dumps(clustered(1, 8)[0].tolist())
    asked = ("search", "find", "--text", "sound", "--vector", vector, "-k", "3")
    found = json.loads(run(*asked, "--json", *at).out)["hits"]
    assert [set(hit["arms"]) for hit in found] == [{"vector", "text"}] * 3
    page = run(*asked, *at).out
    assert "found by" in page
    assert "vector 1" in page
    plain = run("search", "find", "--text", "sound", *at).out
    assert "text 1" in plain


@pytest.mark.parametrize(
    ("only", "said"),
    [("{", "--filter is no JSON"), ('{"year": 1999}', "year")],
)
def test_a_filter_that_cannot_be_answered_is_named(
    run: Run, twice_built: Path, only: str, said: str
) -> None:
    answer = run("search", "find", "--text", "x", "--filter", only, "--config", str(twice_built))
    assert answer.code == 2
    assert said in answer.err


def test_a_kind_without_a_decision_shows_none(run: Run, twice_built: Path) -> None:
    page = run("components", "show", "words", "--config", str(twice_built)).out
    assert "Trade-off" not in page
    assert "History" in page


def test_releases_that_change_nothing_of_a_component_are_one_line(
    run: Run, twice_built: Path
) -> None:
    at = ("--config", str(twice_built))
    assert run("hold", "similar", "--reason", "looking at it", *at).code == 0
    shown = json.loads(run("components", "show", "similar", "--json", *at).out)
    assert [(e["first_release"], e["last_release"]) for e in shown["history"]] == [(2, 3), (1, 1)]
    assert np.all(np.diff([e["entries"] for e in shown["history"]]) < 0)


def test_the_history_continues_below_numbers_that_the_store_lost(
    run: Run, twice_built: Path
) -> None:
    ArtifactStore(load_settings(twice_built, environ={}).artifacts_dir).renumber(
        lost=1000, reason="readers were ahead"
    )
    said = run("components", "show", "similar", "--json", "--config", str(twice_built)).out
    runs = [(e["first_release"], e["last_release"]) for e in json.loads(said)["history"]]
    assert runs == [(2, 1001), (1, 1)]


def test_golden_queries_are_shown_over_the_versions(run: Run, twice_built: Path) -> None:
    at = ("--config", str(twice_built))
    table = '[components.similar]\nkind = "vector_index"\n'
    for expected, grade in (("t00001", 1), ("t00000", 3)):
        query = {"vector": clustered(700, 8)[0].tolist(), "expected": {expected: grade, "gone": 2}}
        (twice_built.parent / "queries.jsonl").write_text(json.dumps(query))
        twice_built.write_text(CONFIG.replace(table, f'{table}golden = "queries.jsonl"\n'))
        build(twice_built)
    shown = json.loads(run("components", "show", "similar", "--json", *at).out)
    figures = [each["golden"] for each in shown["history"]]
    assert figures[2:] == [None, None]
    now, before = figures[:2]
    assert (now["ndcg"], now["hit_rate"], now["known"], now["k"]) == (1, 1, 0.5, 10)
    assert before["ndcg"] < 1
    assert before["sha256"] != now["sha256"]
    assert [each["bytes"] for each in shown["history"][:3]] == [shown["bytes"]] * 3
    page = run("components", "show", "similar", *at).out
    assert "Golden queries" in page
    assert "'gone' is expected and not in the collection" in " ".join(page.split())
    assert page.count("queries.jsonl") == 3


FUNCTIONS = """
def decades(inputs):
    return [entry.payload["year"] // 10 for entry in inputs["tracks"]]
"""
CACHE = '\n[components.decades]\nkind = "json_cache"\nfrom = "tracks"\nfunction = "mine:decades"\n'


def test_a_failing_component_is_shown_with_the_line_of_the_users_own_code(
    run: Run, twice_built: Path
) -> None:
    config = twice_built
    at = ("--config", str(config))
    (config.parent / "mine.py").write_text("def decades(inputs):\n    return [1]\n")
    config.write_text(CONFIG + CACHE)
    assert run("rebuild", "--here", *at).code == 0
    assert json.loads(run("components", "show", "decades", "--json", *at).out)["failing"] is None
    (config.parent / "mine.py").write_text(FUNCTIONS)
    assert run("rebuild", "--here", "decades", *at).code != 0

    fails = json.loads(run("components", "show", "decades", "--json", *at).out)["failing"]
    assert fails["error"].startswith("TypeError: 'NoneType' object is not subscriptable (mine.py:3")
    assert 'entry.payload["year"] // 10' in fails["error"]
    assert (fails["failures"], fails["transient"], fails["retry_at"] is None) == (1, False, False)
    assert fails["failing_since"] == fails["failed_at"]
    with Installation.at(config) as installation:
        installation.catalog.attempts.failed(
            "decades", error=fails["error"], inputs="others", targets={}
        )
    later = json.loads(run("components", "show", "decades", "--json", *at).out)["failing"]
    assert later["failing_since"] == fails["failing_since"] < later["failed_at"]
    listed = json.loads(run("components", "--json", *at).out)["components"]["decades"]
    since = datetime.fromisoformat(fails["failing_since"])
    assert datetime.fromisoformat(listed["failing_since"]) == since
    page = run("components", "show", "decades", *at).out
    assert page.startswith(f"✗ FAILING  it fails since {since:%Y-%m-%d %H:%M}")
    assert "its last build failed, 0 s ago: TypeError" in page.replace(" 1 s ago", " 0 s ago")
    assert f" {since:%Y-%m-%d %H:%M} UTC" in run("status", *at).out
    assert "mine.py:3" in page
    assert f"indexrelay rebuild --config {config} decades --here" in page
