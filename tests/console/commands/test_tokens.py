"""``indexrelay tokens``: a token is shown once, and the settings know its sha256."""

import hashlib
import json
from pathlib import Path

from tests.console.conftest import Run


def test_a_token_is_drawn_and_shown_with_what_goes_into_the_settings(run: Run) -> None:
    made = [run("tokens", "generate") for _ in range(2)]
    first, second = (each.out.strip() for each in made)
    assert first != second
    assert len(first) > 40
    digest = hashlib.sha256(first.encode()).hexdigest()
    assert f'sha256 = "{digest}"' in made[0].err
    assert "[http.tokens.NAME]" in made[0].err
    assert first not in made[0].err
    answer = json.loads(run("tokens", "generate", "--json").out)
    assert answer["sha256"] == hashlib.sha256(answer["token"].encode()).hexdigest()


def test_the_tokens_that_the_settings_know_are_listed(run: Run, tmp_path: Path) -> None:
    settings = tmp_path / "tokens.toml"
    collection = "[collections.tracks]\ndimension = 2\n"
    settings.write_text(
        f'{collection}[http.tokens.shop]\nsha256 = "{"a" * 64}"\nfilter = {{ tenant = "shop" }}\n'
        f'[http.tokens.boss]\nsha256 = "{"b" * 64}"\nscope = "admin"\n'
    )
    listed = run("tokens", "list", "--config", str(settings))
    assert listed.code == 0
    assert "shop" in listed.out
    assert '{"tenant": "shop"}' in listed.out
    assert "admin" in listed.out
    answer = json.loads(run("tokens", "list", "--config", str(settings), "--json").out)
    assert answer["tokens"]["boss"] == {"sha256": "b" * 64, "scope": "admin", "filter": None}
    settings.write_text(collection)
    assert "no token is needed" in run("tokens", "list", "--config", str(settings)).err
