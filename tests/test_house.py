"""The rules of the house that no other tool holds."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PORTIONS = (
    "schemas",
    "streams",
    "storage",
    "components",
    "health",
    "producers",
    "rebuilder",
    "reloaders",
    "service",
    "operations",
    "admin",
    "console",
    "testing",
)
FOLDERS = [ROOT / portion / "indexrelay" / portion for portion in PORTIONS]
MAX_LINES = 720
"""What still reads from top to bottom. A low limit would cut concepts into pieces."""
LONG_MODULES: dict[str, str] = {}
"""Modules above `MAX_LINES`, each with its reason."""
HEAVY = ("faiss", "sklearn", "scipy", "torch", "pandas")
MACHINE_PATHS = re.compile(
    r"(?<![\w.])/(?:work|root|home/\w+|Users/\w+|opt/(?:pypi|wheels)[\w-]*)(?=/|\b)"
)

every_portion = pytest.mark.parametrize("folder", FOLDERS, ids=PORTIONS)


def tracked(*patterns: str) -> list[Path]:
    """The files that git knows."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--", *patterns],  # noqa: S607 - git is found on PATH
        cwd=ROOT,
        capture_output=True,
        check=False,
        text=True,
    )
    if listed.returncode != 0:
        pytest.skip("this is no checkout")
    return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


def lines_in(file: Path) -> int:
    return len(file.read_text(encoding="utf-8").splitlines())


@every_portion
def test_a_portion_is_typed_and_says_what_belongs_in_it(folder: Path) -> None:
    assert (folder / "py.typed").is_file()
    text = (folder / "__init__.py").read_text(encoding="utf-8")
    assert re.match(r'"""[A-Z].{40,}?"""', text, re.DOTALL), "the docstring comes first"


@every_portion
def test_a_portion_hands_out_a_sorted_list_of_names(folder: Path) -> None:
    text = (folder / "__init__.py").read_text(encoding="utf-8")
    found = re.search(r"^__all__ = (\[.*?\])", text, re.MULTILINE | re.DOTALL)
    if found is not None:
        names = re.findall(r'"(\w+)"', found[1])
        assert names == sorted(names)


def test_the_namespace_belongs_to_no_portion() -> None:
    assert not [folder for folder in FOLDERS if (folder.parent / "__init__.py").exists()]


def test_every_portion_is_packaged() -> None:
    hatch = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["hatch"]
    assert set(hatch["build"]["dev-mode-dirs"]) == set(PORTIONS)
    packages = set(hatch["build"]["targets"]["wheel"]["packages"])
    assert packages == {f"{portion}/indexrelay" for portion in PORTIONS}


def test_a_module_has_one_idea() -> None:
    long = {
        str(file.relative_to(ROOT)): lines_in(file)
        for folder in FOLDERS
        for file in folder.rglob("*.py")
        if lines_in(file) > MAX_LINES
    }
    assert set(long) == set(LONG_MODULES), long


def test_every_module_says_what_it_is_for() -> None:
    modules = [file for folder in FOLDERS for file in folder.rglob("*.py")]
    modules += tracked("scripts/*.py", "deploy/*.py")
    silent = [
        str(file.relative_to(ROOT))
        for file in modules
        if not file.read_text(encoding="utf-8").startswith('"""')
    ]
    assert silent == []


def test_imports_point_one_way() -> None:
    run = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        check=False,
        text=True,
    )
    assert run.returncode == 0, run.stdout


@every_portion
def test_importing_a_portion_imports_nothing_heavy(folder: Path) -> None:
    program = (
        f"import sys, indexrelay.{folder.name}; "
        f"print(*[name for name in {HEAVY} if name in sys.modules])"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, check=False, text=True
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == ""


def test_a_reader_imports_neither_a_catalog_nor_what_renders_logs() -> None:
    """Each would take 5 to 13 MB of every process that serves."""
    program = (
        "import sys, indexrelay.reloaders, indexrelay.components.vector_index.kind; "
        "print(*[name for name in ('sqlalchemy', 'structlog', 'rich') if name in sys.modules])"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, check=False, text=True
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == ""


def test_the_plugin_costs_other_peoples_tests_nothing() -> None:
    program = (
        "import sys, indexrelay.testing.plugin; "
        f"print(*[name for name in {(*HEAVY, 'fakeredis', 'sqlalchemy')} if name in sys.modules])"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, check=False, text=True
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == ""


def test_decisions_are_numbered_one_after_another() -> None:
    files = sorted(each.name for each in (ROOT / "docs" / "decisions").glob("[0-9]*.md"))
    numbers = [int(name.split("-")[0]) for name in files]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    for number, name in zip(numbers, files, strict=True):
        text = (ROOT / "docs" / "decisions" / name).read_text(encoding="utf-8")
        assert text.startswith(f"# {number:03}: ")


def test_no_file_names_a_place_on_somebodys_machine() -> None:
    found = {
        f"{file.relative_to(ROOT)}: {match[0]}"
        for file in tracked()
        if file != Path(__file__)
        for match in MACHINE_PATHS.finditer(file.read_text(encoding="utf-8", errors="replace"))
    }
    assert found == set()


def test_the_pins_name_no_host_and_no_path() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    said = [line for line in lines if line and not line.lstrip().startswith("#")]
    assert said
    pin = re.compile(r"[\w.-]+==[\w.!+-]+( ; [\w.!=<>'() ]+)? \\")
    digest = re.compile(r"    --hash=sha256:[0-9a-f]{64}( \\)?")
    assert [line for line in said if not (pin.fullmatch(line) or digest.fullmatch(line))] == []
    assert not any("/" in line for line in lines if not line.startswith("# "))


def test_everything_that_is_asked_for_is_pinned() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    asked = [
        *project["project"]["dependencies"],
        *(each for extra in project["project"]["optional-dependencies"].values() for each in extra),
        *(each for group in project["dependency-groups"].values() for each in group),
        *project["build-system"]["requires"],
    ]
    names = {re.split(r"[\[<>=!~; ]", each)[0] for each in asked} - {"indexrelay"}
    pinned = {
        re.sub(r"[-_.]+", "-", line.split("==")[0]).lower()
        for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    }
    assert {re.sub(r"[-_.]+", "-", name).lower() for name in names} - pinned == set()


def test_passwords_stay_out_of_the_repository() -> None:
    assert not [file for file in tracked() if file.name == ".env"]
