#!/bin/sh
# What kubectl makes of deploy/kubernetes, against the schemas of Kubernetes; unknown fields are refused, and a broken twin
# is caught. Called by make test-kubernetes. The schemas (80 MB) lie in .runtimes/kubernetes.
set -eu
here=.runtimes/kubernetes
command -v kubectl >/dev/null || { echo "test-kubernetes: install kubectl" >&2; exit 1; }
if ! [ -x "$here/bin/kubernetes-validate" ]; then
    sh ./conf/make-venv.sh "$here"
    "$here/bin/python" -m pip --disable-pip-version-check --quiet install kubernetes-validate==1.32.0
fi
for folder in deploy/kubernetes "$here/pushed"; do
    if [ "$folder" != deploy/kubernetes ]; then
        # The same, with the component that pushes metrics.
        rm -rf "$folder"
        cp -R deploy/kubernetes "$folder"
        sed -i 's/^# components:/components:/' "$folder/kustomization.yaml"
    fi
    kubectl kustomize "$folder" > "$here/made.yaml"
    for version in 1.31 1.32; do
        "$here/bin/kubernetes-validate" --strict -k "$version" "$here/made.yaml"
    done
done
grep -q '/push/push.py' "$here/made.yaml"
sed 's/terminationMessagePolicy/terminationMesagePolicy/' "$here/made.yaml" > "$here/broken.yaml"
if "$here/bin/kubernetes-validate" --strict -k 1.32 "$here/broken.yaml" >/dev/null 2>&1; then
    echo "test-kubernetes: a misspelt field was not refused" >&2
    exit 1
fi
echo "test-kubernetes: all accepted, and a misspelt field refused"
