"""What every command shows for ``--help``, and the shape of its ``--json``, as they were last seen.

Both are an interface: people learn the one, programs read the other. A change shows up in the
files beside this one, and is renewed by ``make snapshots``, so that whoever reviews it sees it.

A shape is the keys and types of a document, whatever its values: names of components and the like
are ``*``, and a list has the shapes that its items have.
"""

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import pytest
import typer.rich_utils
from typer.core import TyperGroup

from indexrelay.console.commands import _WITHOUT_CONFIG, COMMANDS, load
from indexrelay.console.commands.manual import MANUAL
from indexrelay.console.installation import Installation
from indexrelay.reloaders import Reloader
from indexrelay.schemas.settings_file import load_settings
from indexrelay.streams import EmbeddedServer
from tests.console.conftest import Run, build, commit
from tests.test_advice import parses

pytestmark = pytest.mark.server

FOLDER: Final = Path(__file__).parent / "snapshots"
RENEW: Final = "RENEW_SNAPSHOTS"
HINT: Final = "if this is meant, renew it: make snapshots"


def words_of_all() -> Iterator[str]:
    """Every command by its words, groups among them."""
    for name, listed in COMMANDS.items():
        yield name
        yield from (f"{name} {verb}" for verb in listed.verbs)


def kept(name: str, now: str) -> str:
    """What a file has, which is ``now`` where it is to be renewed."""
    file = FOLDER / name
    if os.environ.get(RENEW):
        file.write_text(now, encoding="utf-8")
    return file.read_text(encoding="utf-8")


