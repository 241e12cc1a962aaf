"""The files of the admin page: pinned, self-contained, and clean under their policy."""

import gzip
import json
import re
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hatchling.builders.config import BuilderConfig

from scripts.vendor import FOLDER, PINS, PageLibraries, differences, libraries

ROOT = Path(__file__).parents[2]
PAGE = ROOT / FOLDER.parent
OWN_SCRIPTS = sorted(file for file in PAGE.rglob("*.js") if "vendor" not in file.parts)
STYLE = (PAGE / "style.css").read_text(encoding="utf-8")

# What makes markup or code from a string, and what a policy without 'unsafe-inline' refuses.
FORBIDDEN = re.compile(
    r"innerHTML|outerHTML|insertAdjacentHTML|dangerouslySetInnerHTML|document\.write|\beval\(|"
    r"new Function|srcdoc|javascript:|setAttribute\(\s*[\"']style|\bstyle=[\"'$]\{?[\"'`]?[a-z-]+:|"
    r"https?://"
)
IMPORTED = re.compile(r"""(?:\bfrom\s*|\bimport\s*\(?\s*|classicScript\(\s*)["']([^"']+)["']""")


class Tags(HTMLParser):
    """Every tag of a document, with its attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def tags() -> list[tuple[str, dict[str, str | None]]]:
    return Tags((PAGE / "index.html").read_text(encoding="utf-8")).found


def relative(files: list[Path]) -> list[str]:
    return [file.relative_to(PAGE).as_posix() for file in files]


@pytest.fixture
def vendor(tmp_path: Path) -> Path:
    """A copy of the libraries, where the build looks for them."""
    copied = tmp_path / FOLDER
    copied.parent.mkdir(parents=True)
    shutil.copytree(ROOT / FOLDER, copied)
    return copied


def test_every_library_is_the_pinned_one_and_comes_with_its_licence() -> None:
    assert list(differences(ROOT / FOLDER)) == []
    for library in libraries(ROOT / FOLDER):
        assert library["version"]
        assert library["licence"]
        assert any(name.endswith(".licence.txt") for name in library["files"]), library["name"]


def test_nothing_is_built_from_a_library_that_differs(vendor: Path, tmp_path: Path) -> None:
    (vendor / "htm.js").write_text("alert(1)", encoding="utf-8")
    (vendor / "kdbush.js").unlink()
    (vendor / "more.js").write_text("alert(1)", encoding="utf-8")
    hook = PageLibraries(str(tmp_path), {}, BuilderConfig, None, "", "wheel")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="pin") as raised:
        hook.initialize("standard", {})
    said = str(raised.value)
    assert f"htm.js is not the file that {PINS} pins" in said
    assert "kdbush.js is pinned and missing" in said
    assert "more.js lies among the libraries and is not pinned" in said


def test_the_page_has_no_script_and_no_style_of_its_own() -> None:
    for tag, attributes in tags():
        assert tag != "style"
        assert "style" not in attributes
        assert not [name for name in attributes if name.startswith("on")]
        assert tag != "script" or attributes.get("src")


def test_everything_that_the_page_names_lies_in_its_folder() -> None:
    named = [
        attributes[name]
        for _, attributes in tags()
        for name in ("src", "href")
        if name in attributes
    ]
    assert named
    for address in named:
        assert address is not None
        assert (PAGE / address).resolve().is_relative_to(PAGE)
        assert (PAGE / address).is_file(), address


@pytest.mark.parametrize("script", OWN_SCRIPTS, ids=relative(OWN_SCRIPTS))
def test_a_script_imports_only_what_lies_in_the_folder(script: Path) -> None:
    for address in IMPORTED.findall(script.read_text(encoding="utf-8")):
        assert address.startswith(("./", "../", "vendor/")), address
        base = PAGE if address.startswith("vendor/") else script.parent
        target = (base / address).resolve()
        assert target.is_relative_to(PAGE)
        assert target.is_file(), address


@pytest.mark.parametrize("script", OWN_SCRIPTS, ids=relative(OWN_SCRIPTS))
def test_a_script_makes_neither_markup_nor_code_from_text(script: Path) -> None:
    lines = script.read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if FORBIDDEN.search(line)] == []


def test_the_stylesheet_asks_nobody_for_anything() -> None:
    assert "url(" not in STYLE
    assert "@import" not in STYLE


def test_everything_that_the_page_can_load_is_less_than_a_megabyte_compressed() -> None:
    loaded = [file for file in PAGE.rglob("*") if file.suffix in {".css", ".html", ".js", ".svg"}]
    sizes = {file.name: len(gzip.compress(file.read_bytes(), 6)) for file in loaded}
    assert sum(sizes.values()) <= 1_000_000
    assert sum(sizes.values()) - sizes["deck.js"] <= 250_000, "what comes without the map"


def colours(theme: int) -> dict[str, tuple[float, float, float]]:
    """The named colours: 0 light, 1 dark; each part linear, from 0 to 1."""

    def linear(part: int) -> float:
        share = part / 255
        return share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4

    found = re.findall(r"--([\w-]+): light-dark\(#(\w{6}), #(\w{6})\);", STYLE)
    return {
        name: tuple(linear(int(both[theme][at : at + 2], 16)) for at in (0, 2, 4))  # type: ignore[misc]
        for name, *both in found
    }


def pairs() -> Iterator[tuple[str, str, float]]:
    """Each colour of text with each ground that it stands on, and the contrast that it needs."""
    for text in ("text", "soft", "ok", "info", "warn", "bad", "quiet", "accent", "accent-strong"):
        for ground in ("ground", "surface", "sunken", "raised"):
            yield text, ground, 4.5
    for tone in ("ok", "info", "warn", "bad", "quiet"):
        yield tone, f"{tone}-ground", 4.5
        yield "text", f"{tone}-ground", 4.5
    yield "soft", "quiet-ground", 4.5
    yield "accent-strong", "accent-ground", 4.5
    yield "on-accent", "accent", 4.5
    yield "on-accent", "accent-strong", 4.5
    yield "surface", "bad", 4.5
    yield "line-strong", "surface", 3.0  # the edge of what can be filled in


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_text_can_be_read_on_every_ground(theme: int) -> None:
    """WCAG 2.2, 1.4.3 and 1.4.11; the formula of relative luminance is there."""
    named = colours(theme)

    def luminance(name: str) -> float:
        red, green, blue = named[name]
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    poor = {}
    for text, ground, needed in pairs():
        dark, bright = sorted((luminance(text), luminance(ground)))
        if (contrast := (bright + 0.05) / (dark + 0.05)) < needed:
            poor[text, ground] = round(contrast, 2)
    assert poor == {}


def test_the_pins_are_written_as_the_script_writes_them() -> None:
    text = (ROOT / FOLDER / PINS).read_text(encoding="utf-8")
    assert text == json.dumps(json.loads(text), indent=2) + "\n"
