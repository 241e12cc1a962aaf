"""Takes pictures of each view of the admin page: ``python -m tests.browser.screenshots FOLDER``.

The installation is one that somebody could have: the docstrings of Python's standard library,
indexed by meaning and by words, with a map. It lives through some batches, a rebuild, a rollback, a
backup and a reader that is killed, so that each view has something to show.
"""

import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any, Final

from PIL import Image
from playwright.sync_api import Page, expect, sync_playwright

from indexrelay.console.demo.corpus import plan, standard_library
from indexrelay.console.demo.embedding import DIMENSION, Embedding
from tests.browser.conftest import DESK, LAUNCHED_WITH, PHONE, chromium
from tests.browser.installation import OPERATOR, READERS, Site

VIEWS: Final = {
    "overview": "Overview",
    "components": "Components",
    "components/meanings": "meanings",
    "map": "Map",
    "lab?text=read the rows of a table&a=both&b=words": "Search lab",
    "releases": "Releases",
    "history": "History",
    "readers": "Readers",
    "alerts": "Alerts",
    "dead-letters": "Dead letters",
    "schedules": "Schedules",
    "backups": "Backups",
    "audit": "Audit",
}
"""The heading of each view, by its route; in this order they are visited."""
BATCHES: Final = 6
PATIENCE_MS: Final = 300_000
"""A better index is built behind the first one, before a rebuild can be asked for."""
COLOURS: Final = 256
"""Of a picture: what is antialiased cannot be told from more, and takes half."""
TABLES: Final = f"""
[rebuilder]
quiet_seconds = 0.1
build_niceness = 0
release_after_seconds = 300
presence_ttl_seconds = 5

[reader]
presence_ttl_seconds = 5

[backups]
dir = "backups"

[schedules.nightly]
cron = "0 3 * * *"
timezone = "Europe/Lisbon"

[schedules.weekly_from_scratch]
cron = "0 4 * * 0"
full = true

[collections.docstrings]
dimension = {DIMENSION}
embedder = "indexrelay.console.demo.embedding:embed"
filterable = {{ place = "keyword", kind = "keyword" }}

[components.meanings]
kind = "vector_index"
from = "docstrings"

[components.words]
kind = "text_index"
from = "docstrings"

[components.both]
kind = "search"
from = "docstrings"

[components.map]
kind = "projection"
from = "docstrings"

[components.embeddings]
kind = "embedding_cache"
from = "docstrings"
"""


def main(folder: Path) -> int:
    """Take them all."""
    program = chromium()
    if program is None:
        sys.stderr.write("there is no Chromium: apt-get install chromium fonts-dejavu-core\n")
        return 1
    folder.mkdir(parents=True, exist_ok=True)
    with lived_in() as site, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=LAUNCHED_WITH)
        expect.set_options(timeout=PATIENCE_MS)
        page = browser.new_context(viewport=DESK, color_scheme="light").new_page()
        page.set_default_timeout(PATIENCE_MS)
        log_in(page, site)
        rebuild(page)
        for route, heading in VIEWS.items():
            if route == "readers":  # from here on something is wrong
                break_something(site)
            show(page, route, heading)
            prepare(page, route)
            name = route.partition("?")[0].replace("/", "-")
            take(page, folder / f"{name}.png")
        dark = browser.new_context(viewport=DESK, color_scheme="dark").new_page()
        log_in(dark, site)
        take(dark, folder / "overview-dark.png")
        phone = browser.new_context(
            viewport=PHONE, color_scheme="light", device_scale_factor=2, is_mobile=True
        ).new_page()
        log_in(phone, site)
        take(phone, folder / "overview-phone.png")
        browser.close()
    return 0


