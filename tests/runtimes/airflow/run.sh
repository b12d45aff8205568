#!/bin/sh
# The DAGs in deploy/airflow on one Airflow: run.sh 3.1. Called by make test-airflow. That Airflow and its libraries lie in
# .runtimes/airflow-3.1, made once from tests/runtimes/airflow/3.1.lock; they are no part of ours.
set -eu
here=.runtimes/airflow-$1
lock=tests/runtimes/airflow/$1.lock
[ -f "$lock" ] || { echo "test-airflow: no $lock; there are: $(echo tests/runtimes/airflow/*.lock)" >&2; exit 1; }

if ! cmp -s "$lock" "$here/installed.lock"; then
    # Airflow 2.10 runs on Python 3.12 at most, and the locks are made for 3.11.
    for python in python3.11 python3.12; do command -v $python >/dev/null && break; done
    echo "test-airflow: making $here with $python (a few minutes) ..."
    rm -rf "$here"
    $python -m venv "$here"
    "$here/bin/python" -m pip --disable-pip-version-check --quiet install --no-deps -r "$lock"
    cp "$lock" "$here/installed.lock"
fi

echo "test-airflow: Airflow $(sed -n 's/^apache-airflow==//p' "$lock")"
export DICOM_ETL_AIRFLOW="$PWD/$here"
exec .venv/bin/python -m pytest -q -p no:cacheprovider --timeout 1200 tests/jobs/test_airflow.py
