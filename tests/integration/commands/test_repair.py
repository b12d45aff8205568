"""Repair: it mends what verify finds and what changes of UIDs left, or builds the tables anew into place."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from delta.tables import DeltaTable
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from dicom_emulator.state.uids import instance_key
from dicom_emulator.testing.faults import Fault
from dicom_etl.commands.repair.repair import repair
from dicom_etl.commands.repair.reread import Repaired
from dicom_etl.commands.verify.verify import verify
from dicom_etl.core.errors import AnotherWriter, StorageError
from dicom_etl.core.timerange import Window
from dicom_etl.lake import ledger
from dicom_etl.lake.claims.claim import claim
from dicom_etl.lake.ledger import Run
from dicom_etl.run import replace, roll_up
from dicom_etl.tables import fold as changes
from support.site import SECOND, Site, at, metadata, text_at, ticks_at
from support.story import NoSpark

pytestmark = pytest.mark.soak  # each sync, repair and rebuild costs seconds of Spark

TABLES = ("instance", "series", "study")


def repaired(site: Site, hour: float, **how: Any) -> Repaired:
    done = repair(site.settings, spark=site.spark, clock=lambda: at(hour), **how)
    run = done.run
    assert run.entries_read == run.inserted + run.updated + run.deleted + run.superseded + run.rejected
    assert Run.from_row(site.ledger()[-1]) == run
    return done


def equal(site: Site, hour: float) -> bool:
    return verify(site.settings, metadata=True, spark=site.spark, clock=lambda: at(hour)).equal


def table(site: Site, name: str) -> DeltaTable:
    assert site.spark is not None
    return DeltaTable.forPath(site.spark, site.place(name))


def spoil(site: Site) -> None:
    """A row is missing, one strange, one of another sequence and one of another path; ghosts and gaps above."""
    instance = table(site, "instance")
    strange = instance.toDF().where("sopInstanceUid = '1.3.1.2'").withColumn("seriesInstanceUid", F.lit("9.9"))
    strange.write.format("delta").mode("append").save(site.place("instance"))
    instance.delete("sopInstanceUid = '1.7.2.1'")
    instance.update("sopInstanceUid = '1.7.2.2'", {"sequence": F.col("sequence") + 1000, "patientName": F.lit("Wrong")})
    instance.update("sopInstanceUid = '1.7.2.3'", {"filePath": F.lit("elsewhere")})
    ghost = table(site, "series").toDF().where("seriesInstanceUid = '1.8.1'")
    ghost = ghost.withColumn("seriesInstanceUid", F.lit("9.1"))
    ghost.write.format("delta").mode("append").save(site.place("series"))
    ghost = table(site, "study").toDF().where("studyInstanceUid = '1.8'").withColumn("studyInstanceUid", F.lit("9.2"))
    ghost.write.format("delta").mode("append").save(site.place("study"))
    table(site, "study").delete("studyInstanceUid = '1.2'")


def test_whatever_differs_is_mended(copy: Site, command: Callable[..., tuple[int, str, str]]) -> None:
    """Afterwards the tables equal the service; a second repair writes its row and nothing else."""
    spoil(copy)
    assert copy.tables() != copy.expected()
    done = repaired(copy, 15)
    assert copy.tables() == copy.expected()
    assert done.equal
    assert done.found["instance"] == 4
    assert (done.run.inserted, done.run.updated, done.run.deleted, done.run.superseded) == (1, 2, 1, 0)
    assert (done.run.verb, done.run.covers, done.voided, done.unlisted) == ("repair", False, 0, 0)

    versions = {name: copy.version(name) for name in (*TABLES, "change", "rejected")}
    code, out, _ = command(copy, "repair", "--json")
    printed = json.loads(out)
    assert (code, printed["equal"], printed["instanceDifferences"], printed["search"]) == (0, True, 0, "compared")
    assert {name: copy.version(name) for name in versions} == versions
    assert [row["verb"] for row in copy.ledger()][-2:] == ["repair", "repair"]
    assert status_of_coverage(copy) == [Window(ticks_at(0), ticks_at(14))]


def test_a_strange_key_that_stands_twice_is_taken_away(copy: Site) -> None:
    """Both rows count as read and deleted: the repair has done its work, and says so."""
    strange = table(copy, "instance").toDF().where("sopInstanceUid = '1.3.1.2'")
    strange = strange.withColumn("seriesInstanceUid", F.lit("9.9"))
    strange.unionByName(strange).write.format("delta").mode("append").save(copy.place("instance"))
    assert len(copy.rows("instance")) == len(copy.expected()["instance"]) + 2
    done = repaired(copy, 15)
    assert (done.equal, done.run.entries_read, done.run.deleted, done.run.superseded) == (True, 2, 2, 0)
    assert copy.tables() == copy.expected()


def status_of_coverage(site: Site) -> list[Window]:
    return ledger.covered(Run.from_row(row) for row in site.ledger())


def test_changed_uids_are_found_mended_and_stay_mended(
    make_site: Callable[..., Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The old key goes, also when its window is read again; a fold that forgets the void is caught; life goes on."""
    site = make_site()
    old, new = instance_key("1.1", "1.1.1", "1.1.1.1"), instance_key("1.9", "1.9.1", "1.9.1.1")
    site.create(*old[1:], name="Old^Uid", modality="CT")
    site.create("1.2", "1.2.1", "1.2.1.1", name="Stays", modality="MR")
    site.clock(9.5)
    site.sync()
    site.service.clock.freeze(at(9.6), step=SECOND)
    site.service.change_uids([(old, new, metadata(name="New^Uid", modality="CT"), None)])
    site.clock(11)
    site.sync()
    assert len(site.rows("instance")) == len(site.expected()["instance"]) + 1
    assert not equal(site, 11)

    done = repaired(site, 11)
    assert (done.equal, done.voided, done.run.deleted, done.run.entries_read) == (True, 1, 1, 1)
    assert site.tables() == site.expected()
    (void,) = site.rows("rejected")
    assert (void["sequence"], void["status"], void["reason"]) == (1, "void", "uid-changed")
    assert (void["studyInstanceUid"], void["sopInstanceUid"]) == ("1.1", "1.1.1.1")
    assert equal(site, 11)

    # The feed still shows the old row as it was: read again, it must not come back.
    (run,) = site.sync(start=text_at(0), end=text_at(9))
    assert (run.entries_read, run.updated, run.superseded) == (2, 0, 2)
    assert site.tables() == site.expected()
    with monkeypatch.context() as patched:
        patched.setattr(changes, "as_deleted", lambda last, _voids: last)
        site.sync(start=text_at(0), end=text_at(9))
    assert site.tables() != site.expected()
    # What a broken version brought back, the next reading takes away.
    (run,) = site.sync(start=text_at(0), end=text_at(9))
    assert (run.deleted, run.rejected) == (1, 0)
    assert site.tables() == site.expected()

    # The old UIDs may be used again.
    site.service.clock.freeze(at(11.5), step=SECOND)
    site.create(*old[1:], name="Used^Again")
    site.clock(13)
    (run,) = site.sync()
    assert run.inserted == 1
    assert site.tables() == site.expected()
    assert equal(site, 13)

    # Built anew, with all that is known.
    done = repaired(site, 13, rebuild=True)
    assert (done.equal, done.voided) == (True, 0)
    assert site.tables() == site.expected()


