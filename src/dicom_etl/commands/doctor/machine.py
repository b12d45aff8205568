"""Checks of this machine: its memory, the metrics' folder, Java, Spark's jars, and the versions of everything."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from dicom_etl import __version__
from dicom_etl.commands.doctor.check import CheckResult, problem, run_check
from dicom_etl.core.errors import ConfigurationError
from dicom_etl.core.settings.model import Metrics, Spark
from dicom_etl.core.settings.rules import memory_bytes
from dicom_etl.tables.engine.jars import FOLDER, JARS
from dicom_etl.tables.engine.java import java_home, java_version

# A container's own bound, which its `free` does not show.
_CGROUP_BYTES = Path("/sys/fs/cgroup/memory.max")
_PACKAGES = {"Spark": "pyspark", "Delta": "delta-spark", "pyarrow": "pyarrow", "deltalake": "deltalake"}


def machine_findings(jars: Path = FOLDER) -> Iterator[CheckResult]:
    """What is to be said of this machine; a cluster that brings its own session needs neither Java nor jars of ours."""
    yield run_check("java", _java)
    yield run_check("jars", partial(_jars, jars))
    yield _versions()


def memory_finding(spark: Spark, machine_bytes: int | None = None) -> CheckResult:
    """Whether the JVM that we start fits this machine, or its container; ``machine_bytes`` stands in for its memory."""
    there = _memory_bytes() if machine_bytes is None else machine_bytes
    sizes = f"spark.driver_memory is {spark.driver_memory}, this machine has {there / (1 << 30):.1f} GiB"
    if memory_bytes(spark.driver_memory) > there:
        return CheckResult("memory", "warning", f"{sizes}: set a smaller one, or the system ends the JVM when it grows")
    return CheckResult("memory", "ok", sizes)


def _memory_bytes() -> int:
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        return min(machine, int(_CGROUP_BYTES.read_text()))
    except (OSError, ValueError):  # no container, or one without a bound ("max")
        return machine


def metrics_findings(metrics: Metrics) -> Iterator[CheckResult]:
    """Whether the metrics' file can be put into its folder; nothing when none is wanted."""
    if not metrics.prometheus_file:
        return
    text = "metrics.prometheus_file cannot be written: name a file in a folder that is this user's"
    try:
        file = Path(metrics.prometheus_file).expanduser().absolute()
        if not file.parent.exists():
            text = f"metrics.prometheus_file: the folder {file.parent} does not exist; make it, as this user's"
        good = file.parent.is_dir() and os.access(file.parent, os.W_OK | os.X_OK) and not file.is_dir()
    except (OSError, ValueError, RuntimeError):  # a name that can be no file's, or has the ~ of nobody
        good = False
    if good and "\0" not in metrics.prometheus_file:
        yield CheckResult("metrics", "ok", "metrics.prometheus_file can be written")
    else:
        yield CheckResult("metrics", "warning", text)


def _java() -> CheckResult:
    home = java_home()
    return CheckResult("java", "ok", f"Java {java_version(home)} at {home}")


def _jars(folder: Path) -> CheckResult:
    if not any((folder / jar.name).is_file() for jar in JARS):
        text = f"not at {folder}: dicom-etl setup puts them there, else the first start of Spark, from Maven Central"
        return CheckResult("jars", "warning", text)
    strange = [f"{jar.name} (SHA-256 {jar.sha256})" for jar in JARS if not jar.is_at(folder / jar.name)]
    if strange:
        names = ", ".join(strange)
        text = f"missing at {folder}, or not the files we know: {names}; run dicom-etl setup"
        return problem("jars", ConfigurationError(text))
    return CheckResult("jars", "ok", f"{len(JARS)} files at {folder}, with the SHA-256 that we know")


def _versions() -> CheckResult:
    installed = {name: _installed(package) for name, package in _PACKAGES.items()}
    packages = ", ".join(f"{name} {version}" for name, version in installed.items() if version)
    text = f"dicom-etl {__version__}, Python {platform.python_version()}, {packages}"
    missing = [name for name, version in installed.items() if not version]
    if missing:
        hint = f"not installed: {', '.join(missing)}; outside a cluster, install the wheel's file with its extra spark"
        return CheckResult("versions", "warning", f"{text}; {hint}")
    return CheckResult("versions", "ok", text)


def _installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
