"""Maintenance, queries and the status of a lake."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta

import pyspark
import pytest
from pyspark.sql import functions as F

from dicom_etl.commands.maintain import maintain, planned
from dicom_etl.commands.query import answer
from dicom_etl.core.errors import UsageError
from dicom_etl.lake.status import status
from support.site import Site, at, ticks_at
from support.story import Story

Command = Callable[..., tuple[int, str, str]]


def test_maintenance_keeps_rows_and_frees_files(copy: Site) -> None:
    """Files are joined into fewer, the old ones go when their time is over, and the ledger has a row of it."""
    site = copy.having("maintenance.retention_hours=1", "maintenance.allow_short_retention=true")
    before, rows = site.tables(), {name: len(site.rows(name)) for name in ("change", "run", "rejected")}
    files = len(site.files("change"))
    assert files == 3
    done = {m.table: m for m in maintain(site.settings, spark=site.spark, clock=lambda: at(16))}
    assert list(done) == ["run", "change", "rejected", "instance", "series", "study"]
    assert (done["change"].files_compacted, done["change"].files_written) == (3, 1)
    assert len(site.files("change")) == 1
    assert site.tables() == before
    assert {name: len(site.rows(name)) for name in rows} == {**rows, "run": rows["run"] + 1}
    last = site.ledger()[-1]
    assert (last["verb"], last["status"], last["runId"], last["windowStart"]) == ("maintain", "succeeded", 6, None)
    assert last["instanceVersion"] == site.version("instance")
    for name in ("instance", "series", "study", "change"):
        properties = site.opened(name).metadata().configuration
        assert properties["delta.deletedFileRetentionDuration"] == "interval 1 hours"
        assert properties["dicomEtl.lakeId"] == site.opened("run").metadata().configuration["dicomEtl.lakeId"]
    # Nothing is an hour old yet; coverage is that of sync's runs, and syncs go on.
    assert {m.files_freed for m in done.values()} == {0}
    assert status(site.settings, clock=lambda: at(15)).covered_until == ticks_at(14)


def planned_steps(site: Site, hour: float) -> dict[str, list[str]]:
    return {plan.table: plan.steps for plan in planned(site.settings, clock=lambda: at(hour))}


def test_maintenance_can_be_planned_first(copy: Site, command: Command) -> None:
    """What --dry-run names is what is done: before, the steps of each table; after them, nothing."""
    site = copy.having("maintenance.retention_hours=400")
    versions = {name: site.version(name) for name in ("run", "change", "instance", "series", "study")}
    steps_of = planned_steps(site, 16)
    assert list(steps_of) == ["run", "change", "rejected", "instance", "series", "study"]
    assert steps_of["change"] == ["retention", "compact"]
    assert steps_of["instance"][0] == "retention"
    assert {name: site.version(name) for name in versions} == versions
    code, out, err = command(site, "maintain", "--dry-run")
    assert (code, err) == (0, "")
    assert [" ".join(line.split()) for line in out.splitlines()[2:]] == [
        " ".join([name, ", ".join(steps) or "nothing"]) for name, steps in steps_of.items()
    ]

    done = {m.table: m for m in maintain(site.settings, spark=site.spark, clock=lambda: at(16))}
    assert {name for name, steps in steps_of.items() if "compact" in steps} == {
        name for name, m in done.items() if m.files_compacted
    }
    code, out, _ = command(site, "maintain", "--dry-run", "--json")
    rows = [json.loads(line) for line in out.splitlines()]
    assert (code, len(rows), [row for row in rows if row["plannedSteps"]]) == (0, 6, [])


def test_a_purge_can_be_planned_first(copy: Site) -> None:
    """Only of what is older than maintenance.change_retention_days, and of `change` alone.

    Not of what the next run compares with: all that is there, of a lake whose last run was twenty days ago.
    """
    kept = copy.having("maintenance.change_retention_days=30")
    assert len(kept.rows("change")) > 1
    compared = copy.having("maintenance.change_retention_days=1")
    a_day = compared.having("feed.look_back=0s", "maintenance.keep_live_headers=false")
    plans = [planned_steps(site, 24 * 20) for site in (copy, kept, compared, a_day)]
    assert ["purge" in plan["change"] for plan in plans] == [False, False, False, True]
    assert [name for name, steps in plans[3].items() if "purge" in steps] == ["change"]
    assert list(maintain(a_day.settings, spark=a_day.spark, clock=lambda: at(24 * 20)))
    assert len(kept.rows("change")) == 1, "the newest entry stays"
    assert "purge" not in planned_steps(a_day, 24 * 20)["change"]


READ = [
    "SELECT count(*) AS n FROM instance",
    "WITH s AS (SELECT * FROM series) SELECT sum(instanceCount) AS n FROM s",
    "SELECT count(*) AS n FROM instance i JOIN series s USING (partitionName, studyInstanceUid, seriesInstanceUid)",
    "SELECT sum(n) AS n FROM (SELECT modality, count(*) AS n FROM instance GROUP BY modality HAVING count(*) > 0)",
    "SELECT n FROM (SELECT count(*) OVER () AS n FROM instance) LIMIT 1",
    pytest.param(
        "FROM instance |> AGGREGATE count(*) AS n",
        marks=pytest.mark.skipif(pyspark.__version__ < "4", reason="Spark 3 knows no pipes"),
    ),
    "SELECT (SELECT count(*) FROM instance) AS n",
    "(SELECT count(*) AS n FROM instance) INTERSECT (SELECT count(*) AS n FROM instance)",
    "SELECT count(*) AS n FROM instance WHERE patientName IS NULL OR patientName <> 'reflect(a), java_method(b)'",
]


@pytest.mark.parametrize("sql", READ)
def test_queries_are_answered(story: Story, sql: str) -> None:
    """All forms of SELECT, over the tables by their names."""
    with answer(story.site.settings, sql, spark=story.site.spark) as rows:
        assert [row["n"] for row in rows.collect()] == [26]


def test_a_table_is_read_as_it_was(story: Story) -> None:
    """The version that a result is to be made from again: by the table's place, since a view has no versions."""
    version = story.chapters["first"].runs[-1].instance_version
    sql = f"SELECT count(*) AS n FROM delta.`{story.site.place('instance')}` VERSION AS OF {version}"  # noqa: S608
    with answer(story.site.settings, sql, spark=story.site.spark) as rows:
        assert [row["n"] for row in rows.collect()] == [33]
    with (
        pytest.raises(UsageError, match=r"^query: .*(TIME_TRAVEL|time travel).*; a view has no versions: give --run N"),
        answer(story.site.settings, "SELECT * FROM instance VERSION AS OF 1", spark=story.site.spark) as rows,
    ):
        rows.collect()


