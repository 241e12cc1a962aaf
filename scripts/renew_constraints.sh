#!/usr/bin/env bash
# Pins every distribution that an environment can end up with, each with the digests of its files.
# Usage: renew_constraints.sh PYTHON [--keep]
#
# The newest versions that pyproject.toml allows are pinned, for every platform and every Python that
# we promise; with --keep those that are pinned stay, and only what is new or gone in pyproject.toml
# changes. No host is written down, and no path.
set -euo pipefail
cd "$(dirname "$0")/.."

python=${1:-python3}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
options=(--quiet --universal --generate-hashes --no-header --python-version 3.11)
if [[ ${2:-} == --keep ]]; then
    # What stands in the output file is preferred. Without digests, so that a pin gets them anew.
    sed -nE 's/^([A-Za-z0-9._-]+==[^ ;\\]+).*/\1/p' constraints.txt > "$scratch/constraints.txt"
fi

"$python" -m venv "$scratch/venv"
"$scratch/venv/bin/pip" install --quiet --disable-pip-version-check uv
"$python" scripts/dev_requirements.py --group dev --group audit --build > "$scratch/dev.in"
"$scratch/venv/bin/uv" pip compile "${options[@]}" --all-extras \
    --output-file "$scratch/constraints.txt" pyproject.toml "$scratch/dev.in"
sed -i -e "s#-r $scratch/dev.in#development#" -e 's# (pyproject.toml)##' "$scratch/constraints.txt"
{
    echo "# What 'make demo', 'make test', CI and the image run with. Renew it with: make constraints"
    echo "# With digests here pip installs nothing that is not pinned, so a part of it is installed by"
    echo "# scripts/locked_requirements.py, and the project itself by --no-deps (docs/security.md)."
    cat "$scratch/constraints.txt"
} > "$scratch/pinned.txt"

if grep -nE '@|://|^-|^/|/tmp' "$scratch/pinned.txt"; then
    echo "a requirement is not a plain pin (see above); constraints.txt stays as it was" >&2
    exit 1
fi
mv "$scratch/pinned.txt" constraints.txt
echo "constraints.txt: $(grep -c == constraints.txt) pins, $(grep -c sha256: constraints.txt) digests"
