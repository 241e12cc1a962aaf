"""Where the settings come from: the file, the variables above it, and what is relative to what."""

import json
from pathlib import Path

import pytest
from pydantic import ValidationError
from sqlalchemy import make_url

from indexrelay.schemas.errors import SettingsError
from indexrelay.schemas.settings import FolderSource, Settings, TableSource
from indexrelay.schemas.settings_file import load_settings

FILE = """
namespace = "music"
data_dir = "state"

[rebuilder]
quiet_seconds = 0.5
workers = 3

[artifacts]
dir = "artifacts"

[collections.songs]
dimension = 8
source = { kind = "folder", path = "songs" }

[components.voyager]
kind = "vector_index"
from = "songs"
nprobe = 16
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "etc" / "indexrelay.toml"
    file.parent.mkdir()
    file.write_text(FILE, encoding="utf-8")
    return file


def test_without_a_file_everything_has_its_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = load_settings(environ={})
    assert settings == Settings(data_dir=tmp_path / "indexrelay-data", modules_dir=tmp_path)
    assert settings.redis_url is None
    assert settings.catalog_url == f"sqlite:///{tmp_path}/indexrelay-data/catalog.db"


def test_the_file_in_the_current_folder_is_read_when_none_is_named(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(file.parent)
    assert load_settings(environ={}).namespace == "music"


def test_a_variable_names_the_file(file: Path) -> None:
    assert load_settings(environ={"INDEXRELAY_CONFIG": str(file)}).namespace == "music"


def test_a_named_file_comes_before_the_variable_that_names_one(file: Path, tmp_path: Path) -> None:
    variables = {"INDEXRELAY_CONFIG": str(tmp_path / "no such file")}
    assert load_settings(file, environ=variables).namespace == "music"


def test_variables_win_over_the_file_key_by_key(file: Path) -> None:
    settings = load_settings(
        file,
        environ={
            "INDEXRELAY_NAMESPACE": "other",
            "INDEXRELAY_REBUILDER__QUIET_SECONDS": "0.75",
            "INDEXRELAY_COMPONENTS__VOYAGER__REQUIRED": "false",
            "INDEXRELAY_READER__COMPONENTS": '["voyager"]',
        },
    )
    assert settings.namespace == "other"
    assert settings.rebuilder.quiet_seconds == 0.75
    assert settings.rebuilder.workers == 3
    assert settings.components["voyager"].required is False
    assert settings.components["voyager"].parameters == {"nprobe": 16}
    assert settings.reader.components == ("voyager",)


def test_a_whole_component_fits_into_one_variable(file: Path) -> None:
    settings = load_settings(
        file,
        environ={
            "INDEXRELAY_COMPONENTS__MAP": '{"kind": "projection", "from": ["songs"], "seed": 1}',
            "INDEXRELAY_COMPONENTS__MAP__SEED": "2",
        },
    )
    assert settings.components["map"].inputs == ("songs",)
    assert settings.components["map"].parameters == {"seed": 2}


def test_a_component_from_variables_has_the_digest_of_the_one_in_the_file(file: Path) -> None:
    settings = load_settings(
        file,
        environ={
            "INDEXRELAY_COMPONENTS__SAME__KIND": "vector_index",
            "INDEXRELAY_COMPONENTS__SAME__FROM": "songs",
            "INDEXRELAY_COMPONENTS__SAME__NPROBE": "16",
        },
    )
    assert settings.components["same"].digest == settings.components["voyager"].digest


def test_an_empty_variable_counts_as_not_set(file: Path) -> None:
    settings = load_settings(
        file, environ={"INDEXRELAY_REDIS__URL": "", "INDEXRELAY_NAMESPACE": ""}
    )
    assert settings.redis_url is None
    assert settings.namespace == "music"


def test_other_programs_variables_are_left_alone(file: Path) -> None:
    assert load_settings(file, environ={"REDIS_URL": "x", "indexrelay_namespace": "y", "PATH": ""})


def test_relative_paths_are_relative_to_the_file(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = load_settings(Path("etc/indexrelay.toml"), environ={})
    assert settings.data_dir == file.parent / "state"
    assert settings.artifacts_dir == file.parent / "artifacts"
    source = settings.collections["songs"].source
    assert isinstance(source, FolderSource)
    assert source.path == file.parent / "songs"


def test_absolute_paths_stay_as_they_are(file: Path) -> None:
    settings = load_settings(file, environ={"INDEXRELAY_DATA_DIR": "/var/lib/indexrelay"})
    assert settings.data_dir == Path("/var/lib/indexrelay")


@pytest.mark.parametrize(
    ("url", "seen"),
    [
        ("sqlite:///catalog.db", "sqlite:///{folder}/catalog.db"),
        ("sqlite+pysqlite:///a/b.db?mode=ro", "sqlite+pysqlite:///{folder}/a/b.db?mode=ro"),
        ("sqlite:////var/lib/catalog.db", "sqlite:////var/lib/catalog.db"),
        ("sqlite:///:memory:", "sqlite:///:memory:"),
        ("sqlite://", "sqlite://"),
        ("postgresql://user@host/name", "postgresql://user@host/name"),
    ],
)
def test_the_path_in_an_sqlite_url_is_relative_to_the_file(url: str, seen: str, file: Path) -> None:
    table = f'{{"dimension": 1, "source": {{"kind": "table", "table": "t", "url": "{url}"}}}}'
    settings = load_settings(
        file,
        environ={"INDEXRELAY_CATALOG__URL": url, "INDEXRELAY_COLLECTIONS__OTHER": table},
    )
    source = settings.collections["other"].source
    assert isinstance(source, TableSource)
    wanted = seen.format(folder=file.parent)
    assert (settings.catalog_url, source.url.get_secret_value()) == (wanted, wanted)


@pytest.mark.parametrize(
    "url", ["nonsense", "mysql://u:pw@x/y", "postgresql://u:pw@x:abc/y", "http://x"]
)
def test_a_catalog_that_is_no_database_of_ours_is_a_mistake(url: str) -> None:
    with pytest.raises(ValidationError, match="write sqlite:///PATH"):
        Settings.model_validate({"catalog": {"url": url}})


ODD_NAMES = ["a?b", "a%41", "aA", "a%3Fb", "a#b", "a;b c", "ünï", "a@b:c", "&=+"]


@pytest.mark.parametrize("name", ODD_NAMES)
def test_a_path_becomes_a_url_that_leads_to_it_whatever_its_folders_are_called(
    tmp_path: Path, name: str
) -> None:
    folder = tmp_path / name
    folder.mkdir()
    file = folder / "indexrelay.toml"
    file.write_text(f"data_dir = 'data {name}'\n", encoding="utf-8")
    settings = load_settings(file, environ={})
    assert make_url(settings.catalog_url).database == f"{folder}/data {name}/catalog.db"
    table = {"kind": "table", "url": "sqlite:///rows.db?timeout=3", "table": "t"}
    variables = {
        "INDEXRELAY_CATALOG__URL": "sqlite:///own.db",
        "INDEXRELAY_COLLECTIONS__TRACKS": json.dumps({"dimension": 2, "source": table}),
    }
    settings = load_settings(file, environ=variables)
    assert make_url(settings.catalog_url).database == f"{folder}/own.db"
    source = settings.collections["tracks"].source
    assert isinstance(source, TableSource)
    url = make_url(source.url.get_secret_value())
    assert (url.database, dict(url.query)) == (f"{folder}/rows.db", {"timeout": "3"})


def test_a_tilde_is_the_home_folder_in_every_path(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    folder = {"dimension": 2, "source": {"kind": "folder", "path": "~/vectors"}}
    table = {"kind": "table", "url": "sqlite:///~/rows.db", "table": "t"}
    variables = {
        "INDEXRELAY_DATA_DIR": "~/data",
        "INDEXRELAY_ARTIFACTS__DIR": "~/artifacts",
        "INDEXRELAY_REDIS__URL": "unix://~/redis%20socket?db=1",
        "INDEXRELAY_CATALOG__URL": "sqlite:///~/catalog.db",
        "INDEXRELAY_COLLECTIONS__FILES": json.dumps(folder),
        "INDEXRELAY_COLLECTIONS__ROWS": json.dumps({"dimension": 2, "source": table}),
    }
    for settings in (
        load_settings(file, environ=variables),
        load_settings(environ={**variables, "INDEXRELAY_CONFIG": f"~/etc/{file.name}"}),
        load_settings(Path(f"~/etc/{file.name}"), environ=variables),
    ):
        files, rows = (settings.collections[name].source for name in ("files", "rows"))
        assert isinstance(files, FolderSource)
        assert isinstance(rows, TableSource)
        assert (settings.data_dir, settings.artifacts_dir) == (
            tmp_path / "data",
            tmp_path / "artifacts",
        )
        assert settings.catalog_url == f"sqlite:///{tmp_path}/catalog.db"
        assert settings.redis_url == f"unix://{tmp_path}/redis%20socket?db=1"
        assert files.path == tmp_path / "vectors"
        assert rows.url.get_secret_value() == f"sqlite:///{tmp_path}/rows.db"
    with pytest.raises(SettingsError, match=r"there is no home folder '~nobody-here'"):
        load_settings(file, environ={"INDEXRELAY_DATA_DIR": "~nobody-here/data"})
    assert (
        load_settings(file, environ={"INDEXRELAY_DATA_DIR": "a~b"}).data_dir == file.parent / "a~b"
    )


@pytest.mark.parametrize(
    ("encoding", "read"),
    [
        ("utf-8", True),
        ("utf-8-sig", True),
        ("utf-16", False),
        ("utf-32", False),
        ("latin-1", False),
    ],
)
def test_a_byte_order_mark_is_accepted_and_another_encoding_refused_by_name(
    file: Path, encoding: str, read: bool
) -> None:
    file.write_bytes("namespace = 'music' # für\n".encode(encoding))
    if read:
        assert load_settings(file, environ={}).namespace == "music"
        return
    with pytest.raises(SettingsError, match=r"not UTF-8; save|not valid TOML: 'utf-8' codec"):
        load_settings(file, environ={})


def test_a_limit_that_there_is_by_default_is_lifted_by_false(file: Path) -> None:
    text = FILE + "[producer]\nmax_backlog = false\n[reader]\nscrub_interval_seconds = false\n"
    file.write_text(text, encoding="utf-8")
    settings = load_settings(file, environ={})
    assert settings.producer.max_backlog is None
    assert settings.reader.scrub_interval_seconds is None
    settings = load_settings(file, environ={"INDEXRELAY_PRODUCER__MAX_BACKLOG": "7"})
    assert settings.producer.max_backlog == 7
    settings = load_settings(file, environ={"INDEXRELAY_PRODUCER__MAX_BACKLOG": "False"})
    assert settings.producer.max_backlog is None
    file.write_text(FILE + "[producer]\nmax_backlog = true\n", encoding="utf-8")
    with pytest.raises(SettingsError, match="or false for no limit"):
        load_settings(file, environ={})
