#!/usr/bin/env bash
# Pins every distribution that a fresh environment ends up with. Usage: renew_constraints.sh PYTHON
#
# The newest versions that pyproject.toml allows are installed into a throw-away environment, and
# only names and versions are written down: no host, no path, not the project itself.
set -euo pipefail
cd "$(dirname "$0")/.."

python=${1:-python3}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

"$python" -m venv "$scratch/venv"
"$python" scripts/dev_requirements.py > "$scratch/dev.txt"
"$scratch/venv/bin/pip" install --quiet --disable-pip-version-check -e '.[all]' -r "$scratch/dev.txt"
{
    echo "# What 'make demo', 'make test' and CI run with. Renew it with: make constraints"
    "$scratch/venv/bin/pip" freeze --exclude-editable
} > "$scratch/constraints.txt"

if grep -nE '@|://|^-|^/' "$scratch/constraints.txt"; then
    echo "a requirement is not a plain pin (see above); constraints.txt stays as it was" >&2
    exit 1
fi
mv "$scratch/constraints.txt" constraints.txt
echo "constraints.txt: $(grep -c == constraints.txt) pins"
