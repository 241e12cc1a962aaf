"""Section D, number 14: paths in settings, and the file that holds them."""
# ruff: noqa: INP001 - a script: nothing is installed from this folder

from functools import partial
from pathlib import Path

from indexrelay.schemas.settings import Metric
from indexrelay.schemas.settings_file import load_settings
from indexrelay.storage.catalog import Catalog
from scripts.reports.report import Report

ODD_NAMES = ("a?b", "a%41", "a#b", "a;b c", "ünï", "~")


def two_projects(folder: Path, name: str) -> str:
    """Two projects, of which one lies in a folder of that name: where each has its catalog."""
    found: list[bool] = []
    for place in (folder / name, folder / "aA", folder / "a"):
        place.mkdir()
        (place / "indexrelay.toml").write_text("", encoding="utf-8")
        catalog = Catalog.open(load_settings(place / "indexrelay.toml", environ={}).catalog_url)
        catalog.collections.declare("tracks", dimension=len(found) + 1, metric=Metric.L2)
        catalog.close()
        found.append((place / "indexrelay-data" / "catalog.db").is_file())
    return f"a catalog in each folder: {all(found)}"


def written(folder: Path, text: str, encoding: str = "utf-8") -> str:
    """Where the data folder of a settings file is, seen from home."""
    file = folder / "indexrelay.toml"
    file.write_bytes(text.encode(encoding))
    return str(load_settings(file, environ={}).data_dir).replace(str(Path.home()), "HOME")


REPORTS = (
    *(
        Report(
            item="D14",
            tried=f"a project in a folder called {name!r}",
            wanted="a catalog in each folder: True",
            attempt=partial(two_projects, name=name),
        )
        for name in ODD_NAMES
    ),
    Report(
        item="D14",
        tried="~ in data_dir",
        wanted="HOME/data$",
        attempt=lambda folder: written(folder, "data_dir = '~/data'"),
    ),
    Report(
        item="D14",
        tried="a byte-order mark",
        wanted="/data$",
        attempt=lambda folder: written(folder, "data_dir = '/data'", "utf-8-sig"),
    ),
    Report(
        item="D14",
        tried="a settings file in UTF-16",
        wanted="SettingsError: .*not UTF-8; save the file as UTF-8",
        attempt=lambda folder: written(folder, "data_dir = '/data'", "utf-16"),
    ),
)
