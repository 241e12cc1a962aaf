"""What a container engine would make of docker-compose.yml, on this machine and without containers.

Variables are filled in, volumes and mounted files become folders and files here, names of services
become the loopback address. Commands, environments and health checks stay what the file says.
"""

import os
import re
import resource
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.fixtures.servers import system_path

ROOT = Path(__file__).parents[2]
FILE = ROOT / "docker-compose.yml"
LOOPBACK = "127.0.0.1"

_VARIABLE = re.compile(r"\$(?:\$|\{(?P<name>\w+)(?::(?P<how>[-?])(?P<rest>[^}]*))?\})")


def interpolated(node: Any, variables: Mapping[str, str]) -> Any:
    """``${NAME}``, ``${NAME:-default}`` and ``${NAME:?message}``, as compose reads them."""
    if isinstance(node, dict):
        return {key: interpolated(value, variables) for key, value in node.items()}
    if isinstance(node, list):
        return [interpolated(value, variables) for value in node]
    if not isinstance(node, str):
        return node

    def value_of(found: re.Match[str]) -> str:
        if found["name"] is None:
            return "$"
        value = variables.get(found["name"], "")
        if not value and found["how"] == "?":
            raise KeyError(f"{found['name']}: {found['rest']}")
        return value or (found["rest"] if found["how"] == "-" else "") or ""

    return _VARIABLE.sub(value_of, node)


def load(variables: Mapping[str, str]) -> dict[str, Any]:
    """The services of the file, with their variables filled in."""
    document = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    services: dict[str, Any] = interpolated(document, variables)["services"]
    return services


def copied_into_the_image() -> dict[str, Path]:
    """The files that the Dockerfile copies to a place of their own, by that place."""
    files: dict[str, Path] = {}
    for line in (ROOT / "deploy" / "Dockerfile").read_text(encoding="utf-8").splitlines():
        if line.startswith("COPY deploy/"):
            *sources, folder = line.split()[1:]
            files |= {folder + Path(source).name: ROOT / source for source in sources}
    return files


def seconds(duration: str) -> float:
    """``30s`` as a number."""
    assert duration.endswith("s")
    return float(duration.removesuffix("s"))


def free_port() -> str:
    """A port that nobody listens on now."""
    with closing(socket.socket()) as probe:
        probe.bind((LOOPBACK, 0))
        return str(probe.getsockname()[1])


@dataclass(frozen=True, kw_only=True)
class Service:
    """One service, ready to be started here."""

    name: str
    command: list[str]
    environment: dict[str, str]
    health: list[str] | None
    grace_seconds: float
    after: tuple[str, ...]
    open_files: int

    def start(self, folder: Path) -> subprocess.Popen[bytes]:
        """Start it; what it says is in ``folder/NAME.log``."""
        with (folder / f"{self.name}.log").open("ab") as log:
            process = subprocess.Popen(
                self.command, env=self._environment(), cwd=folder, stdout=log, stderr=log
            )
        limits = (self.open_files, self.open_files)
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, limits)
        return process

    def is_healthy(self, folder: Path) -> bool:
        """Run the health check's own command once."""
        assert self.health is not None
        return self.execute(self.health, folder).returncode == 0

    def execute(self, command: list[str], folder: Path) -> "subprocess.CompletedProcess[str]":
        """Run something else where this service runs."""
        return subprocess.run(
            command,
            env=self._environment(),
            cwd=folder,
            capture_output=True,
            check=False,
            text=True,
        )

    def _environment(self) -> dict[str, str]:
        """Its own variables and nothing of ours but the programs: those stand in the image."""
        path = system_path()
        if self.name != "redis":  # its image is Redis's own; ours has the environment
            path = f"{Path(sys.executable).parent}{os.pathsep}{path}"
        return {"PATH": path, "HOME": os.environ.get("HOME", "/"), **self.environment}


def services(
    variables: Mapping[str, str], folder: Path, *, profile: str | None = None
) -> Iterator[Service]:
    """Every service without a profile, or of one, with its volumes as folders below ``folder``."""
    for name, written in load(variables).items():
        if written.get("profiles", [None]) != [profile]:
            continue
        places = {**copied_into_the_image(), **_mounts(written.get("volumes", ()), folder)}
        here = _Here(places)
        health = written.get("healthcheck", {}).get("test")
        yield Service(
            name=name,
            command=[here(part) for part in written["command"]],
            environment={key: here(value) for key, value in written["environment"].items()},
            health=None if health is None else [here(part) for part in _health_command(health)],
            grace_seconds=seconds(written["stop_grace_period"]),
            after=tuple(written.get("depends_on", ())),
            open_files=written["ulimits"]["nofile"]["soft"],
        )


def _health_command(test: str | list[str]) -> list[str]:
    if isinstance(test, str):
        return ["sh", "-c", test]
    assert test[0] == "CMD"
    return test[1:]


def _mounts(volumes: list[str], folder: Path) -> dict[str, Path]:
    places: dict[str, Path] = {}
    for volume in volumes:
        source, target = volume.split(":")[:2]
        if source.startswith("."):
            places[target] = ROOT / source
        else:
            places[target] = folder / source
            places[target].mkdir(exist_ok=True)
    return places


class _Here:
    """Rewrites a container's paths and names into this machine's."""

    def __init__(self, places: Mapping[str, Path]) -> None:
        self._places = places
        targets = "|".join(re.escape(target) for target in sorted(places, key=len, reverse=True))
        self._path = re.compile(rf"(?<![\w./-])({targets})(?![\w.-])") if targets else None

    def __call__(self, text: str) -> str:
        text = text.replace("@redis:", f"@{LOOPBACK}:").replace("0.0.0.0", LOOPBACK)  # noqa: S104 - replaced, so that nothing listens beyond this machine
        if self._path is None:
            return text
        return self._path.sub(lambda found: str(self._places[found[1]]), text)