def test_the_help_of_every_command_is_as_it_was_last_seen(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(typer.rich_utils, "MAX_WIDTH", 80)
    monkeypatch.setattr(typer.rich_utils, "FORCE_TERMINAL", False)
    monkeypatch.setenv("NO_COLOR", "1")
    pages = []
    for words in ("", *words_of_all()):
        said = run(*words.split(), "--help")
        assert said.code == 0, said.err
        page = "\n".join(line.rstrip() for line in said.out.splitlines()).strip("\n")
        pages.append(f"===== indexrelay {words}".rstrip() + f"\n{page}\n")
    assert "\n".join(pages) == kept("help.txt", "\n".join(pages)), HINT


def calls() -> dict[str, tuple[str, ...]]:
    """The arguments with which each command gives a document, by its words, in this order."""
    return {
        "check": (),
        "config check": (),
        "config show": ("log",),
        "status": (),
        "monitor health": (),
        "monitor metrics": (),
        "monitor alerts": (),
        "search": ("similar", "--id", "t1", "-k", "1"),
        "collections list": (),
        "collections show": ("tracks",),
        "components list": (),
        "components show": ("similar",),
        "components rebuild": ("similar",),
        "rebuild": ("similar", "--here"),
        "components pause": ("cache",),
        "components resume": ("cache",),
        "pause": ("cache",),
        "resume": ("cache",),
        "components hold": ("cache",),
        "components lift": ("cache",),
        "hold": ("cache",),
        "lift": ("cache",),
        "rollback": ("1", "--component", "cache"),
        "releases list": (),
        "releases show": ("1",),
        "releases diff": ("1", "2"),
        "releases sign": ("1", "--yes"),
        "backup generate-key": ("backups.key",),
        "backup create": (),
        "backup list": (),
        "backup verify": ("--all",),
        "backup restore": ("{backup}",),
        "readers list": (),
        "dead list": (),
        "dead show": ("1",),
        "dead retry": ("1",),
        "dead drop": ("1",),
        "audit": ("--last", "1"),
        "schedule list": (),
        "schedule run": ("weekly",),
        "reconcile": (),
        "maintenance cleanup": ("--dry-run",),
        "maintenance disk-usage": (),
        "maintenance scrub": (),
        "maintenance validate": (),
        "service uninstall": ("--dry-run", "--folder", "."),
        "repair redis": (),
        "keys generate": ("another.pem",),
        "keys show": ("signing.pem",),
        "tokens generate": (),
        "tokens list": (),
        "collections drop": ("tracks", "--yes"),
    }


WITHOUT_DOCUMENT: Final = {
    "demo": "an installation of its own, with a corpus: tests/console/demo",
    "readers retry": "it asks a reader over HTTP: test_readers.py",
    "collections restore": "it takes a catalog that went back in time: test_collections.py",
    "service install": "it takes no paths that units hide: test_service.py",
    "readers show": "as readers list, of one",
    "admin password": "it asks at a terminal",
}
"""Commands with ``--json`` whose document is looked at elsewhere, and where."""
NAMES: Final = frozenset({"tracks", "similar", "cache", "weekly", "web"})
SETTINGS: Final = """
artifacts.signing_key_file = "signing.pem"
[collections.tracks]
dimension = 3
filterable = { year = "number" }
[components.similar]
kind = "vector_index"
from = "tracks"
index = "Flat"
[components.cache]
kind = "embedding_cache"
from = "tracks"
[reader]
presence_ttl_seconds = 3600
[schedules.weekly]
cron = "0 2 * * 0"
[http.tokens.web]
sha256 = "0000000000000000000000000000000000000000000000000000000000000000"
"""


def shape(value: Any) -> Any:
    """The keys and types of a JSON value."""
    match value:
        case Mapping():
            found: dict[str, Any] = {}
            for key, each in value.items():
                name = "*" if is_a_name(key) else key
                found[name] = both(found[name], shape(each)) if name in found else shape(each)
            return found
        case list():
            items: Any = []
            for each in value:
                items = [both(items[0], shape(each))] if items else [shape(each)]
            return items
        case None:
            return "null"
        case bool():
            return "boolean"
        case int() | float():
            return "number"
        case _:
            return "string"


def both(one: Any, other: Any) -> Any:
    """The shape of what may have either."""
    match one, other:
        case _ if one == other:
            return one
        case dict(), dict():
            keys = dict.fromkeys((*one, *other))
            return {
                key: both(one[key], other[key])
                if key in one and key in other
                else {"absent or": one.get(key, other.get(key))}
                for key in keys
            }
        case list(), list():
            return [both(one[0], other[0])] if one and other else one or other
        case str(), str():
            return " | ".join(sorted({*one.split(" | "), *other.split(" | ")}))
        case _:
            return {"either": sorted((one, other), key=str)}


def is_a_name(key: str) -> bool:
    """Whether it is what a user calls something, or a number or digest."""
    return key.partition(":")[0] in NAMES or key.isdecimal() or len(key) == 64


@pytest.fixture
def installed(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An installation with two releases, a reader that is present, and a letter."""
    monkeypatch.chdir(tmp_path)
    config = tmp_path / "indexrelay.toml"
    config.write_text(SETTINGS)
    assert run("keys", "generate", "signing.pem").code == 0
    settings = load_settings(config, environ={})
    with EmbeddedServer(settings.data_dir), Installation(settings) as installation:
        for batch in ("one", "two"):
            commit(config, batch, 20)
            build(config)
        reader = Reloader(settings, reader_id="web", connection=installation.connection)
        reader.step()
        installation.catalog.dead_letters.add(stream="s", entry_id="1-0", raw=b"{", reason="no")
        yield config
        reader.stop()


def test_the_document_of_every_command_has_the_shape_that_was_last_seen(
    run: Run, installed: Path
) -> None:
    shapes, backup = {}, ""
    for words, given in calls().items():
        arguments = [each.format(backup=backup) for each in given]
        config = [] if words in _WITHOUT_CONFIG else ["--config", str(installed)]
        said = run(*words.split(), *arguments, "--json", *config)
        assert said.out, (words, said)
        document = json.loads(said.out)
        assert set(document) != {"error", "advice"}, (words, document)
        if words == "backup create":
            backup = document["id"]
        shapes[words] = shape(document)
    now = json.dumps(shapes, indent=1, sort_keys=True) + "\n"
    assert now == kept("json.json", now), HINT


def test_no_command_with_a_document_is_left_out() -> None:
    given = set()
    for name in COMMANDS:
        command = load(name)
        verbs = command.commands if isinstance(command, TyperGroup) else {"": command}
        given |= {
            f"{name} {verb}".strip()
            for verb, each in verbs.items()
            if any("--json" in parameter.opts for parameter in each.params)
        }
    assert given == {*calls(), *WITHOUT_DOCUMENT}


def test_every_command_says_how_it_ends_and_the_command_line_takes_every_example() -> None:
    for words in words_of_all():
        if COMMANDS[words.split()[0]].verbs and " " not in words:
            continue  # a group: its verbs say it
        manual = MANUAL[words]
        assert max(map(len, manual.epilog(words).splitlines())) <= 78, words
        for example in manual.examples:
            parses(f"indexrelay {words} {example.partition('#')[0]}")
    assert {*MANUAL} <= {*words_of_all()}
