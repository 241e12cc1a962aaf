"""What stands at the end of each command's ``--help``: how it ends, and examples.

It is read by the command line when a command is called, and by tests, which hold that every command
is here and that the real command line takes every example.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from indexrelay.schemas.commands import PROGRAM


@dataclass(frozen=True, kw_only=True)
class Manual:
    """The end of one command's help."""

    partial: str = ""
    """When it exits 3; empty: never."""
    failure: str = ""
    """When it exits 1, beside what every command may fail for."""
    runs: bool = False
    """Whether it is a role, which runs until a signal: SIGTERM is a success then."""
    examples: tuple[str, ...] = ()
    """Arguments, each of one call; behind ``#`` what it is for."""

    def epilog(self, command: str) -> str:
        """The text, as typer takes it: the markup of rich."""
        ends = [
            "0: it ran until SIGTERM." if self.runs else "0: done.",
            f"1: it failed{self.failure and f', or {self.failure}'}.",
            "2: a wrong call or wrong settings; nothing was done.",
        ]
        if self.partial:
            ends.append(f"3: {self.partial}.")
        signals = f"{_SIGNALS}\n\n" if self.runs else ""
        text = f"{signals}Exit codes:\n" + "\n".join(f"  {each}" for each in ends)
        if self.examples:
            calls = "\n".join(f"  {PROGRAM} {command} {each}".rstrip() for each in self.examples)
            text += f"\n\nExamples:\n{calls}"
        return text.replace("[", r"\[")


