"""The JVM that we start, in processes of their own: its environment, and its end when its memory is full."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.ours, pytest.mark.jvm]

SECRETS = ("DICOM_ETL_TOKEN", "AZURE_CLIENT_SECRET", "IDENTITY_HEADER", "AZURE_FEDERATED_TOKEN_FILE")

# Spark starts in the background, and the environment is read as often as it goes, as a client of Azure might.
SCRIPT = """
import json, os, sys, time
from pathlib import Path
from dicom_etl.tables.engine.session import Engine
from dicom_etl.core.settings.model import Spark

def is_java_of_ours(process):
    try:
        name, _, rest = process.joinpath("stat").read_text().rpartition(")")
    except OSError:  # another process that has ended since it was listed
        return False
    return "(java" in name and rest.split()[1] == str(os.getpid())

def javas():
    return [path.name for path in Path("/proc").glob("[0-9]*") if is_java_of_ours(path)]

before, readings, changed = dict(os.environ), 0, set()
with Engine(Spark(master="local[1]", driver_memory="1g", shuffle_partitions=1)) as engine:
    engine.begin(1)
    while not engine._starting.done():
        now, readings = dict(os.environ), readings + 1
        time.sleep(0.001)
        changed |= {name for name in before.keys() | now.keys() if before.get(name) != now.get(name)}
    spark = engine.session(1)
    pids = javas()
    given = dict(pair.split("=", 1) for pair in Path(f"/proc/{pids[0]}/environ").read_text().split("\\0") if pair)
    worker = spark.sparkContext.parallelize([1], 1).map(lambda _: sys.executable).collect()
left = javas()
print(json.dumps([readings, sorted(changed), len(pids), given, worker, left]))
"""


def test_the_process_keeps_its_environment_and_the_jvm_gets_no_secrets(tmp_path: Path) -> None:
    """One JVM; its workers are of this Python, whatever the shell calls python3; no variable comes, goes or changes."""
    (tmp_path / "python3").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "python3").chmod(0o755)
    ours = {name: value for name, value in os.environ.items() if name not in ("PYSPARK_PYTHON", "SPARK_LOCAL_IP")}
    ours |= {**dict.fromkeys(SECRETS, "secret"), "SPARK_HOME": "/nowhere", "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run([sys.executable, "-c", SCRIPT], env=ours, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    readings, changed, jvms, given, worker, left = json.loads(done.stdout)
    assert readings > 100
    assert changed == []
    assert jvms == 1
    assert given.keys() & {*SECRETS} == set()
    assert "secret" not in given.values()
    assert given["PATH"] == ours["PATH"]
    assert worker == [sys.executable]
    assert left == []


# 800 MB that no codec makes smaller, all taken to Python from a heap of 512: the driver's own threads meet the error.
OUT_OF_MEMORY = """
from dicom_etl.cli.process import run_command
from dicom_etl.tables.engine.session import Engine
from dicom_etl.core.settings.model import Spark

def command():
    with Engine(Spark(master="local[1]", driver_memory="512m", shuffle_partitions=1)) as engine:
        session = engine.session(1)
        print("rows", session.range(3).count(), flush=True)
        session.range(400_000).selectExpr("randstr(2000)").collect()
    return 0

raise SystemExit(run_command(command))
"""


def test_a_jvm_whose_memory_is_full_ends_the_command_with_78(tmp_path: Path) -> None:
    """At once, by the JVM's own end; nothing waits for a result that does not come."""
    done = subprocess.run(
        [sys.executable, "-c", OUT_OF_MEMORY], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=240
    )
    assert done.stdout == "rows 3\n"
    assert done.stderr.splitlines() == ["dicom-etl: Spark: Spark ran out of memory: raise spark.driver_memory"]
    assert done.returncode == 78
