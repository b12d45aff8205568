#!/bin/sh
# Make the virtual environment $1 with the first Python >= 3.11 found, or say in one line what is missing.
set -eu
# One that was interrupted has no pip yet, and is made anew.
[ -x "$1/bin/python" ] && "$1/bin/python" -m pip --version >/dev/null 2>&1 && exit 0
for python in "${PYTHON:-python3}" python3.13 python3.12 python3.11; do
    if "$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' >/dev/null 2>&1; then
        if ! "$python" -c 'import ensurepip, venv' >/dev/null 2>&1; then
            echo "setup: this Python cannot make virtual environments: install its venv package (Debian: python3-venv)" >&2
            exit 1
        fi
        exec "$python" -m venv --clear "$1"
    fi
done
echo "setup: no Python 3.11, 3.12 or 3.13 found: install one, or name it: make PYTHON=/path/to/python3" >&2
exit 1