@contextmanager
def lived_in() -> Iterator[Site]:
    """An installation with some batches behind it."""
    documents = plan(standard_library().documents, batches=BATCHES)
    embedding = Embedding()
    with tempfile.TemporaryDirectory(prefix="ir-") as folder, ExitStack() as stack:
        site = Site(Path(folder), TABLES, stack)
        for name in ("rebuilder", "operator", *READERS, "admin"):
            site.start(name)
        site.await_page()
        for number, batch in enumerate(documents.batches, start=1):
            vectors, known = embedding([each.searched for each in batch.upserts])
            kept = [each for each, has in zip(batch.upserts, known, strict=True) if has]
            with site.producer.batch("docstrings") as changes:
                changes.upsert(
                    [each.id for each in kept],
                    vectors[known],
                    texts=[each.searched for each in kept],
                    payloads=[{"place": each.place, "kind": each.kind} for each in kept],
                )
                changes.delete(list(batch.deletes))
            site.await_release(number)
        yield site


def log_in(page: Page, site: Site) -> None:
    """Log in, and wait for the overview."""
    name, password = OPERATOR
    page.goto(site.url)
    page.get_by_label("Name").fill(name)
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Log in", exact=True).click()
    expect(page.get_by_test_id("verdict")).to_be_visible()


def rebuild(page: Page) -> None:
    """Have everything built again, which the audit log and the history then show."""
    page.get_by_role("button", name="Rebuild…").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Everything").check()
    dialog.get_by_label("From scratch").check()
    dialog.get_by_label("Reason").fill("a new machine")
    dialog.get_by_role("button", name="Rebuild").click()
    expect(dialog).to_be_hidden()
    about = page.get_by_test_id("rebuild")
    expect(about).to_contain_text("a new machine")
    expect(about.get_by_text("Complete", exact=True)).to_be_visible()


def break_something(site: Site) -> None:
    """A reader is killed, and a message arrives that nobody can read."""
    site.kill(READERS[1])
    site.connection.commands.xadd(site.keys.events, {"event": "not JSON"})


def show(page: Page, route: str, heading: str) -> None:
    """Open a view, and wait until everything in it is there."""
    page.evaluate("route => { location.hash = `#/${route}`; }", route)
    expect(page.get_by_role("heading", level=1, name=heading, exact=True)).to_be_visible()
    expect(page.locator(".skeleton")).to_have_count(0)


def prepare(page: Page, route: str) -> None:
    """Ask for what a view shows only then."""
    if route == "map":
        drawn = page.get_by_role("application")
        expect(drawn).not_to_have_attribute("data-points", "0")
        page.get_by_label("Colour by").select_option("place")
        expect(page.get_by_role("group", name="Colours by place")).to_be_visible()
    elif route.startswith("lab"):
        expect(page.get_by_text("Overlap@10")).to_be_visible()
    elif route == "history":
        expect(page.locator("main canvas")).to_have_count(4)
    elif route == "readers":
        expect(page.get_by_role("grid")).to_contain_text("Gone")
    elif route == "backups":
        page.get_by_role("button", name="Make a backup").click()
        page.get_by_role("dialog").get_by_role("button", name="Make it").click()
        expect(page.get_by_role("table")).to_contain_text("MiB")


def take(page: Page, file: Path) -> None:
    """Take a picture of what is seen, in few colours."""
    expect(page.get_by_test_id("connection")).to_have_text("Live")
    expect(page.locator(".toast")).to_have_count(0)
    picture = Image.open(BytesIO(page.screenshot(animations="disabled", caret="hide")))
    with_few_colours(picture.convert("RGB")).save(file, optimize=True)
    sys.stdout.write(f"{file} ({file.stat().st_size // 1024} KiB)\n")


def with_few_colours(picture: Image.Image) -> Image.Image:
    """The same in the colours that it has most often, so that large areas keep theirs."""
    counts: Any = picture.getcolors(maxcolors=picture.width * picture.height)
    commonest = [colour for _, colour in sorted(counts, reverse=True)[:COLOURS]]
    palette = Image.new("P", (1, 1))
    palette.putpalette([part for colour in commonest for part in colour])
    return picture.quantize(palette=palette, dither=Image.Dither.NONE)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