def never_empty(site: Site, name: str, since: int) -> bool:
    """Whether a reader found rows in each version from ``since`` on."""
    return all(site.rows(name, version) for version in range(since, site.version(name) + 1))


def test_the_tables_are_built_anew_into_place(copy: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """One commit a table, no empty one among them, a vanished folder and another schema included; it covers."""
    spoil(copy)
    shutil.rmtree(copy.root / "series")
    assert copy.spark is not None
    copy.spark.sql(f"ALTER TABLE delta.`{copy.place('study')}` ADD COLUMNS (somethingElse string)")
    before = {name: copy.version(name) for name in ("instance", "study")}
    done = repaired(copy, 15, rebuild=True)
    assert copy.tables() == copy.expected()
    assert {name: copy.version(name) for name in TABLES} == {
        "instance": before["instance"] + 1, "series": 0, "study": before["study"] + 1,
    }  # fmt: skip
    assert all(never_empty(copy, name, before.get(name, 0)) for name in TABLES)
    # 57 entries of the feed, and the row without an entry that went.
    assert (done.run.inserted, done.run.deleted, done.run.entries_read, done.equal) == (26, 1, 58, True)
    assert status_of_coverage(copy) == [Window(ticks_at(0), ticks_at(14.75))]
    lake_id = table(copy, "run").detail().collect()[0]["properties"]["dicomEtl.lakeId"]
    for name in TABLES:
        detail = table(copy, name).detail().collect()[0]
        assert (detail["clusteringColumns"], detail["minReaderVersion"]) == (["studyInstanceUid"], 1)
        assert detail["properties"]["dicomEtl.lakeId"] == lake_id
        assert "patientName" not in detail["properties"]["delta.dataSkippingStatsColumns"]
    # The next window merges as ever.
    assert copy.sync(start=text_at(11), end=text_at(13), now=at(15))[0].inserted == 0
    assert copy.tables() == copy.expected()

    # A rebuild that deletes first is caught.
    real = replace.replace_table

    def deleting_first(spark: SparkSession, what: Any, path: str, *rest: Any, **more: Any) -> int | None:
        DeltaTable.forPath(spark, path).delete()
        return real(spark, what, path, *rest, **more)

    before = {name: copy.version(name) for name in TABLES}
    with monkeypatch.context() as patched:
        patched.setattr(replace, "replace_table", deleting_first)
        repaired(copy, 15, rebuild=True)
    assert not any(never_empty(copy, name, before[name]) for name in TABLES)


def test_what_cannot_be_read_stays_different_and_a_dead_repair_is_healed(
    make_site: Callable[..., Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A poisoned entry is rejected and said; a repair that died between its MERGEs is finished by the next run."""
    site = make_site()
    for sop in ("1", "2"):
        site.create("1.1", "1.1.1", f"1.1.1.{sop}", name=f"N{sop}")
    site.create("1.2", "1.2.1", "1.2.1.1", name="Other")
    site.clock(10)
    site.sync()
    table(site, "instance").delete("studyInstanceUid = '1.1'")
    poison = site.service.faults.add(Fault(sequences=(2,)))
    done = repaired(site, 10)
    assert (done.equal, done.left, done.run.inserted, done.run.rejected) == (
        False, {"instance": 1, "series": 0, "study": 0}, 1, 1,
    )  # fmt: skip
    assert [row["instanceCount"] for row in site.rows("study") if row["studyInstanceUid"] == "1.1"] == [1]

    site.service.faults.clear()
    assert poison.hits > 0

    def broken(*_: Any, **__: Any) -> None:
        raise StorageError("series: it broke")

    with monkeypatch.context() as patched:
        patched.setattr(roll_up, "merge_rollup", broken)
        with pytest.raises(StorageError, match="it broke"):
            repaired(site, 10)
    assert [row["status"] for row in site.ledger()] == ["succeeded", "succeeded", "failed"]
    assert len(site.rows("instance")) == 3
    assert site.tables() != site.expected()
    # Any run rolls up what the dead one has touched, an empty range included.
    site.sync(start=text_at(1), end=text_at(2))
    assert site.tables() == site.expected()


class _OnlyItsMaster(NoSpark):
    """A session that tells where its files may lie, and must not be asked for anything else."""

    sparkContext = SimpleNamespace(master="local[2]")  # noqa: N815  pyspark's name


def test_there_is_one_writer(copy: Site) -> None:
    """75 while somebody else holds the claim; nothing is changed."""
    before = copy.tables(), copy.ledger()
    other = claim(
        *copy.storage.filesystem(copy.place("_claims")), verb="sync", last_known_run_id=0,
        clock=lambda: at(17), sleep=lambda _: None,
    )  # fmt: skip
    with other, pytest.raises(AnotherWriter, match="sync"):
        repair(copy.settings, spark=_OnlyItsMaster(), clock=lambda: datetime.now(UTC))  # type: ignore[arg-type]
    assert (copy.tables(), copy.ledger()) == before


def test_the_fold_takes_void_entries_for_deletions(spark: SparkSession) -> None:
    """Up to the sequence that is void; later entries of the key, and other keys, as ever."""
    from support.frames import changes_frame, collected, entry

    rows = [
        entry("void", 1, "Create", "Current"),
        entry("void, and again", 2, "Create", "Current"),
        entry("void, and again", 5, "Create", "Current"),
        entry("other", 3, "Create", "Current"),
        entry("void", 4, "Create", "Current", partitionName="q"),
        entry("void and unreadable", 6, "Update", "Current"),
    ]
    voids = {("p", "1.1", "1.1.1", name): 4 for name in ("void", "void, and again")}
    voids["p", "1.1", "1.1.1", "void and unreadable"] = 6
    frame: DataFrame = changes_frame(spark, rows)
    fold = changes.folded(frame, 1, {6}, (), voids)
    source = collected(changes.changing(fold))
    assert sorted((r["partitionName"], r["sopInstanceUid"], r["sequence"], r["effect"]) for r in source) == [
        ("p", "other", 3, "upsert"),
        ("p", "void", 1, "remove"),
        ("p", "void and unreadable", 6, "remove"),
        ("p", "void, and again", 5, "upsert"),
        ("q", "void", 4, "upsert"),
    ]
    assert changes.summary(fold).rejected == frozenset()
