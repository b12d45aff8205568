"""The report of one run: a table on the terminal, and docs/performance-figures.md."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench.others import dlt_version, version_of
from bench.results import Measurement, count
from bench.targets import MIB, Verdict

_PACKAGES = ("dicom-etl", "pyspark", "delta-spark", "deltalake", "pyarrow", "msgspec", "httpx")
_SECONDS = {"start": "start", "fetch": "fetch", "land": "land", "merge": "fold + MERGE", "rollup": "roll-up"}
_BYTES = {"pythonBytes": "Python", "jvmBytes": "JVM"}
_COUNTS = {
    "requests": "requests",
    "searches": "of them searches",
    "filesRead": "files read",
    "filesAdded": "files added",
    "filesRemoved": "files removed",
    "slices": "slices",
    "mostUnderWay": "requests at once",
}
_NOTES = """\
- The feed: pydicom's own headers with UIDs, numbers and times put in, filled up to 10 KB an entry on average, studies
  of 3 series x 60 instances from 4 scanners at once, 5 000 entries an hour; windows of 1 000. It is served on loopback
  by one process that joins ready-made bytes (over 100 000 entries/s a core), uncompressed. It shares the cores with
  what is measured.
- Times are those of whole processes, start and end included, unless the row says *warm*. `start` to `roll-up` are the
  ledger's. Memory is the peak of the sum of PSS, sampled four times a second from outside, Python's processes and the
  JVM apart.
- Windows are read into tables after `maintain`; each step begins with a fresh copy of the lake. *Files and bytes read*
  are those of the three tables whose bounds meet the MERGE's ranges of study UIDs; written ones are from the history's
  `operationMetrics`.
- Warm: one process calls `sync` for one window after another, in one Spark session; the median of the last five
  (three in `--quick`, and with deletion vectors). Every tenth commit of a table writes a checkpoint, which that leaves
  out.
- The 200 small windows: 100 entries each, every tenth 900 updates of whole studies. *Files read* are those in reach of
  the last of them; *rewritten* is what `maintain` read and rewrote, all tables together.
- The template's algorithm (`tests/bench/template.py`) runs in a warm session of ours, without
  the Spark activity that Data Factory starts for each page, on the pages that the row names; nothing is extrapolated
  from it. Per change it is compared with its pages into *empty* tables: they cost more as its tables grow.
- dlt (`tests/bench/dlt_pipeline.py`, a venv of its own) loads one table with the metadata as one string: no series, no
  studies, no deletions. Plain PySpark (`tests/bench/plain.py`): one table by MERGE, then series and studies by
  aggregation.
- More than a million instances are grown by a `sync` of the last 100 000 entries; the rows before them are written
  directly into the three tables, and `maintain` follows.
"""


@dataclass(frozen=True, slots=True)
class Machine:
    """Where it ran, without its name."""

    cores: int
    memory_bytes: int
    processor: str
    system: str
    load: float
    versions: dict[str, str]


def this_machine() -> Machine:
    """Cores that this process may use, memory, processor; ``load`` is that of the minute before."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    versions = {"Python": platform.python_version(), "Java": _java_version()}
    versions |= {name: version_of(name) for name in _PACKAGES}
    versions["dlt"] = dlt_version()
    return Machine(len(os.sched_getaffinity(0)), memory, _processor(), platform.system(), os.getloadavg()[0], versions)


def _processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.machine()
    names = [line.partition(":")[2].strip() for line in text.splitlines() if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _java_version() -> str:
    from dicom_etl.tables.engine.java import java_home

    said = subprocess.run([f"{java_home()}/bin/java", "-version"], capture_output=True, text=True, check=False).stderr
    return said.splitlines()[0].split('"')[1] if '"' in said else "unknown"


def details(row: Measurement) -> str:
    """What was measured beside the time, in words."""
    if row.failed is not None:
        return f"**failed**: {row.failed}"
    parts = [f"{word} {row.details[name]:.1f}" for name, word in _SECONDS.items() if name in row.details]
    parts = [f"{' · '.join(parts)} s"] if parts else []
    parts += [f"{word} {count(row.details[name])}" for name, word in _COUNTS.items() if name in row.details]
    parts += [
        f"{word} {row.details[name] / MIB:.1f} MiB"
        for name, word in (("bytesRead", "read"), ("bytesAdded", "written"), ("bytesRewritten", "rewritten"))
        if name in row.details
    ]
    parts += [f"{word} {row.details[name] / MIB:.0f} MiB" for name, word in _BYTES.items() if row.details.get(name)]
    parts += [f"the first five {row.details['firstSeconds']:.1f} s"] if "firstSeconds" in row.details else []
    parts += [f"files then: {_held(row.details['held'])}"] if "held" in row.details else []
    parts += [f"first page {row.details['firstPage']:.1f} s"] if "firstPage" in row.details else []
    return ", ".join(parts)


def _held(files: dict[str, int]) -> str:
    return " · ".join(f"{name} {number}" for name, number in files.items())


def _seconds(row: Measurement) -> str:
    return "-" if row.seconds is None else f"{row.seconds:.2f}" if row.seconds < 10 else f"{row.seconds:.1f}"


def _rate(row: Measurement) -> str:
    return count(row.per_second) if row.per_second else ""


def _verdict(verdict: Verdict) -> str:
    return "not measured" if verdict.met is None else "met" if verdict.met else "**missed**"


def show(console: Console, rows: Sequence[Measurement], verdicts: Sequence[Verdict]) -> None:
    """The two tables, for a person at a terminal."""
    times = Table(title="Measured", title_justify="left")
    for name, side in (("what", "left"), ("seconds", "right"), ("per second", "right"), ("of which", "left")):
        times.add_column(name, justify=side)  # type: ignore[arg-type]
    for row in rows:
        times.add_row(row.what, _seconds(row), _rate(row), details(row).replace("**", ""))
    goals = Table(title="Targets", title_justify="left")
    for name in ("what", "target", "found", ""):
        goals.add_column(name)
    for verdict in verdicts:
        goals.add_row(verdict.what, verdict.target, verdict.figure or "-", _verdict(verdict).replace("**", ""))
    console.print(times)
    console.print(goals)


def markdown(machine: Machine, rows: Sequence[Measurement], verdicts: Sequence[Verdict], command: str) -> str:
    """docs/performance-figures.md, whole."""
    versions = ", ".join(f"{name} {version}" for name, version in machine.versions.items())
    lines = [
        "# Performance: the figures of one run",
        "",
        f"For people who compare speeds. Written by `{command}` ({datetime.now(UTC):%Y-%m-%d}); run it again on your "
        "machine: only ratios of one",
        "run mean something elsewhere. What they mean for a machine: [performance](performance.md).",
        "",
        f"- **Machine**: {machine.cores} cores of {machine.processor}, {machine.memory_bytes / 2**30:.0f} GiB, "
        f"{machine.system}; load before the run {machine.load:.1f}.",
        f"- **Versions**: {versions}.",
        "",
        "## Targets",
        "",
        "| what | target | found | |",
        "|---|---|---|---|",
        *(f"| {one.what} | {one.target} | {one.figure or '-'} | {_verdict(one)} |" for one in verdicts),
        "",
        "## Measured",
        "",
        "| what | seconds | changes/s | of which |",
        "|---|---:|---:|---|",
        *(f"| {row.what} | {_seconds(row)} | {_rate(row)} | {_cell(details(row))} |" for row in rows),
        "",
        "## How",
        "",
        _NOTES.rstrip("\n"),
    ]
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "/").replace("\n", " ")