_SIGNALS: Final = (
    "Signals:\n  SIGTERM, Ctrl-C: it ends in order.\n"
    "  SIGHUP: it reads its settings again; wrong ones are refused."
)
_NOT_READY: Final = "a reader is not ready"
_REBUILT: Final = Manual(
    partial="some of it failed; or after --wait or --here not all is well",
    failure="all of it did; or with --wait nothing came in time",
    examples=(
        "# whatever is due; it returns at once",
        "map --wait --timeout 600  # and how it ended",
        "--all --full  # everything from scratch",
        "--here  # where no rebuilder runs",
    ),
)
_NAMED: Final = "one of the names is not declared"
MANUAL: Final[Mapping[str, Manual]] = {
    "demo": Manual(
        partial="a part of it did not go as it should",
        examples=("", "--stay", "--readers 4 --batches 10", "--corpus ~/notes"),
    ),
    "check": Manual(
        partial="the settings are right, and something that they name cannot be used here",
        examples=("", "--config /etc/indexrelay/indexrelay.toml --json"),
    ),
    "config check": Manual(
        examples=("", "--config new.toml  # before it replaces the old one"),
    ),
    "config show": Manual(
        examples=(
            "--given  # what the file and variables say",
            "rebuilder",
            "redis.url --json",
            "--path",
        ),
    ),
    "up": Manual(
        runs=True,
        examples=("", "--readers 4 --port 8001  # ports 8001 to 8004"),
    ),
    "rebuilder": Manual(
        runs=True,
        examples=("", "--id builder-1 --config /etc/indexrelay/indexrelay.toml"),
    ),
    "reader": Manual(
        runs=True,
        examples=(
            "--id web-1 --port 8001",
            "--id web --port 8001 --workers 4",
            "--id web-1 --uds /run/indexrelay/reader.sock",
        ),
    ),
    "operator": Manual(runs=True, examples=("",)),
    "mcp": Manual(
        examples=("--url http://127.0.0.1:8001", "--url http://127.0.0.1:8001 --write"),
    ),
    "status": Manual(partial="not all is well", examples=("", "--watch", "--json")),
    "monitor health": Manual(
        partial="the status is warning or critical", examples=("", "--watch", "--json")
    ),
    "monitor metrics": Manual(examples=("", "--json")),
    "monitor alerts": Manual(
        examples=("--watch", "--prometheus  # a file of rules, to be redirected"),
    ),
    "monitor dashboard": Manual(examples=("# JSON, to be imported in Grafana",)),
    "search": Manual(
        failure="no reader answers",
        examples=(
            "similar --id t42 -k 10",
            "words --text 'read a csv file'",
            'both --text jazz --filter \'{"year": {"$gte": 1990}}\'',
        ),
    ),
    "collections list": Manual(examples=("", "--watch")),
    "collections show": Manual(examples=("tracks",)),
    "collections drop": Manual(examples=("tracks", "tracks --yes  # without a question")),
    "collections restore": Manual(examples=("tracks",)),
    "components list": Manual(examples=("", "--watch")),
    "components show": Manual(examples=("map", "map --json")),
    "components rebuild": _REBUILT,
    "releases list": Manual(examples=("", "--most 5")),
    "releases show": Manual(examples=("12", "12 --checks")),
    "releases diff": Manual(examples=("# the last two", "11 12")),
    "releases sign": Manual(examples=("12",)),
    "backup list": Manual(examples=("", "--json")),
    "backup create": Manual(examples=("", "12 --with-catalog")),
    "backup restore": Manual(
        examples=("20241105_143000", "20241105_143000 --with-catalog  # an empty one"),
    ),
    "backup verify": Manual(
        partial="one is not sound", examples=("20241105_143000", "--all --json")
    ),
    "backup generate-key": Manual(examples=("backups.key",)),
    "readers list": Manual(partial=_NOT_READY, failure="no reader runs", examples=("", "--watch")),
    "readers show": Manual(
        partial="it is not ready", failure="there is no such reader", examples=("web-1",)
    ),
    "readers retry": Manual(examples=("web-1",)),
    "dead list": Manual(examples=("",)),
    "dead show": Manual(examples=("7", "7 --json  # its bytes in base64")),
    "dead retry": Manual(
        partial="some are still unreadable", failure="all are", examples=("7 8", "--all")
    ),
    "dead drop": Manual(partial="some were not there", failure="none was", examples=("7", "--all")),
    "audit": Manual(examples=("", "--last 100 --json")),
    "rebuild": _REBUILT,
    "schedule list": Manual(
        partial="one is overdue, or no operator looks at it", examples=("", "--next 10", "--watch")
    ),
    "schedule run": Manual(
        partial="some of it failed",
        failure="all of it did; or with --wait nothing came in time",
        examples=("weekly", "weekly --force --wait"),
    ),
    "reconcile": Manual(partial="not all is well then", examples=("", "--above 42")),
    "maintenance cleanup": Manual(examples=("--dry-run", "")),
    "maintenance disk-usage": Manual(examples=("", "--versions --blobs --json")),
    "maintenance scrub": Manual(partial="a file is corrupt", examples=("", "map")),
    "maintenance validate": Manual(partial="not all of it passes", examples=("", "map --json")),
    "service install": Manual(
        examples=(
            "--dry-run  # shows the units",
            "--config /etc/indexrelay/indexrelay.toml",
        ),
    ),
    "service uninstall": Manual(examples=("--dry-run", "")),
    "repair redis": Manual(
        partial="something is left to be done",
        examples=("# shows what it would do", "--yes"),
    ),
    "keys generate": Manual(examples=("signing.pem",)),
    "keys show": Manual(examples=("signing.pem", "")),
    "tokens generate": Manual(examples=("", "--json")),
    "tokens list": Manual(examples=("",)),
    "admin": Manual(runs=True),
    "admin password": Manual(examples=("",)),
    "rollback": Manual(examples=("12", "12 --component map --reason 'bad hits'")),
    **{
        f"{group}{verb}": Manual(failure=_NAMED, examples=examples)
        for group in ("", "components ")
        for verb, examples in {
            "pause": ("map --reason 'costs too much'",),
            "resume": ("map",),
            "hold": ("map --reason 'until the fair is over'",),
            "lift": ("map",),
        }.items()
    },
}
"""By the words of a command."""
