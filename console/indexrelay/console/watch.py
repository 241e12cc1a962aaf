"""``--watch``: a page is looked at again and again, until Ctrl-C.

A look that fails shows why in place of the page, and the next one is made all the same: the server
may be started again meanwhile, which is what somebody may be waiting for.
"""

import threading
from collections.abc import Callable
from typing import Annotated, Final, NoReturn, TypeAlias

import typer
from rich.console import Group, RenderableType
from rich.live import Live
from rich.text import Text

from indexrelay.console.errors import explain
from indexrelay.console.terminal import adapted, stdout, visible_lines

PERIOD_SECONDS: Final = 5.0
Watch: TypeAlias = Annotated[
    bool, typer.Option("--watch", help=f"Look every {PERIOD_SECONDS:g} seconds, until Ctrl-C.")
]


def show_again(
    page: Callable[[], RenderableType],
    *,
    json: bool,
    wait: Callable[[float], object] | None = None,
) -> NoReturn:
    """Show a page, and what it has become every few seconds; Ctrl-C ends it.

    On a terminal each takes the place of the one before; elsewhere they follow each other.

    Args:
        page: looks, and makes the page.
        json: whether the command was asked for a document, too.
        wait: between two looks; ``None``: for `PERIOD_SECONDS`.

    Raises:
        typer.BadParameter: it was: programs ask again by themselves.
        KeyboardInterrupt: Ctrl-C.
    """
    if json:
        raise typer.BadParameter("--watch is for people: leave out --json, or ask again and again")
    wait = wait or threading.Event().wait
    console = stdout()
    if not console.is_terminal:
        while True:
            console.print(_looked(page))
            wait(PERIOD_SECONDS)
    with Live(console=console, auto_refresh=False, vertical_overflow="visible") as live:
        while True:
            live.update(_looked(page), refresh=True)
            wait(PERIOD_SECONDS)


def _looked(page: Callable[[], RenderableType]) -> RenderableType:
    """The page, or why there is none now."""
    try:
        return page()
    except Exception as error:
        explained = explain(error)
        if explained is None:
            raise  # a fault of the program
        lines = [Text(f"error: {visible_lines(adapted(explained.sentence))}", style="red")]
        if explained.advice is not None:
            lines.append(Text(f"  → {adapted(explained.advice)}"))
        return Group(*lines)
