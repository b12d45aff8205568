"""The tag tables as views of a session: those that equal a run, and what to say where they do not."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from py4j.protocol import Py4JJavaError
from pyspark.errors import AnalysisException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from dicom_etl.core.clock import utc_now
from dicom_etl.core.errors import AccessDenied, StorageError
from dicom_etl.lake.ledger import Run
from dicom_etl.lake.snapshot import Lake, LakeSnapshot
from dicom_etl.outputs.execution import Execution, executions, last_succeeded, open_executions
from dicom_etl.outputs.state import output_states
from dicom_etl.tables.merge import read_table

TAG_TABLES = ("instance_tags", "series_tags", "study_tags", "header_quality")
_NAMES = re.compile(rf"\b({'|'.join(TAG_TABLES)})\b", re.IGNORECASE)
_OUTPUT = "columns"


@dataclass(frozen=True, slots=True)
class TagViews:
    """The tag tables, `output` and `fhir_sent` by name, as far as this user may read them.

    ``runs_behind``: how many runs they lack where one of these may have changed rows, else 0. ``absent``: why there are
    no tag tables, where that is known.
    """

    frames: Mapping[str, DataFrame] = field(default_factory=dict)
    runs_behind: int = 0
    absent: str | None = None

    def hint(self, sql: str) -> str | None:
        """That a tag table which ``sql`` names is behind; None where it names none, or they are not."""
        found = _NAMES.search(sql)
        if not self.runs_behind or found is None:
            return None
        runs = "1 run" if self.runs_behind == 1 else f"{self.runs_behind} runs"
        return f"{found[1].lower()} is {runs} behind: dicom-etl columns update"


def tag_views(spark: SparkSession, snapshot: LakeSnapshot, run: Run | None) -> TagViews:
    """The tag tables as they are now; with ``run`` those that equal it, and of `output` the rows up to it."""
    lake = snapshot.lake
    try:
        table = open_executions(lake)
    except (StorageError, AccessDenied):
        return TagViews()
    if table is None:
        return TagViews()
    runs, done, output = snapshot.runs(), executions(table), read_table(spark, lake.path("output"))
    if run is not None:
        return _of_run(spark, lake, runs, run, done, output.where(F.col("toRun") <= run.run_id))
    last = last_succeeded(done, _OUTPUT)
    wanted = list(last.versions) if last is not None else []
    wanted += ["fhir_sent"] if last_succeeded(done, "fhir") is not None else []
    found = _readable(spark, lake, dict.fromkeys(wanted))
    return TagViews({"output": output, **found}, _runs_behind(runs, done, last))


def _of_run(
    spark: SparkSession, lake: Lake, runs: Collection[Run], run: Run, done: list[Execution], output: DataFrame
) -> TagViews:
    equal = [one for one in done if _same_rows(runs, one.to_run, run.run_id)]
    last = last_succeeded(equal, _OUTPUT)
    if last is None:
        return TagViews({"output": output}, absent=_other_runs(done, run))
    found = _readable(spark, lake, last.versions)
    gone = None if found else f"those of run {run.run_id} are gone, or not for this user"
    return TagViews({"output": output, **found}, absent=gone)


def _readable(spark: SparkSession, lake: Lake, wanted: Mapping[str, int | None]) -> dict[str, DataFrame]:
    frames = {}
    for name, version in wanted.items():
        # One that was vacuumed, or lies where this user may not look, gets no view.
        with suppress(AnalysisException, Py4JJavaError):
            frames[name] = read_table(spark, lake.path(name), version)
    return frames


def _runs_behind(runs: Collection[Run], done: list[Execution], last: Execution | None) -> int:
    if last is None:
        return 0
    state = next(one for one in output_states(runs, done, utc_now()) if one.output == _OUTPUT)
    return 0 if _same_rows(runs, state.reached_run, state.last_run) else state.runs_behind


def _same_rows(runs: Iterable[Run], one: int, other: int) -> bool:
    """Whether no run after the earlier of the two, up to the later, can have changed a row."""
    low, high = sorted((one, other))
    return all(_changed_nothing(run) for run in runs if low < run.run_id <= high)


def _changed_nothing(run: Run) -> bool:
    return run.verb == "maintain" or (run.verb == "sync" and run.status == "succeeded" and run.entries_read == 0)


def _other_runs(done: Iterable[Execution], run: Run) -> str | None:
    """Which run the tag tables equal in place of ``run``, as near to it as there is one."""
    reached = [one.to_run for one in done if one.output == _OUTPUT and one.status == "succeeded"]
    if not reached:
        return None
    nearest = min(reached, key=lambda one: (abs(one - run.run_id), -one))
    advice = f"give --run {nearest}" if nearest > run.run_id else f"dicom-etl columns update, or --run {nearest}"
    return f"the tag tables equal run {nearest}, not run {run.run_id}: {advice}"
