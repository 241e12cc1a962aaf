"""Checks the libraries of the admin page against their pins, and brings them again from npm.

The files lie in the tree, so that neither a checkout nor the sdist needs Node or a network. Beside
them ``vendor.json`` says of each library its version, its licence, the digest of the archive that
it came from and the digest of each file. No wheel is built from files that differ: `PageLibraries`
is the build hook that says so.

Usage: ``python -m scripts.vendor`` checks; ``--renew`` brings what is pinned by ``npm pack`` (the
archive must have its digest); ``--pin NAME=VERSION`` changes a pin first.
"""
# ruff: noqa: INP001 - a script: nothing is installed from this folder

import argparse
import hashlib
import json
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from hatchling.builders.config import BuilderConfig
from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FOLDER: Final = Path("admin", "indexrelay", "admin", "page", "vendor")
PINS: Final = "vendor.json"


class PageLibraries(BuildHookInterface[BuilderConfig]):
    """Refuses to build from libraries that are not those that are pinned."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002
        """Check them before anything is built.

        Raises:
            ValueError: one is missing, differs, or is not pinned.
        """
        if found := list(differences(Path(self.root) / FOLDER)):
            raise ValueError("; ".join(found))


def libraries(folder: Path) -> list[dict[str, Any]]:
    """What is pinned, in the order of the file."""
    listed: list[dict[str, Any]] = json.loads((folder / PINS).read_text(encoding="utf-8"))
    return listed


def differences(folder: Path) -> Iterator[str]:
    """A sentence for each file that is missing, is not the pinned one, or is not pinned."""
    pinned = {
        name: file["sha256"]
        for library in libraries(folder)
        for name, file in library["files"].items()
    }
    there = {file.name: file for file in folder.iterdir() if file.name != PINS}
    for name, digest in pinned.items():
        if name not in there:
            yield f"{name} is pinned and missing; bring it: python -m scripts.vendor --renew"
        elif digest_of(there[name].read_bytes()) != digest:
            yield f"{name} is not the file that {PINS} pins"
    for name in sorted(there.keys() - pinned.keys()):
        yield f"{name} lies among the libraries and is not pinned"


def digest_of(content: bytes) -> str:
    """Its SHA-256, in hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def renew(folder: Path, *, versions: dict[str, str]) -> None:
    """Bring every library again.

    Args:
        versions: by name, those that are to be pinned from now on; the digests of all others must
            be the ones that they had.

    Raises:
        ValueError: an archive has another digest than the pinned one.
    """
    listed = libraries(folder)
    if unknown := versions.keys() - {library["name"] for library in listed}:
        raise ValueError(f"{PINS} names no {', '.join(sorted(unknown))}")
    for library in listed:
        new = versions.get(library["name"])
        library["version"] = new or library["version"]
        archive = _packed(f"{library['name']}@{library['version']}")
        found = digest_of(archive)
        if new is None and found != library["archive_sha256"]:
            raise ValueError(f"the archive of {library['name']} has the digest {found}")
        library["archive_sha256"] = found
        for name, content in _unpacked(archive, library["files"]):
            (folder / name).write_bytes(content)
            library["files"][name]["sha256"] = digest_of(content)
    (folder / PINS).write_text(json.dumps(listed, indent=2) + "\n", encoding="utf-8")


def _packed(what: str) -> bytes:
    with tempfile.TemporaryDirectory() as scratch:
        subprocess.run(
            ["npm", "pack", "--silent", "--ignore-scripts", what],  # noqa: S607 - found on PATH
            cwd=scratch,
            check=True,
            stdout=subprocess.DEVNULL,
        )
        (archive,) = Path(scratch).glob("*.tgz")
        return archive.read_bytes()


def _unpacked(archive: bytes, files: dict[str, dict[str, Any]]) -> Iterator[tuple[str, bytes]]:
    """Each file, with the names of other modules replaced by their addresses.

    An import map would have to stand in the page itself, where the Content-Security-Policy allows
    no script.
    """
    with tempfile.TemporaryFile() as scratch:
        scratch.write(archive)
        scratch.seek(0)
        with tarfile.open(fileobj=scratch, mode="r:gz") as opened:
            for name, file in files.items():
                member = opened.extractfile(f"package/{file['from']}")
                if member is None:
                    raise ValueError(f"{file['from']} is no file")
                content = member.read()
                for old, new in file.get("replaced", {}).items():
                    if old.encode() not in content:
                        raise ValueError(f"{file['from']} does not contain {old}")
                    content = content.replace(old.encode(), new.encode())
                yield name, content


def main() -> int:
    """Check, or bring them again; 1 when something differs."""
    parser = argparse.ArgumentParser(prog="python -m scripts.vendor", description=__doc__)
    parser.add_argument("--renew", action="store_true", help="bring them again")
    parser.add_argument("--pin", action="append", default=[], metavar="NAME=VERSION")
    given = parser.parse_args()
    folder = Path(__file__).parents[1] / FOLDER
    if given.renew or given.pin:
        pairs = (each.rpartition("=") for each in given.pin)
        renew(folder, versions={name: version for name, _, version in pairs})
    found = list(differences(folder))
    sys.stderr.writelines(f"{each}\n" for each in found)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
