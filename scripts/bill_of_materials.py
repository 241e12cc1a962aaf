"""Writes the software bill of materials of a release: CycloneDX 1.6, in JSON.

It lists the project, all that its extras bring and the libraries of the admin page: each pin with
the digests of what may be installed for it, its licence and what it depends on. Equal sources give
equal bytes: it has no time stamp, and its serial number follows from what it lists.

Usage: ``python -m scripts.bill_of_materials FILE``, where everything that is pinned is installed.
"""
# ruff: noqa: INP001 - a script: nothing is installed from this folder

import argparse
import json
import sys
import tomllib
from pathlib import Path
from typing import Any, Final
from uuid import UUID, uuid5

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model import HashAlgorithm, HashType
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL

from scripts.distributions import DEVELOPMENT, ITSELF, Installed, installed
from scripts.locked_requirements import ROOT
from scripts.vendor import FOLDER, PINS, libraries

_NAMESPACE: Final = UUID("d2f4a0e8-3c5b-5a61-9a0b-6f1f0c7f3f55")


def bill() -> str:
    """The document.

    Raises:
        NotInstalledError: something that is pinned is not installed here.
    """
    listed = [each for each in installed() if each.comes_with != DEVELOPMENT]
    parts = {each.pin.name: _part(each) for each in listed}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    ours = Component(
        type=ComponentType.APPLICATION,
        name=project["name"],
        version=project["version"],
        bom_ref=project["name"],
        licenses=[LicenseFactory().make_with_id(project["license"])],
        purl=PackageURL("pypi", None, project["name"], project["version"]),
    )
    in_the_page = [_library(each) for each in libraries(ROOT / FOLDER)]
    bom = Bom(components=[*parts.values(), *in_the_page])
    bom.metadata.component = ours
    for name, part in {ITSELF: ours, **parts}.items():
        brought = [parts[each.pin.name] for each in listed if name in each.pin.via]
        bom.register_dependency(part, [*brought, *(in_the_page if part is ours else ())])
    content = "\n".join(sorted(each.pin.text for each in listed))
    content += (ROOT / FOLDER / PINS).read_text(encoding="utf-8")
    bom.serial_number = uuid5(_NAMESPACE, f"{project['version']}\n{content}")
    document = json.loads(JsonV1Dot6(bom).output_as_string())
    del document["metadata"]["timestamp"]
    return json.dumps(document, indent=2, sort_keys=True) + "\n"


def _part(each: Installed) -> Component:
    return Component(
        type=ComponentType.LIBRARY,
        name=each.name,
        version=each.pin.version,
        bom_ref=each.pin.name,
        licenses=[LicenseFactory().make_from_string(each.licence)],
        purl=PackageURL("pypi", None, each.pin.name, each.pin.version),
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=digest) for digest in each.pin.digests],
        description=f"comes with {each.comes_with}",
    )


def _library(each: dict[str, Any]) -> Component:
    return Component(
        type=ComponentType.LIBRARY,
        name=each["name"],
        version=each["version"],
        bom_ref=f"npm:{each['name']}",
        licenses=[LicenseFactory().make_from_string(each["licence"])],
        purl=PackageURL("npm", None, each["name"], each["version"]),
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=each["archive_sha256"])],
        description="lies in the admin page",
    )


def main() -> int:
    """Write it."""
    parser = argparse.ArgumentParser(
        prog="python -m scripts.bill_of_materials", description=__doc__
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="where to write it")
    given = parser.parse_args()
    given.file.parent.mkdir(parents=True, exist_ok=True)
    given.file.write_text(bill(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
