"""What an installation writes is its owner's alone, or its readers' as well where that is asked."""

import os
import stat
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from indexrelay.console.commands.up import sole_owner
from indexrelay.console.processes import Child
from indexrelay.health.judge import judge
from indexrelay.health.survey import Survey
from indexrelay.schemas.clock import SystemClock
from indexrelay.schemas.errors import SettingsError
from indexrelay.schemas.files import open_private, open_to_everyone
from indexrelay.schemas.settings import Settings
from indexrelay.schemas.settings_file import check_settings
from indexrelay.storage.artifacts import (
    ArtifactStore,
    BlobCorruptError,
    ReleaseUnreadableError,
    VersionUnreadableError,
)
from indexrelay.storage.artifacts.files import MOST_BYTES
from indexrelay.storage.catalog import Catalog
from indexrelay.streams import EmbeddedServer
from indexrelay.streams.server import find_server
from tests.health.healthy_facts import healthy
from tests.rebuilder.conftest import MakeBench, behaving
from tests.security.strangers import a_place_for_all, as_stranger
from tests.storage.artifacts.samples import make_file, make_release, make_version


@pytest.fixture(params=[0o000, 0o022, 0o077], ids=["umask 000", "umask 022", "umask 077"])
def umask(request: pytest.FixtureRequest) -> Iterator[None]:
    """What a process creates does not follow the umask that it happened to be started with."""
    before = os.umask(request.param)
    yield
    os.umask(before)


def modes(root: Path) -> dict[bool, set[int]]:
    """The modes of the folders (``True``) and of the files (``False``) from ``root`` on."""
    found: dict[bool, set[int]] = {True: {stat.S_IMODE(root.stat().st_mode)}, False: set()}
    for path in root.rglob("*"):
        if not path.is_socket():
            found[path.is_dir()].add(stat.S_IMODE(path.lstat().st_mode))
    return found


def test_a_rebuild_leaves_nothing_that_others_may_read(
    umask: None, tmp_path: Path, make_bench: MakeBench
) -> None:
    bench = make_bench(index=behaving("tracks"))
    bench.commit("a")
    bench.rebuild()
    with bench.store.scrubbing(), sole_owner(tmp_path / "data"):
        found = modes(tmp_path)
    assert found[True] == {0o700}
    assert found[False] == {0o400, 0o600}


def test_a_group_may_read_the_artifacts_where_that_is_set_and_change_nothing(umask: None) -> None:
    with a_place_for_all() as folder:
        settings = Settings.model_validate(
            {
                "data_dir": folder / "data",
                "artifacts": {"dir": folder / "artifacts", "group_readable": True},
            }
        )
        store = ArtifactStore.of(settings)
        version = make_version(store, "voyager", b"1")
        make_release(store, voyager=version)
        store.open_version("voyager", version)
        found = modes(store.root)
        assert found[True] == {0o750}
        assert found[False] == {0o440, 0o640, 0o600}  # the last is that of the lock alone

        def read() -> str:
            theirs = ArtifactStore.of(settings, may_be_away=True)
            release = theirs.newest_release()
            assert release is not None
            [file] = theirs.open_version("voyager", release.components["voyager"]).files.values()
            assert file.read_bytes() == b"1"
            return "read"

        def write() -> str:
            (store.root / "releases" / "00000009.json").write_text("")
            return "written"

        assert as_stranger(read, group=os.getegid()) == "read"
        assert as_stranger(write, group=os.getegid()) == "PermissionError"
        assert as_stranger(read) in ("PermissionError", "StoreAccessError")


@pytest.mark.parametrize("tables", [{}, {"dir": "data/artifacts"}, {"dir": "data"}])
def test_a_group_has_to_get_to_the_artifacts_that_it_may_read(tables: dict[str, str]) -> None:
    with pytest.raises(SettingsError, match=r"name an artifacts\.dir outside of data_dir"):
        check_settings(
            {"data_dir": "data", "artifacts": {**tables, "group_readable": True}}, origin="test"
        )


def test_the_catalog_and_its_companions_are_the_owners(umask: None, tmp_path: Path) -> None:
    folder = tmp_path / "some" / "where"
    with closing(Catalog.open(f"sqlite:///{folder / 'catalog.db'}")) as catalog:
        catalog.attempts.pause("voyager", reason="test")
        assert modes(tmp_path / "some") == {True: {0o700}, False: {0o600}}
        assert len(list(folder.iterdir())) == 3


