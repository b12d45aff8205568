"""The contract of `columns` where little tells of a change: no row, no sequence, no tag."""

from __future__ import annotations

import shutil
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from dicom_emulator.options import EmulatorOptions
from dicom_emulator.serve import serve_in_thread
from dicom_etl.commands.columns.update import update
from dicom_etl.commands.repair.repair import repair
from dicom_etl.lake.delta.table import txn_version
from dicom_etl.lake.open import existing_lake
from dicom_etl.outputs.execution import Counts, Execution
from support.following import synced
from support.site import Site, at, metadata, text_at

pytestmark = pytest.mark.soak  # each execution costs seconds of Spark

HEADER = {"00080070": {"vr": "LO", "Value": ["ACME"]}, "00180060": {"vr": "DS", "Value": [120]}}
TABLES = ("instance_tags", "series_tags", "study_tags", "header_quality")


def updated(site: Site, **how: Any) -> Execution:
    done = update(site.settings, spark=site.spark, **how)
    assert done is not None
    return done


def markers(site: Site) -> dict[str, int]:
    lake = existing_lake(site.settings).lake
    return {name: txn_version(site.opened(name), lake.app_id(name)) for name in TABLES}


def created(site: Site, sop: str) -> None:
    site.create("1.1", "1.1.1", sop, document=metadata(name="Doe", modality="CT") | HEADER)


def test_an_execution_that_changes_no_row_fences_every_table(make_site: Any) -> None:
    """One that it has overtaken would write what it has found to be gone."""
    site = make_site()
    created(site, "1")
    synced(site, 10)
    assert updated(site).counts == Counts(touched=1, written=1)
    assert markers(site) == dict.fromkeys(TABLES, 1)
    synced(site, 11, start=text_at(8), end=text_at(9))
    assert updated(site).counts == Counts(touched=1, unchanged=1)
    assert markers(site) == dict.fromkeys(TABLES, 2)


def test_a_rebuild_that_brings_headers_under_the_same_sequences_is_followed(make_site: Any) -> None:
    """`lake.keep_metadata` was false: a rebuild lands what was not kept."""
    site = make_site("lake.keep_metadata=false")
    created(site, "1")
    synced(site, 10)
    updated(site)
    assert [row["headerState"] for row in site.rows("instance_tags")] == ["missing"]
    kept = site.having("lake.keep_metadata=true")
    repair(kept.settings, rebuild=True, spark=kept.spark, clock=lambda: at(11))
    done = updated(kept)
    assert (done.mode, done.counts) == ("compare", Counts(touched=1, written=1))
    assert [row["headerState"] for row in kept.rows("instance_tags")] == ["ok"]
    assert [row["manufacturer"] for row in kept.rows("series_tags")] == ["ACME"]


def test_a_create_from_before_a_restore_of_the_service_does_not_count_after_the_rebuild(make_site: Any) -> None:
    """The backup is of before the re-create, sequence 3; the restored service counts on from its own first one."""

    def rows(site: Site) -> list[tuple[int, int]]:
        return [(row["sequence"], row["createdSequence"]) for row in site.rows("instance_tags")]

    site = make_site()
    first = site.create("1.1", "1.1.1", "1", name="A")
    site.service.delete("Microsoft.Default", "1.1", "1.1.1", "1")
    site.create("1.1", "1.1.1", "1", name="A")
    synced(site, 10)
    updated(site)
    assert rows(site) == [(3, 3)]
    with serve_in_thread(EmulatorOptions()) as earlier:
        restored = replace(site, emulator=earlier)
        restored.create("1.1", "1.1.1", "1", name="A", at_ticks=first.ticks, sequence=first.sequence)
        restored.clock(11)
        for name in ("B", "C", "D"):
            restored.update("1.1", "1.1.1", "1", name=name)
        repair(restored.settings, rebuild=True, spark=site.spark, clock=lambda: at(12))
        assert updated(restored).mode == "compare"
        assert rows(restored) == [(4, 1)]
        restored.update("1.1", "1.1.1", "1", name="E")
        synced(restored, 13)
        assert updated(restored).mode == "changed"
        assert rows(restored) == [(5, 1)]
        updated(restored, extent="full")
        assert rows(restored) == [(5, 1)]


def test_another_quiet_counts_for_every_study_by_a_backfill(make_site: Any) -> None:
    """Until then all studies keep the quiet by which the tables were made."""

    def quiets(site: Site) -> list[timedelta]:
        return [row["settledAt"] - row["lastModifiedTimestamp"] for row in site.rows("study_tags")]

    site = make_site()
    created(site, "1")
    synced(site, 10)
    updated(site)
    longer = site.having("outputs.settle=2h")
    longer.create("1.2", "1.2.1", "2", name="A")
    synced(longer, 12)
    updated(longer)
    assert quiets(longer) == [timedelta(minutes=30)] * 2
    updated(longer, extent="backfill")
    assert quiets(longer) == [timedelta(hours=2)] * 2


def test_an_output_whose_rows_were_put_back_goes_on_above_what_its_tables_know(make_site: Any, tmp_path: Path) -> None:
    """As with a lake that was restored, and `columns.root` elsewhere: an id of the tables would be refused."""
    site = make_site()
    created(site, "1")
    synced(site, 10)
    updated(site)
    shutil.copytree(site.root / "output", tmp_path / "output")
    for hour, sop in ((11, "2"), (12, "3")):
        created(site, sop)
        synced(site, hour + 0.5)
        updated(site)
    assert markers(site) == dict.fromkeys(TABLES, 3)
    shutil.rmtree(site.root / "output")
    shutil.copytree(tmp_path / "output", site.root / "output")
    shutil.rmtree(site.root / "_claims" / "columns", ignore_errors=True)
    done = updated(site)
    assert (done.execution_id, done.status) == (4, "succeeded")
    assert len(site.rows("instance_tags")) == 3
