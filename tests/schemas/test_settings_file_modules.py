"""Modules beside the settings: found from everywhere, and never in place of what is installed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from indexrelay.components.registry import check_kind
from indexrelay.schemas.errors import SettingsError
from indexrelay.schemas.settings_file import load_settings, make_importable

KIND = "from indexrelay.components.embedding_cache import EmbeddingCache as {name}\n"
CONFIG = """
[collections.tracks]
dimension = 3

[components.mine]
kind = "{module}:Mine"
from = "tracks"
"""
CACHE = """
[components.cache]
kind = "json_cache"
from = "mine"
function = "functions_here:build"
"""


def test_the_folder_comes_once_and_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    make_importable(tmp_path)
    make_importable(tmp_path)
    assert sys.path[-1] == str(tmp_path)
    assert sys.path.count(str(tmp_path)) == 1


ROOT = Path(__file__).parents[2]
BUILD_AND_SERVE = """
import sys
from indexrelay.producers import Producer
from indexrelay.rebuilder import Rebuilder
from indexrelay.reloaders import Reloader
from indexrelay.components.registry import check_kind
from indexrelay.schemas.errors import SettingsError
from indexrelay.schemas.settings_file import load_settings
from indexrelay.storage.artifacts import ArtifactStore
from indexrelay.storage.catalog import Catalog
from tests.fixtures.servers import fake_connection

def main():
    before = list(sys.path)
    settings, connection = load_settings(), fake_connection()
    catalog = Catalog.open(settings.catalog_url)
    with Producer(settings, catalog=catalog, connection=connection) as job:
        with job.batch("tracks") as batch:
            batch.upsert(["a"], [[1, 0, 0]])
    assert sys.path == before  # a job needs no module of the user's
    if sys.argv[1] == "build":
        rebuilder = Rebuilder(
            settings, catalog=Catalog.open(settings.catalog_url),
            store=ArtifactStore(settings.artifacts_dir), connection=connection,
        )
        result = rebuilder.step()
        rebuilder.stop()
        assert result.status == "SUCCESS", result
    reader = Reloader(settings, connection=connection)
    reader.step()
    with reader.acquire() as snapshot:
        print(type(snapshot["mine"]).__name__, sorted(snapshot))
    reader.stop()

if __name__ == "__main__":
    main()
"""


def test_every_role_finds_a_kind_and_a_function_beside_the_settings_from_another_folder(
    tmp_path: Path,
) -> None:
    home, elsewhere = tmp_path / "home", tmp_path / "elsewhere"
    for folder in (home, elsewhere):
        folder.mkdir()
    (home / "indexrelay.toml").write_text(CONFIG.format(module="kinds_here") + CACHE)
    (home / "kinds_here.py").write_text(KIND.format(name="Mine"))
    (home / "functions_here.py").write_text("def build(inputs):\n    return {'here': True}\n")
    program = elsewhere / "program.py"
    program.write_text(BUILD_AND_SERVE)
    environ = {**os.environ, "INDEXRELAY_CONFIG": str(home / "indexrelay.toml")}
    environ["PYTHONPATH"] = str(ROOT)
    for role in ("build", "serve"):
        done = subprocess.run(
            [sys.executable, program, role],
            env=environ,
            cwd=elsewhere,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout == "Embeddings ['cache', 'mine']\n"


def test_a_folder_of_ones_own_may_be_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    config = tmp_path / "indexrelay.toml"
    config.write_text('modules_dir = "lib"\n' + CONFIG.format(module="kinds_in_lib"))
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "kinds_in_lib.py").write_text(KIND.format(name="Mine"))
    monkeypatch.chdir("/")
    assert load_settings(config, environ={}).modules_dir == tmp_path / "lib"
    load_settings(config, environ={}, check_kind=check_kind)


def test_an_error_names_where_was_looked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    config = tmp_path / "indexrelay.toml"
    config.write_text(CONFIG.format(module="kinds_nowhere"))
    with pytest.raises(SettingsError, match="'kinds_nowhere' cannot be imported") as caught:
        load_settings(config, environ={}, check_kind=check_kind)
    assert str(tmp_path) in str(caught.value)
    assert "among what is installed" in str(caught.value)