@pytest.mark.server
def test_so_is_what_the_embedded_server_and_the_roles_leave(tmp_path: Path) -> None:
    find_server()
    with EmbeddedServer(tmp_path / "data"):
        child = Child("x", ["--version"], environ={}, log=tmp_path / "data" / "logs" / "x.log")
        child.start()
        child.stop(grace_seconds=10)
        found = modes(tmp_path / "data")
    assert found[True] == {0o700}
    private = tmp_path / "data" / "redis"
    for name in ("lock", "alive", "server.log"):
        assert stat.S_IMODE((private / name).stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "data" / "logs" / "x.log").stat().st_mode) == 0o600


def test_a_log_that_is_a_link_is_not_written_through(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("x")
    link = tmp_path / "log"
    link.symlink_to(precious)
    with pytest.raises(OSError, match="symbolic"):
        open_private(link, "ab")
    assert precious.read_text() == "x"


def test_a_mark_that_is_a_link_or_a_pipe_is_neither_followed_nor_waited_for(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path / "store")
    version = make_version(store, "voyager", b"1")
    precious = tmp_path / "precious"
    precious.write_text("x")
    [mark] = store.root.glob("checked/*/*")
    for link in (True, False):
        mark.unlink()
        if link:
            mark.symlink_to(precious)
        else:
            os.mkfifo(mark)
        store.open_version("voyager", version)  # hashed again, since there is no mark
        store.put_blob(make_file(tmp_path, b"1"))
        assert precious.read_text() == "x"


@pytest.mark.parametrize("kind", ["a link", "a pipe", "a folder", "far too large"])
def test_only_plain_files_of_a_plausible_size_are_read(tmp_path: Path, kind: str) -> None:
    store = ArtifactStore(tmp_path / "store")
    version = make_version(store, "voyager", b"1")
    release = make_release(store, voyager=version)
    [blob] = store.root.glob("blobs/sha256/*/*")
    manifest = store.root / "versions" / "voyager" / f"{version}.json"
    files = [blob, manifest, *store.root.glob("releases/*"), *store.root.glob("copies/*")]
    for path in files:
        moved = tmp_path / path.name
        path.rename(moved)
        if kind == "a link":
            path.symlink_to(moved)
        elif kind == "a pipe":
            os.mkfifo(path)
        elif kind == "a folder":
            path.mkdir()
        else:
            with path.open("wb") as file:
                file.truncate(MOST_BYTES + 1)  # and takes no room
    with pytest.raises(ReleaseUnreadableError, match="corrupt"):
        store.release(release.number)
    with pytest.raises(VersionUnreadableError, match="corrupt"):
        store.open_version("voyager", version)
    manifest.rmdir() if manifest.is_dir() else manifest.unlink()
    (tmp_path / manifest.name).rename(manifest)
    with pytest.raises(BlobCorruptError):
        store.open_version("voyager", version)


def test_the_judge_tells_of_folders_that_everybody_may_enter() -> None:
    with a_place_for_all() as folder:
        assert open_to_everyone(folder)
        closed = folder / "closed"
        closed.mkdir(mode=0o700)
        (closed / "inside").mkdir(mode=0o755)
        assert not open_to_everyone(closed)
        assert not open_to_everyone(closed / "inside")  # nobody gets there
        assert not open_to_everyone(folder / "missing")
    verdict = judge(healthy(open_folders=("/srv/data",)))
    assert verdict.well
    assert verdict.notes == (
        "every user of this host may look into /srv/data; keep them out: chmod o= /srv/data",
    )


def test_a_survey_looks_for_such_folders(make_bench: MakeBench) -> None:
    """The folders of tests lie in one that is closed, so a place of its own is needed."""
    bench = make_bench(index=behaving("tracks"))
    with a_place_for_all() as folder:
        settings = bench.settings.model_copy(update={"data_dir": folder})
        survey = Survey(
            settings,
            catalog=lambda: bench.catalog,
            store=lambda: bench.store,
            clock=SystemClock(),
        )
        facts = survey.whole()
    assert facts.open_folders == (str(folder),)
