"""``indexrelay rebuild --here``: one pass on a machine on which nothing else runs."""

import json
from pathlib import Path

import pytest

from indexrelay.streams.socket_path import noted_socket
from tests.console.conftest import CONFIG, Run, commit

pytestmark = pytest.mark.server


def test_a_pass_here_starts_the_server_it_needs_and_stops_it(run: Run, tmp_path: Path) -> None:
    config = tmp_path / "indexrelay.toml"
    config.write_text(CONFIG)
    commit(config, "first", 20)
    said = run("rebuild", "--here", "--json", "--config", str(config))
    assert said.code == 0, said.err
    document = json.loads(said.out)
    assert document["result"]["indexes_rebuilt"] == ["map", "map_cache"]
    assert document["result"]["release"] == 1
    socket = noted_socket(tmp_path / "indexrelay-data" / "redis")
    assert socket is not None
    assert not socket.exists()

    again = run("rebuild", "--here", "--config", str(config))
    assert again.code == 0
    assert "Nothing was due" in again.out