@pytest.mark.ours  # where the JVM's zone is not UTC, as it may be in a session that is handed in, Delta shifts the time
def test_a_table_is_read_as_of_a_time(story: Story) -> None:
    """Spark goes by the times of the log's files, which in Azure have whole seconds."""
    assert story.site.spark is not None
    table = f"delta.`{story.site.place('instance')}`"
    newest = story.site.spark.sql(f"DESCRIBE HISTORY {table} LIMIT 1").select(F.col("timestamp").cast("string"))
    place = f"{table} TIMESTAMP AS OF '{newest.collect()[0][0]}'"
    with answer(story.site.settings, f"SELECT count(*) AS n FROM {place}", spark=story.site.spark) as rows:  # noqa: S608
        assert [row["n"] for row in rows.collect()] == [26]


@pytest.mark.parametrize("sql", ["SHOW TABLES", "DESCRIBE instance", "EXPLAIN SELECT * FROM instance"])
def test_descriptions_are_answered(story: Story, sql: str) -> None:
    with answer(story.site.settings, sql, spark=story.site.spark) as rows:
        assert "instance" in str(rows.collect()) or "studyInstanceUid" in str(rows.collect())


WRITE = [
    "INSERT INTO instance SELECT * FROM instance",
    "INSERT OVERWRITE DIRECTORY '{folder}' USING parquet SELECT 1 AS a",
    "CREATE TABLE t AS SELECT * FROM instance",
    "CREATE TABLE delta.`{folder}` (a INT) USING delta",
    "CREATE TEMP VIEW t AS SELECT 1",
    "DROP VIEW instance",
    "DELETE FROM delta.`{root}/instance`",
    "UPDATE delta.`{root}/instance` SET patientName = null",
    "MERGE INTO delta.`{root}/instance` t USING instance s ON false WHEN NOT MATCHED THEN INSERT *",
    "OPTIMIZE delta.`{root}/instance`",
    "VACUUM delta.`{root}/instance`",
    "ALTER TABLE delta.`{root}/instance` SET TBLPROPERTIES ('a' = 'b')",
    "SET spark.sql.ansi.enabled = false",
    "CACHE TABLE instance",
    "EXECUTE IMMEDIATE 'DELETE FROM delta.`{root}/instance`'",
    "CALL system.anything()",
    "BEGIN DELETE FROM delta.`{root}/instance`; END",
    "ADD JAR '/tmp/a.jar'",
    "FROM instance INSERT INTO instance SELECT *",
    "WITH s AS (SELECT * FROM instance) INSERT INTO instance SELECT * FROM s",
    "EXPLAIN ANALYZE DELETE FROM instance",
    "SELECT transform(*) USING 'touch {folder}' FROM instance",
    # In a time that is computed while the text is looked at; more such places are in test_query.py.
    "SELECT * FROM delta.`{root}/instance` TIMESTAMP AS OF (SELECT transform(1) USING 'touch {folder}' AS (a))",
    "SELECT * FROM delta.`{root}/instance` TIMESTAMP AS OF (SELECT max(patientName) FROM instance)",
    "EXPLAIN SELECT * FROM delta.`{root}/instance` TIMESTAMP AS OF (SELECT max(patientName) FROM instance)",
    "EXPLAIN DELETE FROM delta.`{root}/instance`",
    "DESCRIBE QUERY SELECT * FROM delta.`{root}/instance` TIMESTAMP AS OF (SELECT max(patientName) FROM instance)",
    "SELECT java_method('java.lang.System', 'setProperty', 'dicom-etl', 'was here')",
    "SELECT IDENTIFIER('ref' || 'lect')('java.lang.System', 'lineSeparator')",
    "SELECT upper(reflect('java.lang.System', 'getenv', 'HOME')) FROM instance",
    "SELECT max(1) OVER w FROM instance WINDOW w AS (PARTITION BY reflect('java.lang.System', 'lineSeparator'))",
    "WITH t AS (SELECT 1 WHERE EXISTS (SELECT reflect('java.lang.System', 'lineSeparator'))) SELECT * FROM t",
    "SELECT FROM WHERE",
    "SELECT * FROM no_such_table",
    "SELECT no_such_column FROM instance",
    "SELECT 1; SELECT 2",
    "",
]


