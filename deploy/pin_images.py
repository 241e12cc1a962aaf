"""Writes into ``.env`` the digests of the images that docker-compose.yml names by a tag.

A tag may point to another image tomorrow; a digest cannot. Only a registry knows it, so it is
looked up where there is one to ask, and never written into the repository: usage, by hand or in
your CI: ``python3 deploy/pin_images.py``. Run it again to move on to what the tags point to then.
"""
# ruff: noqa: INP001 - a script: it is run by its path

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COMPOSE = ROOT / "docker-compose.yml"


def images() -> dict[str, str]:
    """The image for each variable of docker-compose.yml: ``${NAME_IMAGE:-image:tag}``."""
    found = re.findall(r"\$\{([A-Z_]+_IMAGE):-([^}]+)\}", COMPOSE.read_text(encoding="utf-8"))
    return dict(found)


def digest_of(image: str) -> str:
    """What the registry answers: ``sha256:…``.

    Raises:
        LookupError: it does not, or not with a digest.
    """
    command = [
        "docker",
        "buildx",
        "imagetools",
        "inspect",
        image,
        "--format",
        "{{.Manifest.Digest}}",
    ]
    try:
        said = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise LookupError(f"{image}: {getattr(error, 'stderr', '') or error}") from error
    digest = said.stdout.strip().strip("'\"")
    if re.fullmatch(r"sha256:[0-9a-f]{64}", digest) is None:
        raise LookupError(f"{image}: {digest[:100]!r} is no digest")
    return digest


def main() -> int:
    """Look all of them up, and write them only if that went well."""
    try:
        pinned = {
            name: f"{image.split(':')[0]}@{digest_of(image)}" for name, image in images().items()
        }
    except LookupError as error:
        sys.stderr.write(f"nothing is pinned: {error}\n")
        return 1
    target = ROOT / ".env"
    kept = target.read_text(encoding="utf-8").splitlines() if target.exists() else []
    lines = [line for line in kept if line.partition("=")[0] not in pinned]
    lines += [f"{name}={image}" for name, image in sorted(pinned.items())]
    staged = target.with_name(".env.new")
    file = os.open(
        staged, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600
    )  # there are passwords in it
    with os.fdopen(file, "w", encoding="utf-8") as stream:
        stream.writelines(f"{line}\n" for line in lines)
    staged.replace(target)
    sys.stdout.write("".join(f"{name}={image}\n" for name, image in sorted(pinned.items())))
    return 0


if __name__ == "__main__":
    sys.exit(main())
