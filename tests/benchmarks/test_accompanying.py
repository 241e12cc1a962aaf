"""Companions: programs in processes of their own that answer one question at a time."""

from pathlib import Path

import pytest

from measuring import companions
from measuring.companions import CompanionFailedError, PeerMissingError, companion, peer

DOUBLING = """
import sys
from measuring.companion_side import answering

def answer(number):
    print("thinking")  # must not be taken for an answer
    if number < 0:
        raise ValueError(number)
    return {"seconds": number * 2, "argument": sys.argv[1]}

answering(answer)
"""


@pytest.fixture
def doubling(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    folder = tmp_path / "companions"
    folder.mkdir()
    (folder / "doubling.py").write_text(DOUBLING, encoding="utf-8")
    monkeypatch.setattr(companions, "BENCHMARKS", tmp_path)
    return "doubling"


def test_a_companion_answers_each_question_until_the_end(doubling: str) -> None:
    with companion(doubling, "given") as running:
        assert running.ask(number=3) == {"seconds": 6, "argument": "given"}
        assert running.seconds(number=0.25) == 0.5
        process = running.process
    assert process.returncode == 0


def test_a_companion_that_fails_is_an_error_that_names_it(doubling: str) -> None:
    with companion(doubling, "given") as running, pytest.raises(CompanionFailedError) as failed:
        running.ask(number=-1)
    assert "doubling.py ended with 1" in str(failed.value)


def test_a_peer_that_is_not_installed_says_how_to_install_it(
    doubling: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(companions, "PEERS_PYTHON", tmp_path / "python")
    with pytest.raises(PeerMissingError, match="make bench-peers"), peer(doubling, "given"):
        pass
