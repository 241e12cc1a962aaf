#!/usr/bin/env bash
# Prints the newest Python that this machine has and that is newer than the one the project needs
# at least; nothing, and status 1, where there is none.
#
# A name on PATH may be a shim that does not run (pyenv has one for every version that it knows), so
# each is run before it is believed.
set -euo pipefail

runs() { # runs PYTHON: whether it is what its name says, and can make environments
    "$1" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 13))' > /dev/null 2>&1
}

candidates() {
    local minor
    for minor in 19 18 17 16 15 14 13; do
        type -aP "python3.$minor" || true
        compgen -G "${PYENV_ROOT:-$HOME/.pyenv}/versions/3.$minor.*/bin/python3.$minor" | sort -rV || true
    done
}

while IFS= read -r python; do
    if runs "$python"; then
        echo "$python"
        exit 0
    fi
done < <(candidates)
exit 1
