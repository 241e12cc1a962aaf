"""Every mistake and every error at the command line is answered with what to do."""

import errno
import sqlite3
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from redis import exceptions as redis
from sqlalchemy.exc import OperationalError

from indexrelay.console.errors import explain
from indexrelay.storage.artifacts import StoreAccessError
from tests.console.conftest import CONFIG, Run
from tests.fixtures.servers import PrivateServer, program_or_skip

pytestmark = pytest.mark.server


@dataclass(frozen=True)
class Case:
    """One command in an installation that holds nothing yet, and what it has to say."""

    arguments: str
    says: tuple[str, ...]
    code: int = 1
    settings: str = CONFIG
    files: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.arguments


SILENT_REDIS = '[redis]\nurl = "redis://127.0.0.1:1/0"\n'
"""Nobody listens on that port."""
START_IT = "correct redis.url, or start it; one for this machine comes with: indexrelay up"
REBUILD_HERE = "indexrelay rebuild --here"
CASES = [
    Case("status --config missing.toml", ("no such file", "--config"), code=2),
    Case("check --config broken.toml", ("not valid TOML",), code=2, files={"broken.toml": "a = ["}),
    Case(
        "status",
        ("dimension", "must be greater than or equal to 1"),
        code=2,
        settings=CONFIG.replace("dimension = 3", "dimension = 0"),
    ),
    Case(
        "status",
        ("something else lies where a folder should be",),
        code=3,
        settings='data_dir = "file/below"\n' + CONFIG,
        files={"file": ""},
    ),
    Case(
        "status",
        ("cannot make the folder", "something else lies where a folder should be"),
        code=3,
        settings='[artifacts]\ndir = "file/below"\n' + CONFIG,
        files={"file": ""},
    ),
    Case(
        "status",
        ("catalog.url", "sqlite:///PATH"),
        code=2,
        settings='[catalog]\nurl = "mysql://u:secret@h/d"\n' + CONFIG,
    ),
    Case(
        "status",
        ("catalog.url", "sqlite:///PATH"),
        code=2,
        settings='[catalog]\nurl = "secret"\n' + CONFIG,
    ),
    Case(
        "status",
        ("refused", "start the database, or correct catalog.url"),
        code=3,
        settings='[catalog]\nurl = "postgresql://u:secret@127.0.0.1:1/d"\n' + CONFIG,
    ),
    Case(
        "status",
        ("not a database", "name another, or bring back the catalog's own"),
        code=3,
        settings='[catalog]\nurl = "sqlite:///junk"\n' + CONFIG,
        files={"junk": "this is no database, and it is long enough to be looked at" * 20},
    ),
    Case("status", (START_IT,), code=3, settings=SILENT_REDIS + CONFIG),
    Case("reconcile", ("correct redis.url, or start it",), code=3, settings=SILENT_REDIS + CONFIG),
    Case("readers", (START_IT,), settings=SILENT_REDIS + CONFIG),
    Case("rebuild --wait", (START_IT,), settings=SILENT_REDIS + CONFIG),
    Case("rebuild --here", (START_IT,), settings=SILENT_REDIS + CONFIG),
    Case("search map --id a --reader one", (START_IT,), settings=SILENT_REDIS + CONFIG),
    Case("readers", ("or start one: indexrelay up",)),
    Case("search map --id a --reader one", ("or start one: indexrelay up",)),
    Case("search map --id a", (REBUILD_HERE,)),
    Case("search map", ("give --text, --vector, both of them, or --id",), code=2),
    Case("rebuild mop", ("did you mean 'map'",), code=2),
    Case("components show map", (REBUILD_HERE,)),
    Case("collections show trucks", ("did you mean 'tracks'",), code=2),
    Case("collections drop tracks --yes", ("the catalog has no collection 'tracks'",), code=2),
    Case("pause mop", ("did you mean 'map'",), code=2),
    Case("resume mop", ("did you mean 'map'",), code=2),
    Case("hold map", (REBUILD_HERE,)),
    Case("lift map", (REBUILD_HERE,)),
    Case("rollback 3", ("release 3 cannot be read", "roll back to one that is in that folder")),
    Case("rollback 0", ("indexrelay rollback -h",), code=2),
    Case("dead show 77", ("indexrelay dead list",)),
    Case("dead retry 77", ("77 is no letter",)),
    Case("dead drop 77", ("77 is no letter",)),
    Case("reader --id one", ("give exactly one of --port and --uds",), code=2),
    Case(
        "reader --id one --host 0.0.0.0 --port 49151",
        ("reached from other machines", "listen on 127.0.0.1", "insist with --insecure"),
        code=2,
    ),
    Case("statuss", ("No such command", "status"), code=2),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_mistake_is_answered_with_what_to_do(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: Case
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "indexrelay.toml").write_text(case.settings)
    for name, content in case.files.items():
        (tmp_path / name).write_text(content)
    said = run(*case.arguments.split())
    told = " ".join((said.out + said.err).replace("│", " ").split())
    assert said.code == case.code, told
    for words in case.says:
        assert words in told
    assert "Traceback" not in told
    assert "secret" not in told


def test_held_components_that_are_not_released_are_named(run: Run, built: Path) -> None:
    at = ("--config", str(built))
    for command in ("hold", "lift"):
        said = run(command, "mop", *at)
        assert said.code == 2
        assert "did you mean 'map'" in said.err
    said = run("rollback", "1", "--component", "mop", *at)
    assert (said.code, "did you mean 'map'" in said.err) == (2, True)
    said = run("search", "map", "--id", "t1", "--reader", "nobody", *at)
    assert " --id nobody --port " in said.err


@pytest.mark.parametrize("url", ["unix://{path}", "unix://someone:wrong@{path}"])
def test_a_server_that_wants_a_password_is_answered_with_where_it_goes(
    run: Run, tmp_path: Path, url: str
) -> None:
    server = PrivateServer(tmp_path / "server", program_or_skip("valkey"))
    try:
        path = server.url.removeprefix("unix://")
        from redis import Redis

        with Redis.from_url(server.url) as client:
            client.config_set("requirepass", "right")
        config = tmp_path / "indexrelay.toml"
        config.write_text(f'[redis]\nurl = "{url.format(path=path)}"\n{CONFIG}')
        for command in ("readers", "status"):
            said = run(command, "--config", str(config))
            assert "redis://USER:PASSWORD@HOST:PORT/DB" in said.out + said.err
            assert "wrong" not in (said.out + said.err).replace("WRONGPASS", "")
    finally:
        server.stop()


def test_a_port_that_is_taken_is_answered_with_what_to_do(run: Run, built: Path) -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        said = run("reader", "--id", "one", "--port", port, "--config", str(built))
    assert said.code == 1
    assert "name another port" in said.err
    assert "Traceback" not in said.err


def database(words: str) -> OperationalError:
    return OperationalError("SELECT secret", {}, sqlite3.OperationalError(words))


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (redis.AuthenticationError("NOAUTH"), "USER:PASSWORD"),
        (redis.NoPermissionError("NOPERM"), "deploy/redis/users.acl"),
        (redis.BusyLoadingError("LOADING"), "try again"),
        (redis.OutOfMemoryError("OOM"), "raise maxmemory"),
        (redis.ReadOnlyError("READONLY"), "the URL of the primary"),
        (redis.MaxConnectionsError("too many"), "raise maxclients"),
        (redis.TimeoutError("slow"), "redis.timeout_seconds"),
        (redis.ConnectionError("refused"), "correct redis.url"),
        (database("unable to open database file"), "is there and writable"),
        (database("database is locked"), "wait for it, or end it"),
        (database("database or disk is full"), "make room on the disk of the catalog"),
        (database("file is not a database"), "name another"),
        (database("database disk image is malformed"), "from a backup"),
        (database("attempt to write a readonly database"), "let this process's user write"),
        (database('FATAL: password authentication failed for user "u"'), "the password in catalog"),
        (database('FATAL: database "d" does not exist'), "make that database"),
        (database("permission denied for schema public"), "grant this user"),
        (OSError(errno.ENOSPC, "No space left"), "make room"),
        (PermissionError(errno.EACCES, "denied"), "read and write there"),
        (OSError(errno.EROFS, "read-only"), "name another place"),
        (OSError(errno.EADDRINUSE, "in use"), "name another port"),
        (OSError(errno.ESTALE, "stale"), "network file system"),
        (OSError(errno.EMFILE, "too many open files"), "ulimit -n"),
    ],
    ids=lambda value: value if isinstance(value, str) else f"{type(value).__name__}: {value}"[:60],
)
def test_errors_of_redis_of_the_catalog_and_of_the_system_get_advice(
    error: Exception, advice: str
) -> None:
    explained = explain(error)
    assert explained is not None
    assert explained.advice is not None
    assert advice in explained.advice
    assert "secret" not in explained.sentence


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.ENOSPC, "make room on that disk; it goes on by itself then"),
        (errno.EACCES, "let this process's user read and write there"),
        (errno.ENOENT, "see that the volume is mounted"),
        (errno.EIO, "look after that disk"),
    ],
)
def test_an_error_of_the_store_contains_what_to_do(number: int, advice: str) -> None:
    error = StoreAccessError(Path("releases"), "list", OSError(number, "no"))
    assert str(error).startswith("cannot list releases: no; ")
    assert advice in str(error)
