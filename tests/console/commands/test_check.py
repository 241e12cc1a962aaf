"""What `check` tries: options that a client would refuse, indexes that FAISS cannot make."""

from pathlib import Path
from typing import Any

import pytest

from indexrelay.console.commands.check import (
    component_trials,
    token_trials,
    trial_notes,
    url_mistakes,
)
from indexrelay.schemas.errors import SettingsError
from indexrelay.schemas.settings import Settings
from indexrelay.schemas.settings_file import check_settings
from indexrelay.streams import Connection
from indexrelay.streams.errors import RedisUrlError
from tests.console.conftest import Run


@pytest.mark.parametrize(
    "url",
    [
        "rediss://:hunter2@localhost?ssl_cert_reqs=CERT_NONE",
        "rediss://:hunter2@localhost?ssl_ca_certs=/proc/no/such/file",
        "rediss://:hunter2@localhost?ssl_certfile=/proc/no/such/file",
        "rediss://:hunter2@localhost?ssl_min_version=TLSv1.2",
        "rediss://:hunter2@localhost?ssl_ciphers=none-of-them",
        "rediss://:hunter2@localhost?ssl_no_such_option=1",
        "rediss+sentinel://:hunter2@localhost/service?ssl_cert_reqs=CERT_NONE",
        "redis://:hunter2@localhost?ssl_cert_reqs=none",
        "redis://:hunter2@localhost?encoding=klingon",
        "redis://:hunter2@localhost?max_connections=many",
        "redis://:hunter2@localhost?redis_connect_func=f",
        "redis://:hunter2@localhost?credential_provider=f",
        "unix:///tmp/x?password=hunter2&no_such_option=1",
    ],
)
def test_check_refuses_what_a_client_of_redis_would_refuse(url: str) -> None:
    settings = Settings.model_validate({"redis": {"url": url}})
    (mistake,) = [each for each in url_mistakes(settings) if each.key == "redis.url"]
    assert "hunter2" not in str(mistake)


@pytest.mark.parametrize(
    "url",
    [
        "redis://user:hunter2@localhost:6379/3?socket_timeout=3&client_name=me",
        "rediss://localhost?ssl_cert_reqs=none&ssl_check_hostname=false",
        "rediss+sentinel://localhost/service/0?ssl_cert_reqs=required",
        "unix:///tmp/x?db=2",
    ],
)
def test_check_takes_what_a_client_of_redis_takes(url: str) -> None:
    assert list(url_mistakes(Settings.model_validate({"redis": {"url": url}}))) == []


def test_a_client_refuses_the_same_options_before_anything_is_sent() -> None:
    with pytest.raises(RedisUrlError, match="an option in its query is not known"):
        Connection.open("redis://localhost:1?encoding=klingon")


@pytest.mark.parametrize(
    ("url", "right"),
    [
        ("sqlite:////tmp/a.db", None),
        ("sqlite:////tmp/a.db?timeout=3", None),
        ("sqlite:////tmp/a.db?no_such_option=1", "not known"),
        ("postgresql://me:hunter2@host/db", None),
        ("postgresql://me:hunter2@host/db?sslmode=require", None),
        ("postgresql://me:hunter2@host/db?sslmode=always", "sslmode must be one of"),
        ("postgresql://me:hunter2@host/db?no_such_option=1", "not known"),
    ],
)
def test_check_refuses_what_a_driver_of_the_catalog_would_refuse(
    url: str, right: str | None
) -> None:
    settings = Settings.model_validate({"catalog": {"url": url}})
    found = [str(mistake) for mistake in url_mistakes(settings)]
    assert bool(found) == (right is not None)
    assert right is None or right in found[0]
    assert "hunter2" not in "".join(found)


def indexed(index: str, dimension: int) -> Settings:
    return Settings.model_validate(
        {
            "collections": {"tracks": {"dimension": dimension}},
            "components": {"similar": {"kind": "vector_index", "from": "tracks", "index": index}},
        }
    )


@pytest.mark.parametrize(
    ("index", "dimension", "reason"),
    [
        ("IVF64,PQ16", 10, "should be a multiple of the number of subquantizers"),
        ("OPQ16,IVF64,PQ16", 10, "should be a multiple of the number of subquantizers"),
        ("HNSW32,PQ16", 10, "should be a multiple of the number of subquantizers"),
        ("PQ16x4fs", 10, "should be a multiple of the number of subquantizers"),
        ("PCA64,Flat", 10, "cannot make 64 dimensions of fewer"),
        ("PCA64,IVF4096,PQ16", 32, "cannot make 64 dimensions of fewer"),
        ("OPQ4_9,PQ4", 10, "should be a multiple of the number of subquantizers"),
    ],
)
def test_an_index_that_cannot_be_made_of_so_many_dimensions_is_a_mistake(
    index: str, dimension: int, reason: str
) -> None:
    (mistake,), _ = component_trials(indexed(index, dimension))
    assert reason in str(mistake)
    assert str(mistake).startswith("components.similar")


@pytest.mark.parametrize(
    ("index", "dimension", "note"),
    [
        ("auto", 10, None),
        ("Flat", 10, None),
        ("HNSW32", 10, None),
        ("IVF64,PQ5", 10, "trained on 9,984 entries; while there are fewer, a scan (Flat) serves"),
        ("IVF65536_HNSW32,Flat", 768, "trained on 2,555,904 entries"),
        ("OPQ16,IVF1024,PQ16", 768, "trained on 39,936 entries"),
        ("NSG32", 16, "trained on 1,000 entries"),
    ],
)
def test_check_reports_from_how_many_entries_an_index_is_what_was_asked_for(
    index: str, dimension: int, note: str | None
) -> None:
    mistakes, notes = component_trials(indexed(index, dimension))
    assert mistakes == []
    assert (note is None and notes == {}) or (
        note is not None and note in notes["components.similar"]
    )


