"""What each command prints, on which stream, and its exit code."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from indexrelay.console.commands import COMMANDS, command_names, load
from indexrelay.console.terminal import print_json
from indexrelay.producers import Producer
from tests.console.conftest import CONFIG, Run, commit

pytestmark = pytest.mark.server


def test_help_comes_without_importing_what_commands_need() -> None:
    program = (
        "import sys; sys.argv = ['indexrelay', '--help']\n"
        "from indexrelay.console.main import main\n"
        "try:\n    main()\n"
        "except SystemExit as ended:\n    assert not ended.code\n"
        "heavy = {'faiss', 'sklearn', 'sqlalchemy', 'numpy', 'redis', 'pydantic', 'structlog'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "demo" in done.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_the_list_of_commands_agrees_with_their_modules(name: str) -> None:
    listed, command = COMMANDS[name], load(name)
    assert command.get_short_help_str(200) == listed.help
    assert tuple(getattr(command, "commands", ())) == listed.verbs


def test_the_settings_are_named_in_every_command_that_takes_them() -> None:
    commands = {}
    for name in COMMANDS:
        commands[name] = command = load(name)
        for verb, each in getattr(command, "commands", {}).items():
            commands[f"{name} {verb}"] = each
    configured = {
        name
        for name, command in commands.items()
        if any("--config" in parameter.opts for parameter in command.params)
    }
    assert set(command_names()) == configured


@pytest.mark.parametrize("arguments", [["--help"], ["status"]])
@pytest.mark.parametrize("module", ["typer", "rich"])
def test_without_its_extra_the_command_says_what_to_install(
    tmp_path: Path, module: str, arguments: list[str]
) -> None:
    (tmp_path / "indexrelay.toml").write_text(CONFIG)
    program = (
        f"import sys; sys.argv = ['indexrelay', *{arguments}]; sys.modules[{module!r}] = None\n"
        "from indexrelay.console.main import main; main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 1, done.stderr
    said = f"{module} is not installed; install it with: pip install 'indexrelay[console]'"
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_the_version_is_that_of_the_distribution(run: Run) -> None:
    from importlib.metadata import version

    assert run("--version").out == f"indexrelay {version('indexrelay')}\n"


def test_a_command_that_does_not_exist_is_a_wrong_call(run: Run) -> None:
    said = run("nope")
    assert said.code == 2
    assert "No such command" in said.err
    assert said.out == ""


def test_right_settings_are_reported_as_right(run: Run, built: Path) -> None:
    said = run("check", "--config", str(built))
    assert said.code == 0
    assert "1 collection(s), 2 component(s)" in said.out


@pytest.mark.parametrize("command", ["check", "status", "up"])
def test_a_folder_without_settings_is_a_wrong_call_and_stays_empty(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.chdir(tmp_path)
    said = run(command)
    assert said.code == 2
    assert "nothing is declared" in said.err
    assert list(tmp_path.iterdir()) == []


def test_every_mistake_in_the_settings_is_named_without_a_traceback(
    run: Run, tmp_path: Path
) -> None:
    wrong = tmp_path / "wrong.toml"
    wrong.write_text(
        CONFIG.replace("dimension = 3", "dimension = 0").replace('"projection"', '"projektion"')
    )
    said = run("check", "--config", str(wrong))
    assert said.code == 2
    assert "collections.tracks.dimension = 0" in said.err
    assert "did you mean 'projection'" in said.err
    assert "Traceback" not in said.err


def test_mistakes_in_the_settings_are_a_document_as_well(run: Run, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.toml"
    wrong.write_text(
        CONFIG.replace("dimension = 3", "dimension = 1979-05-27") + "\n[redis]\nurll = true\n"
    )
    said = run("check", "--json", "--config", str(wrong))
    assert said.code == 2
    document = json.loads(said.out)
    assert document["right"] is False
    found = {each["key"]: each for each in document["mistakes"]}
    assert found["collections.tracks.dimension"]["value"] == "1979-05-27"
    assert "did you mean 'url'" in found["redis.urll"]["right"]
    assert "2 mistake(s)" in said.err  # and a person reads it, too


def test_right_settings_are_a_document_without_mistakes(run: Run, built: Path) -> None:
    document = json.loads(run("check", "--json", "--config", str(built)).out)
    assert (document["right"], document["mistakes"]) == (True, [])


def test_what_a_build_would_not_find_is_named_before_one_is_tried(run: Run, tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("raise RuntimeError('half a module')\n")
    (tmp_path / "taken").write_text("a file")
    config = tmp_path / "indexrelay.toml"
    config.write_text(
        'data_dir = "taken/data"\n[collections.tracks]\ndimension = 2\n'
        '[components.gone]\nkind = "json_cache"\nfrom = "tracks"\nfunction = "nowhere:f"\n'
        '[components.bad]\nkind = "json_cache"\nfrom = "tracks"\nfunction = "broken:f"\n'
    )
    said = run("check", "--json", "--config", str(config))
    lacking = json.loads(said.out)["lacking"]
    assert said.code == 3
    assert lacking.keys() == {"components.gone", "components.bad", "data_dir", "artifacts.dir"}
    assert "nowhere cannot be imported" in lacking["components.gone"]
    assert "half a module" in lacking["components.bad"]
    assert "taken is something else" in lacking["data_dir"]
    assert "⚠ components.gone" in run("check", "--config", str(config)).out


def test_an_embedder_that_makes_no_vectors_here_is_named_and_prints_nothing_to_stdout(
    run: Run, tmp_path: Path
) -> None:
    (tmp_path / "vectors_of_check.py").write_text(
        "def good(texts):\n    print('loading')\n    return [[1.0, 2.0] for _ in texts]\n"
        "def short(texts):\n    return [[1.0] for _ in texts]\n"
    )
    config = tmp_path / "indexrelay.toml"
    functions = {"a": "good", "b": "short", "c": "absent"}
    config.write_text(
        "".join(
            f'[collections.{name}]\ndimension = 2\nembedder = "vectors_of_check:{function}"\n'
            for name, function in functions.items()
        )
        + '[collections.d]\ndimension = 2\npersistence = "manual"\n'
    )
    said = run("check", "--json", "--config", str(config))
    document = json.loads(said.out)
    assert said.code == 3
    lacking = document["lacking"]
    assert lacking.keys() == {"collections.b.embedder", "collections.c.embedder"}
    assert "an array of shape (1, 1), and not (1, 2)" in lacking["collections.b.embedder"]
    assert "has no function 'absent'" in lacking["collections.c.embedder"]
    assert "loading" in said.err
    assert any("committed to d only with the next release" in each for each in document["notes"])


def test_a_driver_that_is_not_there_is_named_without_the_password(run: Run, tmp_path: Path) -> None:
    config = tmp_path / "indexrelay.toml"
    urls = {
        "far": "mysql://me:s3cret@host/db",
        "odd": "nosuch://me:s3cret@host/db",
        "near": "sqlite:///songs.db",
    }
    config.write_text(
        "".join(
            f"[collections.{name}]\ndimension = 2\n"
            f'source = {{ kind = "table", url = "{url}", table = "songs" }}\n'
            for name, url in urls.items()
        )
    )
    said = run("check", "--json", "--config", str(config))
    lacking = json.loads(said.out)["lacking"]
    assert said.code == 3
    assert lacking.keys() == {"collections.far.source.url", "collections.odd.source.url"}
    assert "No module named 'MySQLdb'" in lacking["collections.far.source.url"]
    assert "does not know this kind of database" in lacking["collections.odd.source.url"]
    assert "s3cret" not in said.out + said.err


def test_a_text_is_searched_for_by_its_vector_and_by_words_where_it_gets_none(
    run: Run, tmp_path: Path
) -> None:
    (tmp_path / "vectors_of_search.py").write_text(
        "def embed(texts):\n"
        "    print('loading')\n"
        "    return 1 / 0 if 'none' in texts else [[float(each == 'b'), 1.0] for each in texts]\n"
    )
    config = tmp_path / "indexrelay.toml"
    config.write_text(
        '[collections.tracks]\ndimension = 2\nmetric = "l2"\n'
        'embedder = "vectors_of_search:embed"\n'
        '[components.similar]\nkind = "vector_index"\nfrom = "tracks"\n'
        '[components.both]\nkind = "search"\nfrom = "tracks"\n'
    )
    with Producer.open(config) as producer, producer.batch("tracks") as batch:
        batch.upsert(
            ["a", "b", "c"], texts=["a", "b", "none at all"], vectors=[[0, 1], [1, 1], [9, 9]]
        )
    assert run("rebuild", "--here", "--config", str(config)).code == 0

    def found(component: str, text: str) -> Any:
        said = run("search", component, "--text", text, "--json", "--config", str(config))
        assert said.code == 0, said.err
        return json.loads(said.out)

    answer = found("similar", "b")
    assert [hit["id"] for hit in answer["hits"]] == ["b", "a", "c"]
    assert "degraded" not in answer
    assert found("both", "b")["hits"][0]["arms"].keys() == {"vector", "text"}
    answer = found("both", "none")
    assert [hit["id"] for hit in answer["hits"]] == ["c"]
    assert answer["degraded"] is True
    assert "raised ZeroDivisionError" in answer["reason"]
    said = run("search", "both", "--text", "none", "--config", str(config))
    assert "⚠ the embedder raised ZeroDivisionError" in said.out
    said = run("search", "similar", "--text", "none", "--config", str(config))
    assert said.code == 1
    assert "the embedder of tracks gave no vector" in said.err


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("mysql://me@host:s3cret/db", 2),
        ("mysql://me:x@y:s3cret@host/db", 3),  # a URL, but SQLAlchemy reads it otherwise
        ("", 2),
    ],
)
def test_an_invalid_url_is_named_by_its_key_and_never_shown(
    run: Run, tmp_path: Path, url: str, code: int
) -> None:
    config = tmp_path / "indexrelay.toml"
    config.write_text(
        "[collections.tracks]\ndimension = 2\n"
        f'source = {{ kind = "table", url = "{url}", table = "songs" }}\n'
    )
    said = run("check", "--config", str(config))
    assert said.code == code
    assert "source.url" in said.out + said.err
    assert "s3cret" not in said.out + said.err
    assert "Traceback" not in said.err


def test_control_characters_in_a_document_are_escaped_and_it_parses_to_the_same(
    capsys: pytest.CaptureFixture[str],
) -> None:
    said = {"error": "\x9b31m \N{RIGHT-TO-LEFT OVERRIDE} \x1b[2J \N{LANGUAGE TAG} ♫ ü"}
    print_json(said)
    text = capsys.readouterr().out
    assert json.loads(text) == said
    assert all(each.isprintable() or each == "\n" for each in text)
    assert "♫ ü" in text


def test_status_as_json_is_one_document_and_3_while_nobody_serves(run: Run, built: Path) -> None:
    said = run("status", "--json", "--config", str(built))
    assert said.code == 3
    document = json.loads(said.out)
    assert document["release"] >= 1
    assert document["announced"] == document["release"]
    assert document["collections"]["tracks"]["entries"] == 20
    assert document["components"]["map"]["covers"] == {"tracks": 1}
    # Other tests ask for rebuilds on the same installation, and nobody takes their events.
    problems = [problem["what"] for problem in document["problems"]]
    assert [what for what in problems if "wait for a rebuilder" not in what] == [
        "no rebuilder is running, so nothing new is built",
        "no reader is running, so nothing is served",
    ]


def test_settings_that_contradict_the_catalog_are_a_problem(run: Run, tmp_path: Path) -> None:
    config = tmp_path / "indexrelay.toml"
    config.write_text(CONFIG)
    commit(config, "first", 2)
    config.write_text(CONFIG.replace("dimension = 3", "dimension = 4"))
    said = run("status", "--json", "--config", str(config))
    assert said.code == 3
    first = json.loads(said.out)["problems"][0]["what"]
    assert "its dimension is 3 in the catalog and 4 in the settings" in first


def test_status_for_people_shows_the_same(run: Run, built: Path) -> None:
    said = run("status", "--config", str(built))
    assert said.code == 3
    for shown in ("tracks", "map_cache", "current", "⚠ no reader is running"):
        assert shown in said.out


def test_status_without_a_server_shows_what_there_is(run: Run, tmp_path: Path) -> None:
    config = tmp_path / "indexrelay.toml"
    config.write_text(CONFIG)
    commit(config, "first", 2)
    said = run("status", "--json", "--config", str(config))
    document = json.loads(said.out)
    assert said.code == 3
    assert document["announced"] is None
    assert document["components"]["map"]["condition"] == "missing"
    assert document["components"]["map"]["behind"] == {"tracks": 1}
    assert document["problems"][0]["code"] == "redis_unreadable"
    assert "no server runs in" in document["problems"][0]["what"]
    assert "indexrelay up" in document["problems"][0]["what"]


def test_readers_without_any_is_a_failure_with_what_to_start(run: Run, built: Path) -> None:
    said = run("readers", "--json", "--config", str(built))
    assert said.code == 1
    assert json.loads(said.out) == {"readers": {}}
    assert "indexrelay reader " in said.err


def test_a_member_that_cannot_be_understood_does_not_hide_the_rest(run: Run, built: Path) -> None:
    from indexrelay.producers.events import open_connection
    from indexrelay.schemas.settings_file import load_settings
    from indexrelay.streams import Keys, Presence

    with open_connection(load_settings(built, environ={})) as connection:
        presence = Presence(connection, Keys("indexrelay"), "reader")
        presence.publish("alien", b'{"reader": 7}', ttl_seconds=60)
        said = run("status", "--json", "--config", str(built))
        presence.remove("alien")
    assert said.code == 3
    document = json.loads(said.out)
    assert document["readers"] == {}
    assert "reader_unreadable" in {each["code"] for each in document["problems"]}


def test_a_component_in_detail_shows_its_checks(run: Run, built: Path) -> None:
    document = json.loads(run("components", "show", "map", "--json", "--config", str(built)).out)
    assert document["entries"] == 20
    assert all(check["passed"] for check in document["checks"])
    shown = run("components", "show", "map", "--config", str(built))
    assert "trustworthiness" in shown.out
    assert "coordinates.npy" in shown.out


def test_a_component_that_is_not_released_is_refused_with_a_suggestion(
    run: Run, built: Path
) -> None:
    said = run("components", "show", "mapp", "--config", str(built))
    assert said.code == 2
    assert "did you mean 'map'" in said.err


def test_a_component_that_cannot_be_searched_is_refused(run: Run, built: Path) -> None:
    said = run("search", "map", "--text", "x", "--config", str(built))
    assert said.code == 2
    assert "answers no search" in said.err


@pytest.mark.parametrize("arguments", [(), ("--text", "x", "--id", "y")])
def test_a_search_takes_a_text_or_a_vector_or_both_or_an_id(
    run: Run, built: Path, arguments: tuple[str, ...]
) -> None:
    said = run("search", "map", *arguments, "--config", str(built))
    assert said.code == 2
    assert "give --text, --vector, both of them, or --id" in said.err


def test_what_is_no_vector_is_a_wrong_call(run: Run, built: Path, tmp_path: Path) -> None:
    file = tmp_path / "vector.npy"
    file.write_text("not numpy")
    for option, given, why in (
        ("--vector", str(file), "holds no vector"),
        ("--vector", "1,2", "1,2 holds no vector"),
        ("--vector", '["a"]', '["a"] holds no vector'),
        ("--vector", "[[1, 2], [3, 4]]", "an array of shape (2, 2); give one vector"),
    ):
        said = run("search", "map", "--text", "x", option, given, "--config", str(built))
        assert (said.code, why in said.err) == (2, True), said.err


def test_a_rebuild_is_requested_and_a_missing_rebuilder_is_reported(run: Run, built: Path) -> None:
    said = run("rebuild", "map", "--config", str(built))
    assert said.code == 0
    assert "no rebuilder is running" in said.out
    waited = run("rebuild", "map", "--wait", "--config", str(built))
    assert waited.code == 1
    assert "--here" in waited.err


def test_a_rebuild_of_an_unknown_component_is_refused(run: Run, built: Path) -> None:
    said = run("rebuild", "mop", "--here", "--config", str(built))
    assert said.code == 2
    assert "did you mean 'map'" in said.err


def test_what_is_paused_is_shown_and_resumed(run: Run, built: Path) -> None:
    at = ("--config", str(built))
    assert run("pause", "map", "--reason", "too loud", *at).code == 0
    paused = json.loads(run("components", "--json", *at).out)["components"]["map"]
    assert (paused["condition"], paused["paused"]["reason"]) == ("current", "too loud")
    assert run("resume", "map", *at).code == 0
    resumed = json.loads(run("components", "--json", *at).out)["components"]["map"]
    assert (resumed["condition"], resumed["paused"]) == ("current", None)
    assert run("pause", "mop", *at).code == 2
    again = json.loads(run("resume", "map", "--json", *at).out)
    assert again == {"resumed": [], "not_paused": ["map"]}


def test_holds_and_rollbacks_are_releases_that_are_announced(run: Run, built: Path) -> None:
    at = ("--json", "--config", str(built))
    held = json.loads(run("hold", "map", "--reason", "bad maps", *at).out)["release"]
    seen = json.loads(run("status", *at).out)
    assert (seen["release"], seen["announced"]) == (held, held)
    assert seen["components"]["map"]["held"]["reason"] == "bad maps"
    rolled = json.loads(run("rollback", "1", "--component", "map_cache", *at).out)
    assert rolled["release"] == held + 1
    assert rolled["held"] == ["map", "map_cache"]
    lifted = json.loads(run("lift", "map", *at).out)
    assert (lifted["lifted"], lifted["not_held"]) == (["map"], [])
    lifted = json.loads(run("lift", "map", "map_cache", *at).out)
    assert (lifted["lifted"], lifted["not_held"]) == (["map_cache"], ["map"])
    seen = json.loads(run("status", *at).out)
    assert {facts["condition"] for facts in seen["components"].values()} == {"current"}
    assert {facts["held"] for facts in seen["components"].values()} == {None}
    assert run("rollback", "99", *at).code == 1
    assert run("hold", "mop", *at).code == 2
