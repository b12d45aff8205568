"""Checks of this machine: Java, the jars that Spark needs, and the versions of everything."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Iterator
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from dicom_etl import __version__
from dicom_etl.errors import ConfigurationError
from dicom_etl.finding import Finding, looked, problem
from dicom_etl.lake.jars import FOLDER, SHA256
from dicom_etl.lake.java import java_home, java_version

_PACKAGES = {"Spark": "pyspark", "Delta": "delta-spark", "pyarrow": "pyarrow", "deltalake": "deltalake"}


def machine_findings(jars: Path = FOLDER) -> Iterator[Finding]:
    """What is to be said of this machine; a cluster that brings its own session needs neither Java nor jars of ours."""
    yield looked("java", _java)
    yield looked("jars", partial(_jars, jars))
    yield _versions()


def _java() -> Finding:
    home = java_home()
    return Finding("java", "ok", f"Java {java_version(home)} at {home}")


def _jars(folder: Path) -> Finding:
    there = [name for name in SHA256 if (folder / name).is_file()]
    if not there:
        text = (
            "not in this environment: Spark fetches them when it starts, from Maven Central; make setup puts them here"
        )
        return Finding("jars", "warning", text)
    strange = [name for name in SHA256 if name not in there or not _is_known(folder / name)]
    if strange:
        names = ", ".join(strange)
        return problem(
            "jars", ConfigurationError(f"missing, or not the files we know (SHA-256): {names}; run make setup")
        )
    return Finding("jars", "ok", f"{len(there)} files, with the SHA-256 that we know")


def _is_known(jar: Path) -> bool:
    return hashlib.sha256(jar.read_bytes()).hexdigest() == SHA256[jar.name]


def _versions() -> Finding:
    installed = {name: _installed(package) for name, package in _PACKAGES.items()}
    said = ", ".join(f"{name} {found}" for name, found in installed.items() if found)
    text = f"dicom-etl {__version__}, Python {platform.python_version()}, {said}"
    missing = [name for name, found in installed.items() if not found]
    if missing:
        hint = f"not installed: {', '.join(missing)}; outside a cluster, pip install 'dicom-etl[spark]' brings them"
        return Finding("versions", "warning", f"{text}; {hint}")
    return Finding("versions", "ok", text)


def _installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
