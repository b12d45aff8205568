"""What a run left, read again later: by `query --run`, by the view `header`, by `changes` and by `export`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pyspark
import pytest

from dicom_etl.commands.query import answer, open_tables
from dicom_etl.core.attributes import INSTANCE_KEY
from dicom_etl.core.errors import DataError, UsageError
from dicom_etl.core.reasons import UID_CHANGED
from dicom_etl.lake.past import When
from dicom_etl.lake.rejected import Reject, append_rejects
from dicom_etl.tables.changes import COLUMNS
from dicom_etl.tables.compact import purge_changes
from dicom_etl.tables.header import headers
from support.site import Site, ticks_at
from support.story import Story

Command = Callable[..., tuple[int, str, str]]
CT_SOP = "1.3.6.1.4.1.5962.1.1.1.1.1.20040119072730.12322"
COUNTS = (
    "SELECT (SELECT count(*) FROM instance) i, (SELECT count(*) FROM series) s, (SELECT count(*) FROM study) t, "
    "(SELECT max(runId) FROM change) c, (SELECT max(runId) FROM run) r"
)


def remove_versions(site: Site, *tables: str) -> None:
    """Remove the files that only old versions need, as vacuum does."""
    for name in tables:
        kept = {path.rpartition("/")[2] for path in site.files(name)}
        old = [
            path
            for path in (site.root / name).rglob("*.parquet")
            if path.name not in kept and "_delta_log" not in path.parts
        ]
        assert old
        for path in old:
            path.unlink()


def test_a_run_is_asked_for_again(story: Story, copy: Site, command: Command) -> None:
    """All views are as the run left them, `header` has one row a living instance, and a vacuumed run says so."""
    first, second = (story.chapters[name].runs[-1] for name in ("first", "second"))
    assert (first.run_id, second.run_id, len(copy.rows("change"))) == (1, 2, 92)
    sizes = ",".join(str(len(story.chapters["first"].tables[name])) for name in ("series", "study"))
    assert sizes != ",".join(str(len(story.chapters["second"].tables[name])) for name in ("series", "study"))
    code, out, err = command(copy, "query", "--run", "1", "--format", "csv", COUNTS)
    assert (code, err, out.splitlines()) == (0, "", ["i,s,t,c,r", f"33,{sizes},1,1"])
    with open_tables(copy.settings, When(as_of=ticks_at(14.5)), spark=copy.spark) as tables:
        assert tables.run is not None
        assert tables.run.run_id == 4, "the last of those that had ended by then"
        with tables.answer("SELECT count(*), count(DISTINCT sequence), count(metadata) FROM header") as rows:
            assert tuple(rows.collect()[0]) == (26, 26, 26), "run 4 read the entries of run 1 again"
    sql = "SELECT get_json_object(metadata, '$.00100010.Value[0].Alphabetic') = patientName AS same FROM header"
    with answer(copy.settings, sql, spark=copy.spark) as rows:
        same = [row["same"] for row in rows.where("same IS NOT NULL").collect()]
    adopted = (
        copy.spark.read.format("delta").load(copy.place("instance")).selectExpr("*", "1 AS Metadata", "2 AS runId")
    )
    found = headers(adopted, copy.spark.read.format("delta").load(copy.place("change")))
    assert (found.columns.count("runId"), "Metadata" in found.columns) == (1, False), "a column of the table's own"
    assert found.where("runId IS NOT NULL").count() == 26
    assert len(same) > 20
    assert all(same), "the header is the one that the row was made from"
    for when in (When(run_id=3), When(as_of=ticks_at(11))):
        with pytest.raises(UsageError, match="dicom-etl runs lists them"), answer(copy.settings, COUNTS, when):
            pass
    remove_versions(copy, "instance")
    with pytest.raises(DataError, match=r"^the tables as run 1 left them are gone"):
        answer(copy.settings, COUNTS, When(run_id=1), spark=copy.spark).__enter__()
    assert json.loads(command(copy, "query", "--format", "json", COUNTS)[1])["i"] == 26


def keys(rows: list[dict[str, Any]], action: str) -> set[tuple[str, ...]]:
    return {(row["sopInstanceUid"], str(row["sequence"])) for row in rows if row["action"] == action}


def reject_later(site: Site) -> None:
    """Run 3 finds an entry that run 2 merged on a bad page; run 9, after what is asked for, voids another's key."""
    one, other = [row for row in site.rows("change") if (row["runId"], row["state"]) == (2, "Current")][:2]
    for run_id, row, reason, status in ((3, one, "metadata-missing", "open"), (9, other, UID_CHANGED, "void")):
        key = [row[name] for name in INSTANCE_KEY]
        reject = Reject(run_id, row["sequence"], row["timestamp"], *key, reason, status, row["timestamp"])  # type: ignore[arg-type]
        append_rejects(site.opened("rejected"), [reject], app_id="later/rejected", run_id=run_id, details={})