@pytest.mark.parametrize("sql", WRITE)
def test_whatever_could_write_is_refused(story: Story, copy: Site, sql: str) -> None:
    """64 in one line, before anything runs; the tables have the versions they had."""
    versions = {name: copy.version(name) for name in ("instance", "change", "run")}
    folder = copy.folder / "written"
    statement = sql.format(root=copy.place("instance").removesuffix("/instance"), folder=folder)
    with (
        pytest.raises(UsageError, match=r"^query: ") as caught,
        answer(copy.settings, statement, spark=copy.spark) as rows,
    ):
        rows.collect()
    assert len(str(caught.value).splitlines()) == 1
    assert {name: copy.version(name) for name in versions} == versions
    assert not folder.exists()
    assert story.site.rows("run")


def test_answers_are_printed_as_asked(story: Story, command: Command) -> None:
    """A table, CSV and JSON; nulls, times in UTC, dates."""
    sql = (
        "SELECT sopInstanceUid, patientName, studyDate, lastModifiedTimestamp, sequence FROM instance "
        "WHERE studyInstanceUid IN ('1.2') ORDER BY sopInstanceUid"
    )
    code, out, err = command(story.site, "query", "--format", "csv", sql)
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        "sopInstanceUid,patientName,studyDate,lastModifiedTimestamp,sequence",
        "1.2.1.1,,,2024-05-01T08:00:10Z,11",
        "1.2.1.2,No^Longer^Empty,2024-01-31,2024-05-01T12:02:00Z,525",
        "1.2.1.3,Pädded^Ünïcode,,2024-05-01T08:00:12Z,13",
    ]
    _, out, _ = command(story.site, "query", "--format", "json", sql)
    assert json.loads(out.splitlines()[1]) == {
        "sopInstanceUid": "1.2.1.2", "patientName": "No^Longer^Empty", "studyDate": "2024-01-31",
        "lastModifiedTimestamp": "2024-05-01T12:02:00Z", "sequence": 525,
    }  # fmt: skip
    _, out, _ = command(story.site, "query", sql)
    assert [line.split()[0] for line in out.splitlines() if line.startswith("1.")] == ["1.2.1.1", "1.2.1.2", "1.2.1.3"]


def test_the_status_of_a_lake(story: Story, command: Command) -> None:
    """Lag, windows due, pace and errors by the ledger alone; --max-lag exits with 1 when it is behind."""
    found = status(story.site.settings, clock=lambda: at(17.5))
    assert (found.covered_until, found.lag_seconds, found.windows_due) == (ticks_at(14), 3.5 * 3600, 3)
    assert (found.open_rejects, found.last_error, len(found.last_runs)) == (0, None, 4)
    behind = status(story.site.settings, clock=lambda: at(14))
    assert (behind.lag_seconds, behind.windows_due, behind.eta_seconds) == (0, 0, 0)

    code, out, err = command(story.site, "status", "--json", "--max-lag", "3h")
    assert (code, err) == (1, "the tables are further behind than 3h: see lastError and windowsDue")
    assert set(json.loads(out)) == {
        "coveredUntil", "lagSeconds", "windowsDue", "entriesPerSecond", "eta", "openRejects", "lastError",
        "lastErrorAt", "writer", "writerState",
    }  # fmt: skip
    assert json.loads(out)["coveredUntil"] == "2024-05-01T14:00:00Z"
    years = f"{timedelta(days=365 * 100).days}d"
    assert command(story.site, "status", "--max-lag", years)[0] == 0
    code, out, err = command(story.site, "status", "--max-lag", "often")
    assert (code, out) == (64, "")
    assert err.startswith("--max-lag: expected a duration")


def test_the_ledger_is_printed(story: Story, command: Command) -> None:
    """One JSON object a run, with the columns of the table."""
    code, out, _ = command(story.site, "runs", "--json")
    rows = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert [(row["runId"], row["entriesRead"], row["windowStart"]) for row in rows] == [
        (1, 35, "2024-05-01T00:00:00Z"),
        (2, 22, "2024-05-01T11:00:00Z"),
        (4, 35, "2024-05-01T00:00:00Z"),
        (5, 0, "2024-05-01T13:00:00Z"),
    ]
    assert list(rows[0]) == story.site.opened("run").to_pyarrow_dataset().schema.names
