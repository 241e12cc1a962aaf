"""What is installed is what was pinned, and everybody can read what that is."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from scripts.bill_of_materials import bill
from scripts.distributions import DEVELOPMENT, EXTRAS, Installed, installed
from scripts.licences_page import page, refused, refused_in_the_page
from scripts.locked_requirements import ROOT, Pin, needed, normalized, pins, roots
from scripts.vendor import FOLDER, libraries

CONSTRAINTS = """\
# a comment
Alpha==1.0 \\
    --hash=sha256:{a} \\
    --hash=sha256:{b}
    # via indexrelay
beta-lib==2.0 ; sys_platform == 'win32' \\
    --hash=sha256:{a}
    # via
    #   alpha
    #   gamma
gamma==3.0 \\
    --hash=sha256:{b}
    # via development
""".format(a="a" * 64, b="b" * 64)


def locked(*options: str) -> str:
    return subprocess.run(
        [sys.executable, ROOT / "scripts" / "locked_requirements.py", *options],
        capture_output=True,
        check=True,
        text=True,
    ).stdout


def test_pins_are_read_with_their_digests_and_with_who_asks_for_them() -> None:
    known = pins(CONSTRAINTS)
    assert list(known) == ["alpha", "beta-lib", "gamma"]
    assert known["alpha"].digests == ["a" * 64, "b" * 64]
    assert known["beta-lib"].via == {"alpha", "gamma"}
    assert "sys_platform == 'win32'" in known["beta-lib"].text
    assert list(needed({"alpha"}, known)) == ["alpha", "beta-lib"]
    with pytest.raises(KeyError):
        needed({"delta"}, known)


def test_an_extra_brings_what_it_names_and_what_its_extras_name() -> None:
    project = {
        "project": {
            "dependencies": ["Base_One>=1"],
            "optional-dependencies": {"all": ["indexrelay[a,b]"], "a": ["x[y]>=1"], "b": ["z; m"]},
        },
        "dependency-groups": {"dev": ["pytest"]},
        "build-system": {"requires": ["hatchling"]},
    }
    assert roots(project, extras=["all"]) == {"base-one", "x", "z"}
    assert roots(project, groups=["dev"], build=True, itself=False) == {"pytest", "hatchling"}


def test_every_pin_has_digests_and_a_job_gets_no_more_than_it_needs() -> None:
    everything = locked("--extra", "all", "--group", "dev", "--group", "audit", "--build")
    known = pins((ROOT / "constraints.txt").read_text(encoding="utf-8"))
    assert pins(everything).keys() == known.keys(), "constraints.txt pins what nobody needs"
    assert all(pin.digests for pin in known.values())
    job = pins(locked()).keys()
    assert {"numpy", "redis", "pydantic"} <= job
    assert not {"faiss-cpu", "fastapi", "pytest", "cryptography", "psycopg"} & job


@pytest.mark.parametrize("name", ["deploy/Dockerfile", "Makefile", "scripts/try_package.sh"])
def test_nothing_is_installed_without_digests_but_the_project_itself(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8").replace("\\\n", " ")
    installs = [line for line in text.splitlines() if re.search(r"pip\"? install", line)]
    assert installs
    for each in re.split(r"&&", "\n".join(installs)):
        if re.search(r"pip\"? install", each):
            assert "--require-hashes" in each or "--no-deps" in each, each


def test_a_requirement_whose_file_has_another_digest_is_not_installed(tmp_path: Path) -> None:
    """What pip does with such a list; no index is asked."""
    wheel = tmp_path / "harmless-1.0-py3-none-any.whl"
    wheel.write_bytes(b"not what was pinned")
    asked = tmp_path / "locked.txt"
    asked.write_text(f"harmless==1.0 --hash=sha256:{'a' * 64}\n")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pip", "--isolated", "install", "--no-index", "--dry-run"),
            *("--find-links", tmp_path, "--require-hashes", "--requirement", asked),
        ],
        capture_output=True,
        check=False,
        text=True,
    )
    assert done.returncode != 0
    assert "DO NOT MATCH THE HASHES" in done.stderr


def _dependency(licence: str, comes_with: str = "reloaders") -> Installed:
    pin = Pin(name="x", version="1", text="x==1", via=frozenset())
    return Installed(pin=pin, name="x", licence=licence, comes_with=comes_with)


@pytest.mark.parametrize(
    ("licence", "comes_with", "fine"),
    [
        ("MIT", "reloaders", True),
        ("GPL-3.0-only OR MIT", "reloaders", True),
        ("MIT AND GPL-3.0-only", "reloaders", False),
        ("LGPL-3.0-only", "postgresql", True),
        ("LGPL-3.0-only", "console", False),
        ("AGPL-3.0-only", DEVELOPMENT, False),
        ("", "reloaders", False),
    ],
)
def test_a_licence_that_is_not_allowed_where_it_comes_from_is_refused(
    licence: str, comes_with: str, fine: bool
) -> None:
    assert (not list(refused([_dependency(licence, comes_with)]))) is fine


def test_the_page_of_licences_lists_every_dependency_and_none_is_refused() -> None:
    found = installed()
    assert list(refused(found)) == []
    assert list(refused_in_the_page()) == []
    assert (ROOT / "docs" / "licences.md").read_text(encoding="utf-8") == page(found)
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "psycopg" in readme
    assert "LGPL" in readme


def test_the_bill_of_materials_is_valid_complete_and_always_the_same() -> None:
    text = bill()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    assert text == bill()
    document = json.loads(text)
    parts = {part["bom-ref"]: part for part in document["components"]}
    run_time = {each.pin.name for each in installed() if each.comes_with != DEVELOPMENT}
    in_the_page = {f"npm:{each['name']}" for each in libraries(ROOT / FOLDER)}
    assert parts.keys() == run_time | in_the_page
    assert all(part["hashes"] and part["licenses"] and part["purl"] for part in parts.values())
    edges = {each["ref"]: set(each.get("dependsOn", ())) for each in document["dependencies"]}
    assert {"numpy", "redis", "faiss-cpu", *in_the_page} <= edges["indexrelay"]
    assert "pydantic-core" in edges["pydantic"]
    assert edges.keys() == {*parts, "indexrelay"}
    assert {normalized(each) for each in edges["fastapi"]} >= {"starlette", "pydantic"}
    assert not re.search(r"https?://(?!cyclonedx\.org)", text), "no index is written down"


def test_every_extra_has_its_place_on_the_page_of_licences() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert {*extras["optional-dependencies"]} - {"all"} == set(EXTRAS)


VULNERABLE = {"id": "PYSEC-1", "fix_versions": ["1.1", "2.0"], "aliases": [], "description": "…"}
CLEAN = {"name": "beta-lib", "version": "2.0", "vulns": []}
AUDITS = {
    "nothing known": ({"dependencies": [CLEAN]}, 0, ["1 pins looked up; 0 known vulnerabilities"]),
    "some known": (
        {"dependencies": [CLEAN, {"name": "alpha", "version": "1.0", "vulns": [VULNERABLE]}]},
        1,
        ["alpha 1.0: PYSEC-1; mended in 1.1, 2.0", "2 pins looked up; 1 known vulnerabilities"],
    ),
}


def audited(folder: Path, program: str) -> "subprocess.CompletedProcess[str]":
    """What the audit makes of a pip-audit that does this, in Python."""
    pip_audit = folder / "pip-audit"
    pip_audit.write_text(f"#!{sys.executable}\nimport sys\n{program}\n", encoding="utf-8")
    pip_audit.chmod(0o700)
    return subprocess.run(
        [sys.executable, ROOT / "scripts" / "audit.py", pip_audit, folder / "locked.txt"],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("name", AUDITS)
def test_an_audit_says_what_is_known_and_ends_with_1_where_something_is(
    name: str, tmp_path: Path
) -> None:
    answer, code, lines = AUDITS[name]
    done = audited(tmp_path, f"print({json.dumps(answer)!r}); sys.exit({code})")
    assert (done.returncode, done.stdout.splitlines(), done.stderr) == (code, lines, "")


@pytest.mark.parametrize(
    ("program", "why"),
    [
        ("sys.exit('ERROR: Could not connect to the vulnerability feed')", "Could not connect"),
        ("print('{}'); sys.exit('half an answer')", "half an answer"),
        ("sys.exit(1)", "pip-audit ended with 1"),
    ],
)
def test_an_audit_that_learned_nothing_says_so_and_ends_with_2(
    program: str, why: str, tmp_path: Path
) -> None:
    done = audited(tmp_path, program)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("nothing was looked up, so nothing is known")
    assert why in done.stderr
    (tmp_path / "pip-audit").unlink()
    again = subprocess.run(
        [sys.executable, ROOT / "scripts" / "audit.py", tmp_path / "pip-audit", "locked.txt"],
        check=False,
        capture_output=True,
    )
    assert again.returncode == 2
