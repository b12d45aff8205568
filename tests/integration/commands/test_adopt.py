"""Adoption: the template's tables become ours, are continued, and one repair makes them equal to the service."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from deltalake import DeltaTable

from dicom_etl.commands.repair.repair import repair
from dicom_etl.commands.sync import planned, sync
from dicom_etl.commands.sync_request import request
from dicom_etl.commands.verify.verify import verify
from dicom_etl.core.errors import DataError
from dicom_etl.lake.ledger import Run
from dicom_etl.tables import adoption
from support.site import SECOND, Site, at, table_rows, text_at, ticks_at
from support.story import NoSpark
from support.template import SCHEMAS, write_template_table

pytestmark = pytest.mark.soak  # each sync, repair and rebuild costs seconds of Spark

P = "Microsoft.Default"
TABLES = ("instance", "series", "study")


def adopted(site: Site, hour: float, spark: Any = None) -> list[Run]:
    wanted = request(None, None, None, None, adopt=True)
    return list(sync(site.settings, wanted, spark=spark or site.spark, clock=lambda: at(hour), sleep=lambda _: None))


def row(study: str, sop: str | None = None, partition: str | None = P, **more: Any) -> dict[str, Any]:
    """A row of any of the three tables, times cut to milliseconds as the template cuts them."""
    return {
        "partitionName": partition,
        "studyInstanceUid": study,
        "seriesInstanceUid": f"{study}.1",
        "sopInstanceUid": sop,
        "lastModifiedTimestamp": datetime(2024, 5, 1, 8, 0, 0, 123_000, UTC),
        **more,
    }


def template_lake(site: Site) -> None:
    """What the template had made of the first hour: right rows, null partitions and times, ghosts on three levels."""
    write_template_table(
        site.root,
        "instance",
        [
            row("1.1", "1.1.1.1", patientName="One", modality="CT"),
            row("1.1", "1.1.1.2", lastModifiedTimestamp=None, patientName="One"),
            row("1.2", "1.2.1.1", partition=None, patientName="Two"),
            # Created and deleted before the template read it: a row of nulls (defect 3).
            row("1.3", "1.3.1.1"),
            # Never was in this feed.
            row("1.4", "1.4.1.1", patientName="Stranger"),
        ],
    )
    write_template_table(
        site.root,
        "series",
        [
            row("1.1", patientName="One", modality="CT", instanceCount=2),
            row("1.2", partition=None, patientName="Two", instanceCount=1),
            row("1.2", partition=None, patientName="Two again", instanceCount=1),
            row("1.8", patientName="Ghost", instanceCount=4),
        ],
    )
    write_template_table(
        site.root, "study", [row("1.1", seriesCount=1, instanceCount=6), row("1.8", seriesCount=1, instanceCount=4)]
    )


def events(site: Site) -> None:
    for number in ("1", "2"):
        site.create("1.1", "1.1.1", f"1.1.1.{number}", name="One", modality="CT", date="20240101")
    site.create("1.2", "1.2.1", "1.2.1.1", name="Two", modality="MR")
    site.create("1.3", "1.3.1", "1.3.1.1", name="Three")
    site.service.delete(P, "1.3")
    site.create("1.5", "1.5.1", "1.5.1.1", name="Missed^By^The^Template")
    site.service.clock.freeze(at(9.5), step=SECOND)
    site.update("1.1", "1.1.1", "1.1.1.1", name="One^New", modality="CT", date="20240101")
    site.create("1.6", "1.6.1", "1.6.1.1", name="Six")
    site.clock(11)


def test_the_templates_lake_is_adopted_continued_and_repaired(make_site: Callable[..., Site]) -> None:
    """Without the flag 65; with it our columns and properties, no ghosts above, windows from feed.start; then equal."""
    site = make_site(f"feed.start={text_at(9)}")
    events(site)
    template_lake(site)
    before = {name: site.version(name) for name in TABLES}
    with pytest.raises(DataError, match="sync --adopt"):
        site.sync(spark=NoSpark())
    assert {name: site.version(name) for name in TABLES} == before
    assert sorted(path.name for path in site.root.iterdir() if not path.name.startswith("_")) == sorted(TABLES)

    taken, run = adopted(site, 11)
    assert (taken.verb, taken.covers, taken.window_start) == ("adopt", False, None)
    assert (run.window_start, run.window_end, run.inserted, run.updated) == (ticks_at(9), ticks_at(10), 1, 1)
    instances = site.rows("instance")
    assert len(instances) == 6
    assert {r["partitionName"] for r in instances} == {P}
    assert {r["sopInstanceUid"]: r["sequence"] for r in instances} == {
        "1.1.1.1": 7, "1.1.1.2": None, "1.2.1.1": None, "1.3.1.1": None, "1.4.1.1": None, "1.6.1.1": 8,
    }  # fmt: skip
    assert {r["studyInstanceUid"]: r["instanceCount"] for r in site.rows("study")} == {
        "1.1": 2, "1.2": 1, "1.3": 1, "1.4": 1, "1.6": 1,
    }  # fmt: skip
    assert {r["seriesInstanceUid"] for r in site.rows("series")} == {"1.1.1", "1.2.1", "1.3.1", "1.4.1", "1.6.1"}
    for name in TABLES:
        about = DeltaTable(site.root / name).metadata()
        assert about.partition_columns == ["partitionName"]
        assert about.configuration["dicomEtl.adopted"] == "true"
        assert about.configuration["delta.dataSkippingStatsColumns"].startswith("studyInstanceUid")
        assert "Name" not in about.configuration["delta.dataSkippingStatsColumns"]
    # Ours now: the flag changes nothing any more.
    assert adopted(site, 11, NoSpark()) == []

    found = verify(site.settings, spark=site.spark, clock=lambda: at(11))
    assert {(d.kind, d.key[-1]) for d in found.differences if d.table == "instance"} == {
        ("sequence", "1.1.1.2"), ("sequence", "1.2.1.1"), ("extra", "1.3.1.1"), ("extra", "1.4.1.1"),
        ("missing", "1.5.1.1"),
    }  # fmt: skip
    done = repair(site.settings, spark=site.spark, clock=lambda: at(11))
    assert done.equal
    assert (done.run.inserted, done.run.updated, done.run.deleted, done.run.entries_read) == (1, 2, 2, 5)
    assert site.tables() == site.expected()
    assert verify(site.settings, metadata=True, spark=site.spark, clock=lambda: at(11)).equal

    # A table that has vanished takes its mark along; the ledger still says that older instances belong to the lake.
    for name in TABLES:
        shutil.rmtree(site.root / name)
    assert repair(site.settings, spark=site.spark, clock=lambda: at(11), rebuild=True).equal
    assert site.tables() == site.expected()


def test_doubles_are_refused_before_anything_is_written(make_site: Callable[..., Site]) -> None:
    """65 for a key that stands twice, by a null partition too; and a crash between is taken up again."""
    site = make_site()
    events(site)
    template_lake(site)
    write_template_table(site.root, "instance", [row("1.2", "1.2.1.1", patientName="Twice")])
    before = {name: (site.version(name), table_rows(site.root / name)) for name in TABLES}
    with pytest.raises(DataError, match="holds 1 keys more than once"):
        adopted(site, 11)
    assert {name: (site.version(name), table_rows(site.root / name)) for name in TABLES} == before
    assert not (site.root / "run").exists()
    assert not (site.root / "change").exists()


def test_what_a_crash_leaves_is_taken_up(make_site: Callable[..., Site], monkeypatch: pytest.MonkeyPatch) -> None:
    """Between instance and the others: refused without the flag, finished with it."""
    from dicom_etl.commands import adopt
    from dicom_etl.core.errors import StorageError

    site = make_site()
    events(site)
    template_lake(site)

    def broken(*_: Any, **__: Any) -> int:
        raise StorageError("series: it broke")

    with monkeypatch.context() as patched:
        patched.setattr(adopt, "replace_with", broken)
        with pytest.raises(StorageError, match="it broke"):
            adopted(site, 11)
    assert [row["errorClass"] for row in site.ledger()] == ["StorageError"]
    with pytest.raises(DataError, match="series was not made by dicom-etl"):
        site.sync(spark=NoSpark())
    runs = adopted(site, 11)
    assert [run.verb for run in runs] == ["adopt", "sync"]
    # The whole feed was read: what is left over is what never was in it.
    assert len(site.rows("instance")) == len(site.expected()["instance"]) + 1
    assert {r["sopInstanceUid"] for r in site.rows("instance") if r["sequence"] is None} == {"1.4.1.1"}


def test_other_tables_are_not_adopted(make_site: Callable[..., Site]) -> None:
    """65 for strange columns or types, before Spark is started; a plan needs no claim."""
    import pyarrow as pa
    from deltalake import write_deltalake

    site = make_site()
    site.clock(11)
    template_lake(site)
    assert len(planned(site.settings, request(None, None, None, None, adopt=True), clock=lambda: at(11))) == 1
    write_deltalake(
        site.root / "study",
        pa.table({"partitionName": ["p"], "studyInstanceUid": ["1"], "more": [1], "instanceCount": ["4"]}),
        mode="overwrite",
        schema_mode="overwrite",
    )
    with pytest.raises(DataError, match=r"study is not what the Data Factory template writes.* instanceCount, more"):
        adopted(site, 11, NoSpark())


@pytest.mark.parametrize("name", TABLES)
def test_the_templates_columns_fit(name: str, tmp_path: Path) -> None:
    """Each of the three, by its schema; a part of the key must not be missing."""
    from dicom_etl.commands.adopt import _columns
    from dicom_etl.tables.schema import INSTANCE, SERIES, STUDY

    table = {"instance": INSTANCE, "series": SERIES, "study": STUDY}[name]
    write_template_table(tmp_path, name, [row("1")])
    columns = _columns(DeltaTable(tmp_path / name))
    assert list(columns) == SCHEMAS[name].names
    assert adoption.incompatible_columns(table, columns) == []
    assert adoption.incompatible_columns(table, {**columns, "odd": "string"}) == ["odd"]
    columns.pop("studyInstanceUid")
    assert adoption.incompatible_columns(table, columns) == ["studyInstanceUid"]
