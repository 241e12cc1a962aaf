"""What docker-compose.yml and the Dockerfile promise about every container."""

import re
import stat
from pathlib import Path
from typing import Any

import pytest

from deploy import make_passwords, pin_images
from indexrelay.schemas.errors import SettingsError
from indexrelay.schemas.settings import HttpSettings, Settings
from indexrelay.schemas.settings_file import load_settings
from tests.admin.people import cheap_hash
from tests.deploy.compose import FILE, ROOT, load, seconds

VARIABLES = {name: f"{name.lower()}-0123456789" for name in make_passwords.variables()}
SERVICES = load(VARIABLES)
LASTING = {name: service for name, service in SERVICES.items() if service["restart"] != "no"}
every_service = pytest.mark.parametrize("service", SERVICES.values(), ids=SERVICES)
every_lasting_service = pytest.mark.parametrize("service", LASTING.values(), ids=LASTING)


def test_the_services_are_those_of_one_installation() -> None:
    assert set(SERVICES) == {
        "redis_acl",
        "redis",
        "rebuilder",
        "reader_a",
        "reader_b",
        "operator",
        "admin",
        "console",
        "postgres",
    }
    assert SERVICES["admin"]["profiles"] == ["admin"]
    assert SERVICES["console"]["profiles"] == ["console"]
    assert SERVICES["operator"]["profiles"] == ["operator"]
    assert SERVICES["postgres"]["profiles"] == ["postgresql"]


@every_lasting_service
def test_a_lasting_service_is_watched_restarted_and_stopped_gently(service: Any) -> None:
    assert service["restart"] == "unless-stopped"
    assert service["healthcheck"]["test"]
    assert seconds(service["healthcheck"]["interval"]) <= 10
    assert seconds(service["stop_grace_period"]) >= 30


@every_service
def test_a_container_runs_as_an_ordinary_user_with_no_privileges(service: Any) -> None:
    assert service["privileged"] is False
    assert service["ipc"] == "private"
    assert service["user"] not in {"", "0", "root", "0:0"}
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]


@every_service
def test_a_container_has_limits_of_memory_files_processes_and_log(service: Any) -> None:
    assert re.fullmatch(r"\d+[mg]", service["mem_limit"])
    files = service["ulimits"]["nofile"]
    assert files["soft"] == files["hard"] >= HttpSettings().max_connections + 1000
    assert service["pids_limit"] <= 1024
    options = service["logging"]["options"]
    assert service["logging"]["driver"] == "json-file"
    assert int(options["max-size"].removesuffix("m")) * int(options["max-file"]) <= 100


def test_redis_may_use_more_than_it_keeps() -> None:
    kept = re.search(
        r"^maxmemory (\d+)mb$", (ROOT / "deploy/redis/redis.conf").read_text(), re.MULTILINE
    )
    assert kept is not None
    assert int(SERVICES["redis"]["mem_limit"].removesuffix("m")) >= 2 * int(kept[1])


@every_service
def test_ports_are_published_to_this_host_only(service: Any) -> None:
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))


@every_service
def test_no_image_floats(service: Any) -> None:
    image = service["image"]
    assert image == "indexrelay" or re.fullmatch(r"\w+:\d[\w.-]+", image)


def test_an_image_is_pinned_by_the_digest_that_a_registry_gave() -> None:
    digests = dict.fromkeys(pin_images.images(), f"x@sha256:{'0' * 64}")
    pinned = load({**VARIABLES, **digests})
    assert {service["image"] for service in pinned.values()} == {"indexrelay", *digests.values()}
    image = pinned["rebuilder"]["build"]["args"]["PYTHON_IMAGE"]
    assert image == digests["PYTHON_IMAGE"]
    dockerfile = (ROOT / "deploy" / "Dockerfile").read_text(encoding="utf-8")
    bases = re.findall(r"^FROM (\S+)", dockerfile, re.MULTILINE)
    assert set(bases) == {"${PYTHON_IMAGE}"}
    assert f"ARG PYTHON_IMAGE={pin_images.images()['PYTHON_IMAGE']}" in dockerfile


@pytest.mark.parametrize("answer", ["'sha256:" + "a" * 64 + "'", "latest", ""])
def test_only_what_a_registry_answers_is_written_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str
) -> None:
    docker = tmp_path / "docker"
    docker.write_text(f'#!/bin/sh\necho "$4" >> "{tmp_path}/asked"\necho "{answer}"\n')
    docker.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(pin_images, "ROOT", tmp_path)
    file = tmp_path / ".env"
    file.write_text("REDIS_IMAGE=old\nHEALTH_PASSWORD=x\n")
    right = answer.startswith("'sha256")
    assert pin_images.main() == (0 if right else 1)
    lines = file.read_text().splitlines()
    assert "HEALTH_PASSWORD=x" in lines
    if not right:
        assert "REDIS_IMAGE=old" in lines
        return
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert lines[1:] == [
        f"{name}={image.split(':')[0]}@sha256:{'a' * 64}"
        for name, image in sorted(pin_images.images().items())
    ]
    assert (tmp_path / "asked").read_text().split() == list(pin_images.images().values())


