"""Options that several commands share, worded once."""

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

Config: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--config",
        "-c",
        metavar="FILE",
        help="The settings; otherwise $INDEXRELAY_CONFIG, or indexrelay.toml here. "
        "Kinds and functions of your own may be modules in its folder.",
        show_default=False,
    ),
]
Json: TypeAlias = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]
Wait: TypeAlias = Annotated[
    float,
    typer.Option("--timeout", metavar="SECONDS", min=0.0, help="How long to wait at most."),
]
Reason: TypeAlias = Annotated[
    str, typer.Option("--reason", help="Kept beside it, for the people who read it later.")
]
