"""One browser for a module of tests, one installation for all of them, and a visit for each test.

The browser is Debian's Chromium, found on PATH. Without one the tests are skipped by hand, and fail
in CI.
"""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, ViewportSize, expect, sync_playwright

from tests.browser.installation import OPERATOR, Site, site

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
LAUNCHED_WITH = (
    "--enable-unsafe-swiftshader",  # WebGL without a graphics card
    "--disable-background-networking",
    "--disable-component-update",
)
DESK: ViewportSize = {"width": 1280, "height": 900}
PHONE: ViewportSize = {"width": 360, "height": 740}
PATIENCE_MS = 60_000
"""A condition that has not come by then does not come: the machine may be busy with other tests."""


def chromium() -> str | None:
    """The browser's program, where there is one."""
    return next(filter(None, map(shutil.which, PROGRAMS)), None)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    # For a module, not the session: as long as playwright runs, this thread has an event loop that
    # other tests could not have one beside.
    program = chromium()
    if program is None:
        if os.environ.get("CI"):
            pytest.fail("no Chromium on this machine")
        pytest.skip("no Chromium on this machine")
    expect.set_options(timeout=PATIENCE_MS)
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=program, args=LAUNCHED_WITH)
        yield launched
        launched.close()


@pytest.fixture(scope="session")
def running() -> Iterator[Site]:
    """The installation, with hostile entries among its own and a hostile reader."""
    with tempfile.TemporaryDirectory(prefix="ir-") as folder, site(Path(folder)) as started:
        yield started


class Visit:
    """One person's look at the page, and what the browser complained of meanwhile."""

    def __init__(self, page: Page, running: Site) -> None:
        self.page = page
        self.site = running
        self.complaints: list[str] = []
        """Errors on the console or in a script, dialogs, and requests to another host."""
        self.allowed = ["401 (Unauthorized)"]
        """Parts of complaints that are none: the page asks who is logged in, and nobody is yet."""
        page.set_default_timeout(PATIENCE_MS)
        page.on("console", self._read)
        page.on("pageerror", lambda error: self.complaints.append(f"script: {error}"))
        page.on("request", lambda request: self._check_host(request.url))
        page.on("dialog", self._refuse)

    def open(self, route: str = "overview") -> None:
        """Open a view by its route."""
        self.page.goto(f"{self.site.url}#/{route}")

    def log_in(self, who: tuple[str, str] = OPERATOR) -> None:
        """Log in by the form, and wait for what comes then."""
        name, password = who
        self.page.get_by_label("Name").fill(name)
        self.page.get_by_label("Password").fill(password)
        self.page.get_by_role("button", name="Log in", exact=True).click()
        expect(self.page.get_by_test_id("connection")).to_have_text("Live")

    def end(self) -> None:
        """Close the page; fails where the browser complained, or a script of the data ran."""
        broken: Any = self.page.evaluate("window.broken")
        # An answer that a test changes may be on its way.
        self.page.unroute_all(behavior="ignoreErrors")
        self.page.context.close()
        assert broken is None, "a script in the data was run"
        left = [each for each in self.complaints if not any(part in each for part in self.allowed)]
        assert left == []

    def _read(self, message: Any) -> None:
        if message.type == "error":
            self.complaints.append(f"console: {message.text} {message.location.get('url', '')}")

    def _check_host(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("data", "blob") and parts.netloc != f"127.0.0.1:{self.site.port}":
            self.complaints.append(f"request to {url}")

    def _refuse(self, dialog: Any) -> None:
        self.complaints.append(f"dialog: {dialog.message}")
        dialog.dismiss()


Visiting = Callable[..., Visit]


@pytest.fixture
def visiting(browser: Browser, running: Site) -> Iterator[Visiting]:
    """Makes visits: ``visiting(who, route)``, with options of the browser's context."""
    with ExitStack() as stack:

        def visit(
            who: tuple[str, str] | None = OPERATOR, route: str = "overview", **options: Any
        ) -> Visit:
            context = browser.new_context(**{"viewport": DESK, **options})
            made = Visit(context.new_page(), running)
            made.open(route)
            if who is not None:
                made.log_in(who)
            stack.callback(made.end)
            return made

        yield visit
