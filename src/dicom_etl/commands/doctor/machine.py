"""Checks of this machine: its memory, the metrics' folder, Java, Spark's jars, and the versions of everything."""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Iterator
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from dicom_etl import __version__
from dicom_etl.commands.doctor.check import Finding, looked, problem
from dicom_etl.core.errors import ConfigurationError
from dicom_etl.core.settings.model import Metrics, Spark
from dicom_etl.core.settings.rules import memory_bytes
from dicom_etl.tables.engine.jars import FOLDER, SHA256
from dicom_etl.tables.engine.java import java_home, java_version

# A container's own bound, which its `free` does not show.
_CGROUP_BYTES = Path("/sys/fs/cgroup/memory.max")
_PACKAGES = {"Spark": "pyspark", "Delta": "delta-spark", "pyarrow": "pyarrow", "deltalake": "deltalake"}


def machine_findings(jars: Path = FOLDER) -> Iterator[Finding]:
    """What is to be said of this machine; a cluster that brings its own session needs neither Java nor jars of ours."""
    yield looked("java", _java)
    yield looked("jars", partial(_jars, jars))
    yield _versions()


def memory_finding(spark: Spark, machine_bytes: int | None = None) -> Finding:
    """Whether the JVM that we start fits this machine, or its container; ``machine_bytes`` stands in for its memory."""
    there = _memory_bytes() if machine_bytes is None else machine_bytes
    said = f"spark.driver_memory is {spark.driver_memory}, this machine has {there / (1 << 30):.1f} GiB"
    if memory_bytes(spark.driver_memory) > there:
        return Finding("memory", "warning", f"{said}: set a smaller one, or the system ends the JVM when it grows")
    return Finding("memory", "ok", said)


def _memory_bytes() -> int:
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        return min(machine, int(_CGROUP_BYTES.read_text()))
    except (OSError, ValueError):  # no container, or one without a bound ("max")
        return machine


def metrics_findings(metrics: Metrics) -> Iterator[Finding]:
    """Whether the metrics' file can be put into its folder; nothing when none is wanted."""
    if not metrics.prometheus_file:
        return
    try:
        file = Path(metrics.prometheus_file).expanduser().absolute()
        good = file.parent.is_dir() and os.access(file.parent, os.W_OK | os.X_OK) and not file.is_dir()
    except (OSError, ValueError, RuntimeError):  # a name that can be no file's, or has the ~ of nobody
        good = False
    if good and "\0" not in metrics.prometheus_file:
        yield Finding("metrics", "ok", "metrics.prometheus_file can be written")
    else:
        text = "metrics.prometheus_file cannot be written: name a file in a folder that is this user's"
        yield Finding("metrics", "warning", text)


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
