"""``indexrelay demo``: a whole installation on real text, in about a minute."""

from pathlib import Path
from typing import Annotated

import typer

_FEWEST_BATCHES = 8


def demo(
    readers: Annotated[int, typer.Option(min=1, max=64, help="How many reader processes.")] = 3,
    batches: Annotated[
        int, typer.Option(min=_FEWEST_BATCHES, max=1000, help="How many batches the job commits.")
    ] = _FEWEST_BATCHES,
    corpus: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="A folder of text files; otherwise the docstrings of Python's standard library.",
        ),
    ] = None,
    fail: Annotated[
        str | None,
        typer.Option(metavar="COMPONENT", help="Let its build fail in one batch, then heal."),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Keep everything there; otherwise it is removed."),
    ] = None,
    redis_url: Annotated[
        str | None,
        typer.Option(
            "--redis-url", metavar="URL", help="A server to use instead of the embedded one."
        ),
    ] = None,
    catalog_url: Annotated[
        str | None,
        typer.Option(
            "--catalog-url", metavar="URL", help="A database to use instead of SQLite in the data."
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Index real text, batch by batch, and ask several reader processes about it."""
    from indexrelay.console.demo.running import DemoOptions, run_demo

    raise typer.Exit(
        run_demo(
            DemoOptions(
                readers=readers,
                batches=batches,
                corpus=corpus,
                fail=fail,
                data=data,
                redis_url=redis_url,
                catalog_url=catalog_url,
                json=json,
            )
        )
    )
