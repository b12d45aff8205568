"""The output `columns`: what its tables hold, how they follow, and who can read them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import polars
import pytest
from deltalake import DeltaTable

from dicom_etl.commands.columns.choose import add
from dicom_etl.commands.columns.update import update
from dicom_etl.commands.maintain import maintain
from dicom_etl.commands.repair.repair import repair
from dicom_etl.core.errors import DataError
from dicom_etl.lake.open import existing_lake
from dicom_etl.outputs.execution import Counts, Execution, executions, open_executions
from dicom_etl.outputs.state import outputs
from support import following
from support.following import synced
from support.oracle import Tables
from support.site import Site, at, text_at
from support.story import NoSpark

TABLES = ("instance_tags", "series_tags", "study_tags")


def columns_updated(site: Site, *, spark: Any = None, **how: Any) -> Execution | None:
    return update(site.settings, spark=spark or site.spark, **how)


def what_is_expected(site: Site) -> Tables:
    tags = following.tags_of(site.expected(), following.created_sequences(site.feed(0, 24)))
    assert min(map(len, tags.values())) > 1
    return tags


def assert_equal(site: Site) -> None:
    """The tag tables equal what the oracle makes of the living instances."""
    tags = what_is_expected(site)
    stored = following.stored_tags(site, tags)
    for name in TABLES:
        assert stored[name] == tags[name], name


def test_the_tag_tables_equal_the_headers_of_the_living_instances(copy: Site) -> None:
    """Of the whole story at once: creates of every kind, updates, deletes and re-creates."""
    site = copy.having(*following.SETTINGS)
    done = columns_updated(site)
    assert done is not None
    assert (done.mode, done.counts) == ("full", Counts(touched=26, written=26))
    assert_equal(site)
    assert columns_updated(site, spark=NoSpark()) is None, "nothing is due, and Spark is not asked"
    _others_read(site)
    # A table that is gone, as by an unmounted folder, is computed again with the others.
    shutil.rmtree(site.root / "series_tags")
    again = columns_updated(site)
    assert again is not None
    assert (again.mode, again.counts) == ("full", Counts(touched=26, unchanged=26))
    assert_equal(site)


def _others_read(site: Site) -> None:
    """delta-rs, Polars and DuckDB read the tables; nothing of a patient stands in the statistics of their logs."""
    path = str(site.root / "instance_tags")
    table = DeltaTable(path)
    assert table.protocol().min_reader_version == 1
    bounds = {name for name in table.get_add_actions(flatten=True).schema.names if str(name).startswith("min.")}
    assert bounds == {
        "min.partitionName", "min.studyInstanceUid", "min.seriesInstanceUid", "min.sopInstanceUid", "min.sequence",
        "min.lastModifiedTimestamp", "min.studyDate",
    }  # fmt: skip
    rows = polars.read_delta(path).filter(polars.col("modality") == "MR")
    found = duckdb.from_arrow(table.to_pyarrow_table()).filter("modality = 'MR'")
    assert rows.height == len(found) > 0


def test_an_execution_follows_what_runs_have_touched(make_site: Any) -> None:
    """By sync itself (outputs.after_sync); what a repair changed without an entry is found by comparison."""
    site = make_site(*following.SETTINGS, 'outputs.after_sync=["columns"]')
    for number in range(4):
        site.create("1.1", "1.1.1", f"1.1.1.{number}", name="A", modality="CT", date="20240101")
    site.create("1.2", "1.2.1", "1.2.1.1", name="B", modality="MR")
    synced(site, 10)
    site.update("1.1", "1.1.1", "1.1.1.0", name="C", modality="CT", date="20240101")
    site.service.delete("Microsoft.Default", "1.1", "1.1.1", "1.1.1.1")
    synced(site, 12)
    synced(site, 12.5, start=text_at(10), end=text_at(11))  # the same range again
    synced(site, 13.5)  # an empty window
    rows = executions(open_executions(columns_lake(site)))
    assert [(one.mode, one.status, one.counts) for one in rows] == [
        ("full", "succeeded", Counts(touched=5, written=5)),
        ("changed", "succeeded", Counts(touched=2, written=1, withdrawn=1)),
        ("changed", "succeeded", Counts(touched=2, unchanged=2)),
        ("changed", "succeeded", Counts()),
    ]
    assert_equal(site)
    repair(site.settings, spark=site.spark, clock=lambda: at(14))
    compared = columns_updated(site)
    assert compared is not None
    assert (compared.mode, compared.counts) == ("compare", Counts())
    assert_equal(site)
    (state,) = outputs(site.settings)
    assert (state.runs_behind, state.failed, state.holds_purge) == (0, None, False)


def test_a_failure_before_the_execution_begins_is_recorded(
    make_site: Any, command: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    """A damaged tag table fails the sync's output: 65, a failed row, the metric; moved away, it is made again."""
    metrics = tmp_path / "dicom_etl.prom"
    site = make_site(*following.SETTINGS, 'outputs.after_sync=["columns"]', f"metrics.prometheus_file={metrics}")
    site.create("1.1", "1.1.1", "1.1.1.1", name="A", modality="CT", date="20240101")
    synced(site, 10)
    assert len(site.rows("instance_tags")) == 1
    (log,) = (site.root / "instance_tags" / "_delta_log").glob("*0.json")
    log.write_text("garbage")
    site.create("1.1", "1.1.1", "1.1.1.2", name="A", modality="CT", date="20240101")
    site.clock(12)
    code, _, err = command(site, "sync")
    assert code == 65
    remedy = "move its folder away, and dicom-etl columns update makes it again"
    assert f"instance_tags: its _delta_log cannot be read; {remedy}" in err
    rows = executions(open_executions(columns_lake(site)))
    assert [(one.execution_id, one.status, one.error_class) for one in rows] == [
        (1, "succeeded", None),
        (2, "failed", "DataError"),
    ]
    assert 'dicom_etl_output_failing{output="columns"} 1' in metrics.read_text()
    (state,) = outputs(site.settings)
    assert (state.failed, state.runs_behind) == ("DataError", 1)
    with pytest.raises(DataError, match=remedy):
        columns_updated(site)
    assert executions(open_executions(columns_lake(site)))[-1].execution_id == 3
    shutil.move(site.root / "instance_tags", tmp_path / "aside")
    assert columns_updated(site) is not None
    assert len(site.rows("instance_tags")) == 2
    assert outputs(site.settings)[0].failed is None


