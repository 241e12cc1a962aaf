"""``indexrelay keys`` and ``releases sign``: keys are made, shown, and used by hand."""

import json
import stat
from pathlib import Path

import pytest

from indexrelay.schemas.settings import Settings
from indexrelay.storage.artifacts import ArtifactStore, SigningKey
from tests.console.conftest import Run
from tests.storage.artifacts.samples import make_release, make_version


def test_a_key_is_made_once_and_shown_without_its_private_part(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "new.pem"
    made = run("keys", "generate", str(file))
    assert made.code == 0
    public = made.out.strip()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert SigningKey.read(file).public == public
    assert f'artifacts.trusted_keys = ["{public}"]' in made.err
    assert "PRIVATE" not in made.out + made.err
    again = run("keys", "generate", str(file))
    assert again.code == 1
    assert "File exists" in again.err
    assert SigningKey.read(file).public == public
    shown = run("keys", "show", str(file), "--json")
    assert json.loads(shown.out) == {"file": str(file), "public_key": public}


def test_a_key_that_others_may_read_is_not_used(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "new.pem"
    assert run("keys", "generate", str(file)).code == 0
    file.chmod(0o640)
    shown = run("keys", "show", str(file))
    assert shown.code == 1
    assert f"chmod 600 {file}" in shown.err


@pytest.mark.parametrize("signs", [True, False])
def test_a_release_is_signed_by_hand_where_the_key_is(
    run: Run, tmp_path: Path, signs: bool
) -> None:
    config = tmp_path / "indexrelay.toml"
    run("keys", "generate", str(tmp_path / "new.pem"))
    named = 'signing_key_file = "new.pem"' if signs else ""
    config.write_text(
        f'data_dir = "data"\n[artifacts]\n{named}\n[collections.tracks]\ndimension = 2\n'
    )
    store = ArtifactStore(tmp_path / "data" / "artifacts")
    make_release(store, voyager=make_version(store, "voyager", b"1"))
    options = ("--config", str(config))
    if not signs:
        refused = run("releases", "sign", "1", "--yes", *options)
        assert refused.code == 1
        assert "artifacts.signing_key_file" in refused.err
        assert run("keys", "show", *options).code == 1
        return
    assert run("releases", "sign", "1", *options).code == 2  # nobody is there to be asked
    public = run("keys", "show", *options).out.strip()
    signed = run("releases", "sign", "1", "--yes", *options)
    assert signed.out.strip() == f"release 1 is signed by {public}"
    trusting = {"data_dir": tmp_path / "data", "artifacts": {"trusted_keys": [public]}}
    newest = ArtifactStore.of(Settings.model_validate(trusting)).newest_release()
    assert newest is not None
    assert newest.number == 1
    missing = run("releases", "sign", "9", "--yes", *options)
    assert missing.code == 1
    assert "release 9 cannot be read" in missing.err


def test_check_reports_that_this_host_could_not_sign(run: Run, tmp_path: Path) -> None:
    config = tmp_path / "indexrelay.toml"
    options = ("--config", str(config), "--json")
    public = run("keys", "generate", str(tmp_path / "new.pem")).out.strip()

    def lacks(table: str) -> str | None:
        config.write_text(f"[artifacts]\n{table}\n[collections.tracks]\ndimension = 2\n")
        found: dict[str, str] = json.loads(run("check", *options).out)["lacking"]
        return found.get("artifacts.signing_key_file")

    assert lacks("") is None
    assert lacks('signing_key_file = "new.pem"') is None
    assert lacks(f'signing_key_file = "new.pem"\ntrusted_keys = ["{public}"]') is None
    assert "can make none" in str(lacks(f'trusted_keys = ["{public}"]'))
    other = f"ed25519:{'A' * 43}="
    both = f'signing_key_file = "new.pem"\ntrusted_keys = ["{other}"]'
    assert str(lacks(both)) == f"its public key {public} is not in artifacts.trusted_keys"
    assert "No such file" in str(lacks('signing_key_file = "gone.pem"'))