def test_what_two_runs_left_differently(story: Story, copy: Site, command: Command) -> None:
    """By the versions, and by the entries alone when these are gone: the same keys; else 65, and no answer."""
    was, now = (copy.stored_instances(story.chapters[name].runs[-1].instance_version) for name in ("first", "second"))
    expected = {
        "inserted": {(key[3], str(row["sequence"])) for key, row in now.items() if key not in was},
        "deleted": {(key[3], str(row["sequence"])) for key, row in was.items() if key not in now},
        "updated": {
            (key[3], str(row["sequence"]))
            for key, row in now.items()
            if key in was and was[key]["sequence"] != row["sequence"]
        },
    }
    assert expected["inserted"] == {("1.5.1.2", "522"), ("1.7.2.9", "541"), ("1.8.1.1", "542")}
    assert {name: len(found) for name, found in expected.items()} == {"inserted": 3, "deleted": 10, "updated": 5}
    code, out, err = command(copy, "changes", "--since", "1", "--format", "json")
    rows = [json.loads(line) for line in out.splitlines()]
    assert (code, err, len(rows)) == (0, "", sum(len(found) for found in expected.values()))
    assert list(rows[0]) == list(COLUMNS)
    assert {name: keys(rows, name) for name in expected} == expected
    code, out, _ = command(copy, "changes", "--since", "1", "--table", "study", "--format", "csv")
    assert (code, out.splitlines()[1]) == (0, "study,updated,Microsoft.Default,1.1,,,")
    assert command(copy, "changes", "--since", "2", "--until", "4", "--format", "csv")[1].count("\n") == 1
    remove_versions(copy, "instance", "study")
    reject_later(copy)
    code, out, err = command(copy, "changes", "--since", "1", "--until", "4", "--format", "json")
    assert (code, err, [json.loads(line) for line in out.splitlines()]) == (0, "", rows)
    code, out, err = command(copy, "changes", "--since", "1", "--table", "study")
    assert (code, out) == (65, "")
    assert "ask for --table instance" in err
    # Without its first entries, what run 1 left of those that run 2 updated is not known.
    purge_changes(copy.spark, copy.place("change"), 1, 0)
    code, out, err = command(copy, "changes", "--since", "1")
    assert (code, out) == (65, "")
    assert err.endswith("it is not known what run 1 left; name later runs")


def test_an_export_can_be_checked_later(story: Story, copy: Site, command: Command) -> None:
    """Rows, files and manifest, for their owner only; what changed since is seen; the log says nothing of patients."""
    folder = copy.folder / "cohort"
    sql = "SELECT sopInstanceUid, patientName, filePath, lastModifiedTimestamp FROM instance WHERE modality = 'CT'"
    rows = [row for row in copy.rows("instance") if row["modality"] == "CT"]
    files = copy.having(f"files.root={story.site.folder / 'files'}")
    assert len(rows) == 5
    code, out, err = command(files, "export", sql, "--to", str(folder), "--json")
    assert (code, err, json.loads(out)["rowCount"]) == (0, "", len(rows))
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["statement"] == sql
    assert manifest["versions"] == {name: copy.version(name) for name in ("instance", "series", "study")}
    assert (manifest["runId"], len(manifest["lakeId"]), manifest["software"]["pyspark"]) == (5, 36, pyspark.__version__)
    written = pq.read_table(folder / "rows.parquet")
    assert sorted(written.column("patientName").to_pylist(), key=str) == sorted(
        (r["patientName"] for r in rows), key=str
    )
    assert {path.stat().st_mode & 0o777 for path in folder.rglob("*") if path.is_file()} == {0o600}
    assert folder.stat().st_mode & 0o777 == 0o700
    assert json.loads(command(files, "export", "--verify", str(folder), "--json")[1]) == {
        "equalFiles": 1, "changedFiles": [], "missingFiles": [], "unexpectedFiles": [],
        "versions": "readable", "rows": "equal", "statement": sql,
        "manifestSha256": hashlib.sha256((folder / "manifest.json").read_bytes()).hexdigest(),
    }  # fmt: skip
    check_files(files, command)
    assert command(files, "export", sql, "--to", str(folder))[2].startswith("--to: the folder is not empty")
    (folder / "rows.parquet").write_bytes(b"other")
    (folder / "more").touch()
    remove_versions(copy, "instance")
    code, out, err = command(files, "export", "--verify", str(folder), "--json")
    found = json.loads(out)
    assert (code, err) == (65, "the export is not what it was: see what differs")
    assert (found["changedFiles"], found["unexpectedFiles"], found["equalFiles"]) == (["rows.parquet"], ["more"], 0)
    assert found["versions"] == "readable", "run 5 left the newest version"
    nothing = copy.folder / "nothing"
    words = ("SELECT patientId FROM study WHERE false", "--to", str(nothing), "--format", "csv")
    assert command(files, "export", *words)[0] == 0
    assert (nothing / "rows.csv").read_text() == "patientId\n"


def check_files(files: Site, command: Command) -> None:
    """With --files the file of the CT comes along; when it is not there, nothing of the export is left."""
    sql = f"SELECT filePath FROM instance WHERE sopInstanceUid = '{CT_SOP}'"  # noqa: S608
    folder, broken = files.folder / "scans", files.folder / "broken"
    code, _, err = command(files, "export", sql, "--to", str(folder), "--files")
    assert (code, err) == (0, "")
    (copied,) = json.loads((folder / "manifest.json").read_text())["files"]
    stored = Path(files.settings.files.root) / copied["path"].removeprefix("files/")
    assert (folder / copied["path"]).read_bytes() == stored.read_bytes()
    assert copied["sha256"] == hashlib.sha256(stored.read_bytes()).hexdigest()
    elsewhere = files.having(f"files.root={files.folder / 'nowhere'}")
    code, out, err = command(elsewhere, "export", sql, "--to", str(broken), "--files")
    assert (code, out) == (65, "")
    assert err.startswith("1 of 1 files are not there")
    assert command(files, "export", "SELECT 1 AS n", "--to", str(broken), "--files")[0] == 64
    sql += " UNION ALL SELECT NULL"
    code, _, err = command(files, "export", sql, "--to", str(broken), "--files")
    assert (code, err.startswith("1 of 2 rows have no filePath: add WHERE filePath IS NOT NULL")) == (65, True)
    assert [path.name for path in files.folder.iterdir() if "broken" in path.name] == []
