"""The jobs under a real spark-submit, whose session is the cluster's own and not made by us."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pyspark
import pytest

from support import runtime
from support.site import Site, text_at

JOBS = Path(__file__).parents[2] / "jobs"
SUBMIT = Path(pyspark.__file__).parent / "bin" / "spark-submit"

# What a cluster with Delta brings; nothing of it is ours.
CLUSTER = [
    "--master", "local[2]",
    "--driver-memory", "1g",
    "--driver-java-options", "-XX:TieredStopAtLevel=1 -XX:+UseParallelGC",
    "--jars", ",".join(str(jar) for jar in runtime.jars()),
    "--conf", "spark.sql.extensions=io.delta.sql.DeltaSparkSessionExtension",
    "--conf", "spark.sql.catalog.spark_catalog=org.apache.spark.sql.delta.catalog.DeltaCatalog",
    "--conf", "spark.sql.shuffle.partitions=2",
    "--conf", "spark.ui.enabled=false",
    "--conf", "spark.sql.codegen.wholeStage=false",
    "--conf", "spark.sql.codegen.factoryMode=NO_CODEGEN",
]  # fmt: skip


def submitted(site: Site, job: str, *words: str) -> subprocess.CompletedProcess[str]:
    settings = [word for text in site.texts for word in ("--set", text)]
    environment = {**os.environ, "JAVA_HOME": str(runtime.java()), "PYSPARK_PYTHON": sys.executable}
    return subprocess.run(
        [str(SUBMIT), *CLUSTER, str(JOBS / job), *settings, *words],
        cwd=site.folder, env=environment, capture_output=True, text=True, check=False, timeout=280,
    )  # fmt: skip


def test_sync_uses_the_session_of_the_cluster(site: Site) -> None:
    """Equal tables, written as ours are whatever the cluster's own settings: microseconds in UTC, zstd.

    Its log, at INFO as Spark's own settings have it, names no study, though files are filtered by one. The tag tables
    follow in the same session.
    """
    site = site.having('outputs.after_sync=["columns"]')
    study = "2.25.77100017710001"
    site.create(study, f"{study}.1", f"{study}.1.1", name="A", modality="CT", date="20240131")
    site.clock(9.5)
    assert [run.inserted for run in site.sync()] == [1]
    site.clock(10)
    site.update(study, f"{study}.1", f"{study}.1.1", name="A2", modality="CT")
    site.create(study, f"{study}.1", f"{study}.1.2", "clinic", name="B", modality="MR")
    site.clock(12)
    done = submitted(site, "sync.py")
    assert done.returncode == 0, done.stderr[-2000:]
    (run,) = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert (run["status"], run["entriesRead"], run["inserted"], run["updated"]) == ("succeeded", 2, 1, 1)
    assert run["windowStart"] == "2024-05-01T09:00:00Z", "as dicom-etl sync --json prints it"
    assert len(site.rows("instance")) == 2
    assert site.tables() == site.expected()
    assert [row["headerState"] for row in site.rows("instance_tags")] == ["ok", "ok"]
    files = [file for table in ("instance", "series", "study", "series_tags") for file in site.files(table)]
    assert files
    assert all(file.endswith(".zstd.parquet") for file in files)
    assert " INFO " in done.stderr
    assert study not in done.stderr + done.stdout


def test_a_session_without_delta_is_refused_also_when_nothing_is_due(site: Site) -> None:
    """78, before anything is read, and without a row in the ledger."""
    site.clock(9.5)
    settings = [word for text in site.texts for word in ("--set", text)]
    done = subprocess.run(
        [sys.executable, str(JOBS / "sync.py"), *settings, "--start", text_at(8), "--end", text_at(9)],
        cwd=site.folder, env={**os.environ, "JAVA_HOME": str(runtime.java())}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 78
    assert done.stderr.splitlines()[-1].startswith("dicom-etl: this Spark session has no Delta Lake: start it with")
    assert not site.root.exists()


def tried(site: Site, job: str, *words: str) -> subprocess.CompletedProcess[str]:
    """The job as a plain program: what needs no session must not ask for one."""
    settings = [word for text in site.texts for word in ("--set", text)]
    return subprocess.run(
        [sys.executable, str(JOBS / job), *settings, *words],
        cwd=site.folder, env={**os.environ, "JAVA_HOME": "/nonexistent", "PATH": ""}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip


@pytest.mark.soak
def test_a_dry_run_needs_no_session_and_changes_nothing(site: Site) -> None:
    """The windows that are due, and what maintenance would do, one JSON object a line; no Java is there."""
    site.create("1.1", "1.1.1", "1.1.1.1", name="A", modality="CT", date="20240131")
    site.clock(9.5)
    for hour in (9, 10, 11):  # three small files of `change`
        assert [run.entries_read for run in site.sync(text_at(0), text_at(hour))] == [1]
    before = {name: site.version(name) for name in ("run", "change", "instance", "series", "study")}
    elsewhere = site.having(f"lake.root={site.folder / 'none'}")
    done = tried(elsewhere, "sync.py", "--dry-run")
    assert (done.returncode, done.stdout) == (78, "")
    assert done.stderr.startswith(f"dicom-etl: no lake at {site.folder / 'none'}: ")
    done = tried(elsewhere, "sync.py", "--dry-run", "--init")
    assert (done.returncode, len(done.stdout.splitlines()), (site.folder / "none").exists()) == (0, 1, False)
    done = tried(site, "sync.py", "--start", text_at(8), "--end", text_at(9), "--dry-run")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == {"start": "2024-05-01T08:00:00Z", "end": "2024-05-01T09:00:00Z"}
    done = tried(site, "maintain.py", "--dry-run")
    assert (done.returncode, done.stderr) == (0, "")
    steps = {row["table"]: row["plannedSteps"] for row in map(json.loads, done.stdout.splitlines())}
    assert list(steps) == ["run", "change", "rejected", "instance", "series", "study"]
    assert (steps["change"], steps["rejected"], steps["study"]) == (["retention", "compact"], ["retention"], [])
    assert {name: site.version(name) for name in before} == before


@pytest.mark.parametrize(
    ("words", "code", "line"),
    [
        (["--fast"], 64, "unrecognized arguments: --fast"),
        (["--max-runs", "often"], 64, "--max-runs"),
        (["--max-runs", "0"], 64, "--max-runs"),
        (["--start", "2024-05-01T00:00:00Z"], 64, "--start and --end go together"),
        (["--set", "feed.batch_size=201"], 78, "feed.batch_size: expected a number from 1 to 200"),
        (["--config", "none.toml"], 78, "none.toml: cannot read the configuration file"),
    ],
)
def test_bad_arguments_end_as_they_do_on_the_command_line(
    tmp_path: Path, words: list[str], code: int, line: str
) -> None:
    """One line on stderr and the exit code of the table, before a session is asked for."""
    done = subprocess.run(
        [sys.executable, str(JOBS / "sync.py"), *words], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (code, "")
    assert line in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(("words", "code"), [(["--fast"], 64), (["--set", "feed.batch_size=201"], 78)])
def test_a_log_in_json_has_its_last_line_in_json_too(tmp_path: Path, words: list[str], code: int) -> None:
    """Also of a command line that cannot be parsed."""
    done = subprocess.run(
        [sys.executable, str(JOBS / "sync.py"), *words, "--log-format", "json"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    said = json.loads(done.stderr)
    assert (done.returncode, said["level"]) == (code, "ERROR")
    assert words[-1].partition("=")[0] in said["event"]
