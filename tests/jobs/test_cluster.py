"""The same job on a Spark standalone cluster: a master and two workers on loopback, processes of their own."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pyspark
import pytest

from dicom_etl.tables.engine.jars import installed_jars
from dicom_etl.tables.engine.java import java_home
from support.site import Site
from support.story import make_changes, make_creates

SPARK = Path(pyspark.__file__).parent
JOBS = Path(__file__).parents[2] / "jobs"


def _environment(folder: Path) -> dict[str, str]:
    return {
        **os.environ,
        "JAVA_HOME": str(java_home()),
        "PYSPARK_PYTHON": sys.executable,
        "SPARK_WORKER_DIR": str(folder),
        "SPARK_DAEMON_MEMORY": "256m",
    }


@contextmanager
def _daemon(folder: Path, name: str, *words: str) -> Iterator[Path]:
    """A process of the cluster; its log."""
    log = folder / f"{name}.log"
    with (
        log.open("w") as output,
        subprocess.Popen(
            [str(SPARK / "bin" / "spark-class"), *words],
            cwd=folder, env=_environment(folder), stdout=output, stderr=output,
        ) as process,
    ):  # fmt: skip
        try:
            yield log
        finally:
            process.terminate()


def _said(log: Path, pattern: str, seconds: float = 120) -> str:
    """The first group of what a daemon says at last."""
    deadline = time.monotonic() + seconds
    while not (found := re.search(pattern, log.read_text())):
        assert time.monotonic() < deadline, log.read_text()[-2000:]
        time.sleep(0.2)
    return found.group(1)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[str]:
    """The master's address, when two workers have one core each."""
    package = "org.apache.spark.deploy"
    with ExitStack() as stack:
        start = ["--host", "127.0.0.1", "--port", "0", "--webui-port", "0"]
        master = stack.enter_context(_daemon(tmp_path, "master", f"{package}.master.Master", *start))
        address = _said(master, r"Starting Spark master at (spark://127\.0\.0\.1:\d+)")
        worker = [f"{package}.worker.Worker", *start, "--cores", "1", "--memory", "1g", address]
        for name in ("one", "two"):
            log = stack.enter_context(_daemon(tmp_path, name, *worker))
            _said(log, r"(Successfully registered with master)")
        yield address


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_the_job_runs_on_two_workers(make_site: Callable[..., Site], cluster: str, tmp_path: Path) -> None:
    """Creates, then changes of every kind, merged by executors in other processes: the tables equal the service."""
    site = make_site()
    make_creates(site)
    # The first job covers what is before 11:00: the changes begin then, and a row that appears in a window of years ago
    # after it was read is not looked for.
    for hour, entries in ((11.25, 35), (15.25, 22)):
        if hour > 15:
            make_changes(site)
        site.clock(hour)
        done = _submitted(site, cluster, "sync.py", "--init")
        assert done.returncode == 0, done.stderr[-3000:]
        (run,) = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
        assert (run["status"], run["entriesRead"]) == ("succeeded", entries)
        assert site.tables() == site.expected()
    done = _submitted(site, cluster, "outputs.py")
    assert done.returncode == 0, done.stderr[-3000:]
    (output,) = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert (output["status"], output["written"]) == ("succeeded", len(site.rows("instance"))), "parsed by executors"
    # Each of the workers has run an executor in each of the three jobs.
    for name in ("one", "two"):
        started = re.findall(r"Asked to launch executor (app-\S+)/", (tmp_path / f"{name}.log").read_text())
        assert len(set(started)) == 3, name


def _submitted(site: Site, master: str, job: str, *own: str) -> subprocess.CompletedProcess[str]:
    settings = [word for text in site.texts for word in ("--set", text)]
    words = [
        "--master", master,
        "--driver-memory", "1g", "--executor-memory", "700m", "--executor-cores", "1",
        "--jars", ",".join(str(jar) for jar in installed_jars()),
        "--conf", "spark.driver.host=127.0.0.1",
        "--conf", "spark.sql.extensions=io.delta.sql.DeltaSparkSessionExtension",
        "--conf", "spark.sql.catalog.spark_catalog=org.apache.spark.sql.delta.catalog.DeltaCatalog",
        "--conf", "spark.sql.shuffle.partitions=4",
        "--conf", "spark.ui.enabled=false",
    ]  # fmt: skip
    return subprocess.run(
        [str(SPARK / "bin" / "spark-submit"), *words, str(JOBS / job), *own, *settings],
        cwd=site.folder, env=_environment(site.folder), capture_output=True, text=True, check=False, timeout=280,
    )  # fmt: skip
