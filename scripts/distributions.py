"""What is installed here for the project, and under which licence each of it comes."""
# ruff: noqa: INP001 - a script: nothing is installed from this folder

import re
import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from typing import Any, Final

from packaging.markers import Marker

from scripts.locked_requirements import ROOT, Pin, needed, pins, roots

EXTRAS: Final = (
    "reloaders", "rebuilder", "service", "client", "mcp", "operations", "tracing", "admin",
    "console", "demo", "embedded", "postgresql", "signing", "flask", "testing",
)  # fmt: skip
"""In the order in which one wants them: a dependency is listed under the first that brings it."""
ITSELF: Final = "indexrelay"
DEVELOPMENT: Final = "development"

_BY_CLASSIFIER: Final = {
    "Apache Software License": "Apache-2.0",
    "BSD License": "BSD",
    "ISC License (ISCL)": "ISC",
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Python Software Foundation License": "PSF-2.0",
}
_BY_WORDS: Final = {
    "Apache 2.0": "Apache-2.0",
    "BSD 2-Clause License": "BSD-2-Clause",
    "BSD 3-Clause License": "BSD-3-Clause",
    "BSD License": "BSD",
    "ISC License": "ISC",
    "MIT License": "MIT",
    "MIT style": "MIT",
    "The MIT License (MIT)": "MIT",
    "MIT, BSD": "MIT AND BSD",
    "PSFL": "PSF-2.0",
}
_SPDX: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+-]*(?: (?:AND|OR|WITH) [A-Za-z0-9.+-]+)*")


class NotInstalledError(Exception):
    """Raised when a pinned distribution is not here, or in another version: install it first."""


@dataclass(frozen=True)
class Installed:
    """One pinned distribution that is installed here."""

    pin: Pin
    name: str
    """As its author writes it."""
    licence: str
    """An SPDX expression, as far as it says so much; ``BSD`` where the clauses are not counted."""
    comes_with: str
    """`ITSELF`, an extra, or `DEVELOPMENT`."""


def installed() -> list[Installed]:
    """Everything that the project, its extras and its development need on this platform.

    Raises:
        NotInstalledError: one of them is missing, or in another version.
    """
    project, known = _project(), _pins()
    found: dict[str, Installed] = {}
    for comes_with, names in (
        (ITSELF, roots(project)),
        *((extra, roots(project, extras=[extra])) for extra in EXTRAS),
        (DEVELOPMENT, roots(project, groups=["dev"], build=True, itself=False)),
    ):
        for name, pin in needed(names, known).items():
            if name not in found and _is_for_here(pin):
                found[name] = _installed(pin, comes_with)
    return sorted(found.values(), key=lambda each: each.pin.name)


def licence_of(found: Distribution) -> str:
    """What the metadata says; empty: nothing that is understood here."""
    meta = found.metadata
    expressions = meta.get_all("License-Expression") or ()
    if expressions:
        return str(expressions[0])
    words = "\n".join(meta.get_all("License") or ()).strip()
    title = words.partition("\n")[0].strip()  # some give the whole text, which begins with its name
    if title in _BY_WORDS:
        return _BY_WORDS[title]
    if words and "\n" not in words and _SPDX.fullmatch(words):
        return words
    classifiers = [
        _BY_CLASSIFIER.get(each.rpartition(" :: ")[2], "")
        for each in meta.get_all("Classifier") or ()
        if each.startswith("License :: OSI Approved :: ")
    ]
    return " AND ".join(dict.fromkeys(filter(None, classifiers))) or _by_its_file(found)


def _by_its_file(found: Distribution) -> str:
    """What the first line of its one licence file names, for metadata that name only the file."""
    files = found.metadata.get_all("License-File") or ()
    if len(files) != 1:
        return ""
    text = found.read_text(f"licenses/{files[0]}") or ""
    return _BY_WORDS.get(text.strip().partition("\n")[0].strip(), "")


def _installed(pin: Pin, comes_with: str) -> Installed:
    try:
        found = distribution(pin.name)
    except PackageNotFoundError as error:
        raise NotInstalledError(f"{pin.name} is pinned and not installed here") from error
    if found.version != pin.version:
        raise NotInstalledError(f"{pin.name} is {found.version} here, and {pin.version} is pinned")
    name = str(found.metadata["Name"])
    return Installed(pin=pin, name=name, licence=licence_of(found), comes_with=comes_with)


def _is_for_here(pin: Pin) -> bool:
    marker = re.match(r"[^;\\]+;\s*([^\\]+)", pin.text)
    return marker is None or Marker(marker[1].strip()).evaluate()


@cache
def _project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


@cache
def _pins() -> dict[str, Pin]:
    return pins((ROOT / "constraints.txt").read_text(encoding="utf-8"))
