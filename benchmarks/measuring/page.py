"""The admin page in Chromium, timed by the browser itself.

A script that runs before the page's own wraps its `EventSource`, and watches the document. What is
waited for is a condition in the document; "drawn" is two frames after it holds, so that the frame
that shows it has been made.
"""

import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from playwright.sync_api import Browser, Page, sync_playwright

PROGRAMS: Final = ("chromium", "chromium-browser", "google-chrome")
_PATIENCE_MS: Final = 60_000
_WATCHING: Final = """
window.measuring = {event: null};
const Source = window.EventSource;
window.EventSource = class extends Source {
  addEventListener(kind, listener, options) {
    super.addEventListener(kind, (event) => {
      if (event.data) window.measuring.event = performance.now();
      listener(event);
    }, options);
  }
};
window.measuring.drawn = (holds) => new Promise((resolve) => {
  const frames = () => requestAnimationFrame(() => requestAnimationFrame(
    () => resolve(performance.now())));
  if (holds()) return frames();
  const observer = new MutationObserver(() => {
    if (holds()) { observer.disconnect(); frames(); }
  });
  const options = {subtree: true, childList: true, characterData: true, attributes: true};
  observer.observe(document, options);
});
"""


@dataclass(frozen=True, kw_only=True)
class Opened:
    """One view, opened by a browser that had nothing of the page."""

    seconds: float
    """From the navigation until it was drawn."""
    megabytes: float
    """What came over the wire for it, compressed as it came, headers included."""


class Browsing:
    """A browser that looks at one page."""

    def __init__(self, browser: Browser, url: str) -> None:
        self._browser = browser
        self._url = url

    def open(self, view: str, holds: str) -> Opened:
        """Open a view from nothing, and close it again.

        Args:
            view: its route.
            holds: an expression of JavaScript: whether everything is there.
        """
        with self._page(view) as page:
            seconds = page.evaluate(f"measuring.drawn(() => {holds})") / 1000
            transferred = page.evaluate(
                "performance.getEntriesByType('navigation')"
                ".concat(performance.getEntriesByType('resource'))"
                ".reduce((sum, each) => sum + each.transferSize, 0)"
            )
        return Opened(seconds=seconds, megabytes=transferred / 1e6)

    def updates(self, view: str, changes: Iterable[tuple[Callable[[], None], str]]) -> list[float]:
        """Seconds from the event to the drawn change, for each change.

        Args:
            view: where they are seen.
            changes: what makes a change, and the expression of JavaScript that it makes true; the
                first one is made once the view is drawn, and does not count.
        """
        found = []
        with self._page(view) as page:
            for make, holds in changes:
                page.evaluate(
                    f"window.measuring.waited = measuring.drawn(() => {holds})"
                    ".then((at) => at - measuring.event); undefined"
                )
                make()
                found.append(page.evaluate("window.measuring.waited") / 1000)
        return found[1:]

    @contextmanager
    def _page(self, view: str) -> Iterator[Page]:
        context = self._browser.new_context(viewport={"width": 1280, "height": 900})
        page = context.new_page()
        page.set_default_timeout(_PATIENCE_MS)
        page.add_init_script(_WATCHING)
        page.goto(f"{self._url}#/{view}", wait_until="commit")
        try:
            yield page
        finally:
            context.close()


@contextmanager
def browsing(url: str) -> Iterator[Browsing | None]:
    """A browser for as long as the ``with`` lasts; ``None``: there is none on this machine."""
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        yield None
        return
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=program, args=["--enable-unsafe-swiftshader"]
        )
        yield Browsing(browser, url)
        browser.close()