def test_no_password_is_written_down() -> None:
    text = FILE.read_text(encoding="utf-8")
    for line in text.splitlines():
        if "PASSWORD" in line and not line.lstrip().startswith("#"):
            assert re.search(r"\$\{([A-Z_]+_PASSWORD:\?|ADMIN_LOGIN:-\})", line), line
        assert not re.search(r"redis://\w+:[^$]", line), line


@pytest.mark.parametrize("name", ["reader_a", "reader_b"])
def test_a_reader_cannot_change_the_artifacts(name: str) -> None:
    user, group = SERVICES[name]["user"].split(":")
    assert [user, group] != SERVICES["rebuilder"]["user"].split(":")
    assert group == SERVICES["rebuilder"]["user"].split(":")[1]
    assert SERVICES["rebuilder"]["environment"]["INDEXRELAY_ARTIFACTS__GROUP_READABLE"] == "true"
    assert not any(volume.split(":")[1] == "/data" for volume in SERVICES[name]["volumes"])
    assert "artifacts:/artifacts:ro" in SERVICES[name]["volumes"]
    assert SERVICES[name]["environment"]["INDEXRELAY_ARTIFACTS__DIR"] == "/artifacts"


def test_each_role_is_its_own_user_of_redis() -> None:
    urls = {
        name: service["environment"]["INDEXRELAY_REDIS__URL"]
        for name, service in SERVICES.items()
        if "INDEXRELAY_REDIS__URL" in service.get("environment", {})
    }
    users = {name: name for name in ("rebuilder", "reader_a", "reader_b", "admin")}
    users |= {"console": "operator", "operator": "duties"}
    assert urls.keys() == users.keys()
    for name, user in users.items():
        password = VARIABLES[f"{user.upper()}_PASSWORD"]
        assert urls[name].startswith(f"redis://{user}:{password}@redis:")


def test_the_admin_page_is_reached_by_whoever_the_environment_names_and_by_nobody_without() -> None:
    def settings(login: str) -> Settings:
        environ = load({**VARIABLES, "ADMIN_LOGIN": login})["admin"]["environment"]
        return load_settings(environ={**environ, "INDEXRELAY_CONFIG": ""})

    [(name, user)] = settings(cheap_hash("correct horse")).admin.users.items()
    assert (name, user.role) == ("admin", "operator")
    with pytest.raises(SettingsError, match=r"admin\.users\.admin\.password"):
        settings("")


@pytest.mark.parametrize("missing", sorted(VARIABLES))
def test_a_missing_password_stops_everything(missing: str) -> None:
    with pytest.raises(KeyError, match=missing):
        load({name: value for name, value in VARIABLES.items() if name != missing})


def test_every_copied_file_of_the_image_exists() -> None:
    dockerfile = (ROOT / "deploy" / "Dockerfile").read_text(encoding="utf-8")
    copied = [
        source
        for line in dockerfile.splitlines()
        if line.startswith("COPY ") and "--from" not in line
        for source in line.split()[1:-1]
    ]
    assert copied
    assert all((ROOT / source).exists() for source in copied)
    assert "USER indexrelay" in dockerfile


def test_passwords_are_drawn_once_and_kept_from_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(make_passwords, "ROOT", tmp_path)
    assert make_passwords.main() == 0
    file = tmp_path / ".env"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    drawn = dict(line.split("=") for line in file.read_text().split())
    assert set(drawn) == set(VARIABLES)
    assert len(set(drawn.values())) == len(drawn)
    assert all(len(password) >= 32 for password in drawn.values())
    before = file.read_text()
    assert make_passwords.main() == 0
    assert file.read_text() == before


def test_a_password_that_is_missing_is_drawn_and_the_others_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(make_passwords, "ROOT", tmp_path)
    assert make_passwords.main() == 0
    file = tmp_path / ".env"
    before = dict(line.split("=") for line in file.read_text().split())
    kept = {name: drawn for name, drawn in before.items() if name != "READER_A_PASSWORD"}
    lines = [f"{name}={drawn}" for name, drawn in {**kept, "NAMESPACE": "music"}.items()]
    file.write_text("\n".join(lines))  # the last one without its end
    assert make_passwords.main() == 0
    after = dict(line.split("=") for line in file.read_text().split())
    assert after.pop("NAMESPACE") == "music"
    assert {name for name in before if before[name] != after[name]} == {"READER_A_PASSWORD"}
