"""Section D, number 14: paths in settings, and the file that holds them."""
# ruff: noqa: INP001 - a script: nothing is installed from this folder

from pathlib import Path

from indexrelay.schemas.settings import Metric
from indexrelay.schemas.settings_file import load_settings
from indexrelay.storage.catalog import Catalog
from scripts.reports.report import Attempt, reports

ODD_NAMES = ("a?b", "a%41", "a#b", "a;b c", "ünï", "~")


def two_projects(name: str) -> Attempt:
    """Two projects, of which one lies in a folder of that name: where each has its catalog."""

    def attempt(folder: Path) -> str:
        found: list[bool] = []
        for place in (folder / name, folder / "aA", folder / "a"):
            place.mkdir()
            (place / "indexrelay.toml").write_text("", encoding="utf-8")
            catalog = Catalog.open(load_settings(place / "indexrelay.toml", environ={}).catalog_url)
            catalog.collections.declare("tracks", dimension=len(found) + 1, metric=Metric.L2)
            catalog.close()
            found.append((place / "indexrelay-data" / "catalog.db").is_file())
        return f"a catalog in each folder: {all(found)}"

    return attempt


def written(text: str, encoding: str = "utf-8") -> Attempt:
    """Where the data folder of a settings file is, seen from home."""

    def attempt(folder: Path) -> str:
        file = folder / "indexrelay.toml"
        file.write_bytes(text.encode(encoding))
        return str(load_settings(file, environ={}).data_dir).replace(str(Path.home()), "HOME")

    return attempt


ROWS = tuple(
    (f"a project in a folder called {name!r}", "a catalog in each folder: True", two_projects(name))
    for name in ODD_NAMES
)
REPORTS = reports(
    "D14",
    *ROWS,
    ("~ in data_dir", "HOME/data$", written("data_dir = '~/data'")),
    ("a byte-order mark", "/data$", written("data_dir = '/data'", "utf-8-sig")),
    ("UTF-16", "SettingsError: .*save the file as UTF-8", written("data_dir = '/d'", "utf-16")),
)
