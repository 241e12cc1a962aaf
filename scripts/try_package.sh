#!/usr/bin/env bash
# Builds wheel and sdist into dist/, with the bill of materials, and tries the wheel where nothing else
# is. Usage: try_package.sh PYTHON, the one of the development environment.
#
# The wheel is built from the sdist, so that a file which the sdist leaves out is missed here and
# not by a user. Then: an analysis job needs the bare distribution, and no FAISS.
set -euo pipefail
cd "$(dirname "$0")/.."

python=${1:-python3}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
quiet=(--quiet --disable-pip-version-check)

locked() { # locked NAME OPTION…: an environment of its own with these pins, each by its digests
    local name=$1
    shift
    "$python" -m venv "$scratch/$name"
    "$python" scripts/locked_requirements.py "$@" > "$scratch/$name.txt"
    "$scratch/$name/bin/pip" install "${quiet[@]}" --require-hashes --requirement "$scratch/$name.txt"
}

locked build --no-project --build
"$scratch/build/bin/hatchling" build -t sdist -d "$scratch/sdist"
mkdir "$scratch/unpacked"
tar -xzf "$scratch"/sdist/*.tar.gz -C "$scratch/unpacked" --strip-components 1
(cd "$scratch/unpacked" && "$scratch/build/bin/hatchling" build -t wheel -d "$scratch/wheel")

locked job
"$scratch/job/bin/pip" install "${quiet[@]}" --no-deps "$scratch"/wheel/*.whl

# What a release consists of, and what it brings.
rm -rf dist
mkdir dist
cp "$scratch"/sdist/*.tar.gz "$scratch"/wheel/*.whl dist
wheel=$(basename "$scratch"/wheel/*.whl)
"$python" -m scripts.bill_of_materials "dist/${wheel%%-py3-*}.cdx.json"

# From another folder: the checkout must not be what is imported.
cd "$scratch"
"$scratch/job/bin/python" - <<'PYTHON'
import importlib.util
import sys
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path

import indexrelay.producers
import indexrelay.schemas

for heavy in ("faiss", "sklearn", "fastapi", "typer"):
    if importlib.util.find_spec(heavy) is not None:
        sys.exit(f"the bare distribution installs {heavy}")
if not (files("indexrelay.schemas") / "py.typed").is_file():
    sys.exit("the wheel has no py.typed")
if not any(entry.name.endswith(".lua") for entry in files("indexrelay.streams").iterdir()):
    sys.exit("the wheel has no Lua scripts")
# Not by files("indexrelay.admin"), which would import what the bare distribution lacks.
page = Path(indexrelay.schemas.__file__).parents[1] / "admin" / "page"
for part in ("index.html", "vendor/deck.js", "vendor/vendor.json"):
    if not (page / part).is_file():
        sys.exit(f"the wheel has no {part} of the admin page")
print(f"indexrelay {version('indexrelay')}: a job can import its producers, without FAISS")
PYTHON

# The command says what is missing instead of showing a traceback.
if message=$("$scratch/job/bin/indexrelay" --version 2>&1); then
    echo "$message"
elif grep -q Traceback <<< "$message"; then
    echo "$message" >&2
    exit 1
else
    grep -q "pip install 'indexrelay\[" <<< "$message" && echo "the command names its extra"
fi