def test_a_new_column_is_filled_from_the_lake_alone(make_site: Any) -> None:
    """Also after a purge, which keeps the headers of living instances unless it is told not to."""
    site = make_site(*following.SETTINGS, "maintenance.change_retention_days=1", "feed.look_back=0s")
    document = {"00180060": {"vr": "DS", "Value": [120.0]}, "00080060": {"vr": "CS", "Value": ["CT"]}}
    site.create("1.1", "1.1.1", "1.1.1.1", document=document)
    site.create("1.2", "1.2.1", "1.2.1.1", document=document)
    synced(site, 10)
    site.service.update(("Microsoft.Default", "1.1", "1.1.1", "1.1.1.1"), document)
    synced(site, 24 * 3)
    columns_updated(site)
    assert len(site.rows("change")) == 3
    list(maintain(site.settings, spark=site.spark, clock=lambda: at(24 * 9)))
    assert len(site.rows("change")) == 2, "the entry that the update has superseded is purged"
    add(site.settings, ["KVP"])
    site.service.requests.clear()
    followed = columns_updated(site)
    assert followed is not None
    assert "kvp" not in site.rows("instance_tags")[0], "an update follows runs, and leaves the tags as they are"
    done = columns_updated(site, extent="backfill")
    assert done is not None
    assert (done.mode, done.counts.touched) == ("full", 2)
    assert [row["kvp"] for row in site.rows("instance_tags")] == [120.0, 120.0]
    assert site.service.requests.all() == []


def test_a_query_says_where_the_tag_tables_are_behind_and_which_run_they_equal(make_site: Any, command: Any) -> None:
    """Behind a run that changed rows, not behind one that read nothing; --run and export name the run to give."""
    site = make_site()
    sql = "SELECT count(*) AS n FROM instance_tags"
    site.create("1.1", "1.1.1", "1.1.1.1", modality="CT")
    synced(site, 10)
    columns_updated(site)
    assert command(site, "query", "--format", "csv", sql) == (0, "n\n1\n", "")
    site.create("1.2", "1.2.1", "1.2.1.1", modality="CT")
    synced(site, 12)
    behind = "instance_tags is 1 run behind: dicom-etl columns update"
    assert command(site, "query", "--format", "csv", sql) == (0, "n\n1\n", behind)
    assert command(site, "query", "--format", "csv", "SELECT count(*) AS n FROM instance") == (0, "n\n2\n", "")
    assert command(site, "query", "--run", "1", "--format", "csv", sql) == (0, "n\n1\n", "")
    code, out, said = command(site, "query", "--run", "2", sql)
    assert (code, out) == (64, "")
    assert "`instance_tags` (the tag tables equal run 1, not run 2: dicom-etl columns update, or --run 1);" in said
    synced(site, 13.5)  # an empty window
    columns_updated(site)
    synced(site, 14.5)  # another
    assert sorted(row["runId"] for row in site.rows("run")) == [1, 2, 3, 4]
    assert command(site, "query", "--format", "csv", sql) == (0, "n\n2\n", ""), "run 4 changed no row"
    for run in ("2", "3", "4"):
        assert command(site, "query", "--run", run, "--format", "csv", sql) == (0, "n\n2\n", ""), "as in run 3"


def columns_lake(site: Site) -> Any:
    return existing_lake(site.settings).lake


@pytest.mark.soak
def test_tag_tables_in_another_root(make_site: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    """columns.root: rights of their own."""
    root = tmp_path_factory.mktemp("tags")
    site = make_site(*following.SETTINGS, f"columns.root={root}")
    site.create("1.1", "1.1.1", "1.1.1.1", name="A", modality="CT")
    synced(site, 10)
    columns_updated(site)
    assert {path.name for path in root.iterdir()} == {*TABLES, "header_quality"}
    assert not (site.root / "instance_tags").exists()