def test_check_exits_2_for_what_only_trying_shows(run: Run, tmp_path: Path) -> None:
    config = tmp_path / "indexrelay.toml"
    table = '[components.similar]\nkind = "vector_index"\nfrom = "tracks"\nindex = "IVF64,PQ16"\n'
    config.write_text(f"[collections.tracks]\ndimension = 10\n{table}")
    said = run("check", "--config", str(config))
    assert said.code == 2
    assert "IVF64,PQ16 of vectors of length 10" in said.err


def with_tenant(asked: Any, **kinds: str) -> Settings:
    """Components of two collections, of which only ``docs`` declares ``tenant``."""
    token = {"sha256": "0" * 64, "filter": asked}
    return Settings.model_validate(
        {
            "http": {"tokens": {"acme": token}},
            "collections": {
                "docs": {"dimension": 2, "filterable": {"tenant": "keyword"}},
                "tracks": {"dimension": 2},
            },
            "components": {
                name: {"kind": kind, "from": "docs" if name == "found" else "tracks"}
                for name, kind in kinds.items()
            },
        }
    )


@pytest.mark.parametrize(
    ("asked", "kinds", "right"),
    [
        ({"tenant": "acme"}, {"similar": "vector_index"}, "no field can be filtered by"),
        ({"tenat": "acme"}, {"found": "search"}, "'tenat' is no filterable field"),
        ({"tenant": 3}, {"found": "search", "similar": "text_index"}, "filter.tenant"),
        ({"$and": [{}]}, {"found": "text_index"}, "matches all of found"),
    ],
)
def test_a_tenant_filter_that_nothing_can_answer_is_a_mistake(
    asked: Any, kinds: dict[str, str], right: str
) -> None:
    [mistake], _ = token_trials(with_tenant(asked, **kinds))
    assert str(mistake).startswith("http.tokens.acme.filter")
    assert right in str(mistake)
    with pytest.raises(SettingsError, match=r"http\.tokens\.acme\.filter"):
        trial_notes(with_tenant(asked, **kinds))


def test_check_says_which_components_answer_nothing_to_a_tenant() -> None:
    kinds = {"found": "search", "similar": "vector_index"}
    assert token_trials(with_tenant({"tenant": "acme"}, found="search")) == ([], {})
    mistakes, notes = token_trials(with_tenant({"tenant": "acme"}, **kinds))
    assert mistakes == []
    assert "nothing is answered by similar" in notes["http.tokens.acme.filter"]
    assert "found" not in notes["http.tokens.acme.filter"]


NUMBERS: list[tuple[str, str, list[Any], list[Any]]] = [
    (
        "collections.tracks",
        "dimension",
        [2, 2.0, "2"],
        [True, False, 2.5, "two", float("nan"), 0, -1],
    ),
    ("rebuilder", "workers", [2, "2"], [True, False, 2.5, float("inf"), 0]),
    ("rebuilder", "quiet_seconds", [0, 0.5, "0.5"], [True, False, float("nan"), -1, "soon"]),
    ("rebuilder", "build_memory_bytes", [1], [True, float("nan"), 0]),
    ("rebuilder", "build_niceness", [0, 19], [True, 20, 1.5]),
    ("reader", "block_seconds", [1, 0.5], [True, 3, float("nan")]),
    ("reader", "scrub_interval_seconds", [False, 5, "false"], [True, float("nan"), 0]),
    ("producer", "max_backlog", [False, 5], [True, 0, 1.5, float("nan")]),
    ("redis", "timeout_seconds", [1], [True, float("inf"), 0]),
    ("components.similar", "max_shrink", [0, 0.5, 1], [True, float("nan"), 2]),
    ("components.similar", "build_timeout_seconds", [1], [True, float("nan"), 0]),
]


@pytest.mark.parametrize(("table", "key", "right", "wrong"), NUMBERS)
def test_a_number_is_a_number_in_every_setting(
    table: str, key: str, right: list[Any], wrong: list[Any]
) -> None:
    for value in right:
        check_settings(tables(table, key, value), origin="test")
    for value in wrong:
        with pytest.raises(SettingsError) as caught:
            check_settings(tables(table, key, value), origin="test")
        assert [mistake.key for mistake in caught.value.mistakes] == [f"{table}.{key}"], value


@pytest.mark.parametrize(
    "limits",
    [
        {"quiet_seconds": 10},
        {"quiet_seconds": 2, "max_delay_seconds": 1},
        {"failure_cooldown_seconds": 700},
    ],
)
def test_a_limit_is_not_below_what_it_limits(limits: dict[str, float]) -> None:
    with pytest.raises(SettingsError, match="must be at least"):
        check_settings({"rebuilder": limits}, origin="test")


def tables(table: str, key: str, value: Any) -> dict[str, Any]:
    """The tables of a settings file in which one key is this."""
    raw: dict[str, Any] = {
        "collections": {"tracks": {"dimension": 2}},
        "components": {"similar": {"kind": "vector_index", "from": "tracks"}},
    }
    place = raw
    for part in table.split("."):
        place = place.setdefault(part, {})
    place[key] = value
    return raw
