"""The steps of the benchmark that measure what one would use instead: the template's algorithm, plain PySpark, dlt."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
from deltalake import write_deltalake

from bench.archive import archive_rows, whole_rounds
from bench.feed import START, Feed, instant
from bench.processes import Server, StepFailed, run_process
from bench.results import Results, count
from bench.template import COLUMNS

DLT_VENV = Path(__file__).resolve().parents[2] / ".venv-dlt"
# What it is installed with; nothing of it is a dependency of ours.
DLT_REQUIREMENTS = ("dlt[deltalake,filesystem]==1.31.0", "deltalake==1.6.6", "pyarrow==26.0.1")


def measure_template(results: Results, server: Server, folder: Path, stored: int, pages: int) -> None:
    """Pages of a feed into tables that hold so many instances already; the first page, a cold JVM, is left out."""
    stored = whole_rounds(stored)
    entries = stored + pages * 200
    server.show(entries)
    root = folder / f"template-{stored}"
    for table in COLUMNS if stored else ():
        for part in archive_rows(table, stored):
            rows: pa.Table = part.select(list(COLUMNS[table]))
            write_deltalake(root / table, rows, mode="append", partition_by=["partitionName"])
    feed = Feed(entries)
    start = instant(feed.event(stored).ticks if stored else START)
    arguments = ["--base-url", server.base_url, "--start", start, "--end", instant(feed.base_end), "--root", str(root)]
    more = ["--pages", str(pages), "--stored", str(stored)]
    ended = run_process(["-m", "bench.template", *arguments, *more], folder / "work")
    done = ended.objects[-1]["pages"]
    if [page["entries"] for page in done] != [200] * pages:
        raise StepFailed(f"pages of {[page['entries'] for page in done]} entries")
    warm = done[1:]
    per_page = sum(page["seconds"] for page in warm) / len(warm)
    what = f"the template's algorithm, a page of 200 into tables of {count(stored)} instances, warm"
    key = "template/0" if not stored else f"template/{stored}"
    results.add(key, what, per_page, 200, pages=len(warm), firstPage=done[0]["seconds"])


def measure_plain(results: Results, server: Server, folder: Path, size: int) -> None:
    server.show(size)
    root = folder / f"plain-{size}"
    arguments = ["--base-url", server.base_url, "--root", str(root), "--entries", str(size)]
    ended = run_process(["-m", "bench.plain", *arguments], folder / "work")
    found = ended.objects[-1]
    what = f"plain PySpark, {count(size)} entries into empty tables, cold"
    results.add(f"plain/{size}", what, ended.seconds, size, pythonBytes=ended.python_bytes, **found)


def install_dlt() -> None:
    """A venv of dlt's own beside ours, made once. Raises StepFailed when dlt cannot be had."""
    python = DLT_VENV / "bin" / "python"
    ready = DLT_VENV / ".ready"
    if ready.is_file() and ready.read_text() == "\n".join(DLT_REQUIREMENTS):
        return
    for arguments in (
        [sys.executable, "-m", "venv", "--clear", str(DLT_VENV)],
        [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *DLT_REQUIREMENTS],
    ):
        ended = subprocess.run(arguments, capture_output=True, text=True, timeout=900, check=False)
        if ended.returncode != 0:
            raise StepFailed(f"dlt cannot be installed here: {' / '.join(ended.stderr.strip().splitlines()[-3:])}")
    ready.write_text("\n".join(DLT_REQUIREMENTS))


def measure_dlt(results: Results, server: Server, folder: Path, size: int) -> None:
    """By dlt's own Python; one table and no roll-ups."""
    install_dlt()
    server.show(size)
    root = folder / f"dlt-{size}"
    root.mkdir(parents=True)
    script = str(Path(__file__).with_name("dlt_pipeline.py"))
    times = ["--start", instant(START), "--end", instant(Feed(size).base_end)]
    ended = run_process(
        [script, "--base-url", server.base_url, "--root", str(root), *times],
        folder / "work", python=str(DLT_VENV / "bin" / "python"), limit_seconds=7200,
    )  # fmt: skip
    found = ended.objects[-1]
    if found["rows"] != size:
        raise StepFailed(f"{found['rows']} rows were loaded, not {size}")
    what = f"dlt, {count(size)} entries into an empty table (one table, no series, no studies), cold"
    del found["rows"], found["seconds"]
    results.add(f"dlt/{size}", what, ended.seconds, size, pythonBytes=ended.python_bytes, **found)


def dlt_version() -> str:
    return next(one for one in DLT_REQUIREMENTS if one.startswith("dlt")).partition("==")[2]


def version_of(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
