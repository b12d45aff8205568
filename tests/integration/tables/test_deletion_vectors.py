"""Tables with deletion vectors: the same rows, and rows that are marked instead of files that are written anew."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from dicom_etl.commands.maintain import maintain
from dicom_etl.commands.sync import sync
from dicom_etl.commands.sync_request import SyncRequest
from dicom_etl.lake.ledger import Run
from support.frames import collected
from support.oracle import by_key
from support.site import TABLES, Site, at


def synced(site: Site, hour: float) -> Run:
    """One run, not accounted for: Arrow's datasets do not read such tables."""
    site.clock(hour)
    wanted = SyncRequest(init=True)
    (run,) = sync(site.settings, wanted, spark=site.spark, clock=lambda: at(hour), sleep=lambda _seconds: None)
    return run


def filled(site: Site) -> Site:
    """Forty instances of ten series, each table one file."""
    for number in range(40):
        site.create("1.1", f"1.1.{number % 10}", f"1.1.1.{number}", name="Before", modality="CT")
    assert synced(site, 10.5).inserted == 40
    list(maintain(site.settings, spark=site.spark, clock=lambda: at(10.6)))
    assert [len(site.files(name)) for name in TABLES] == [1, 1, 1]
    return site


def changed(site: Site) -> Run:
    """An update and a delete in two of the ten series."""
    site.clock(11)
    site.update("1.1", "1.1.0", "1.1.1.0", name="After", modality="CT")
    site.service.delete("Microsoft.Default", "1.1", "1.1.1", "1.1.1.1")
    return synced(site, 12.5)


def check_equal(site: Site) -> None:
    assert site.spark is not None
    load = site.spark.read.format("delta").load
    assert {name: by_key(name, collected(load(site.place(name)))) for name in TABLES} == site.expected()


@pytest.mark.soak
@pytest.mark.parametrize("on", [True, pytest.param(False, marks=pytest.mark.soak)])
def test_changed_series_are_marked_and_not_rewritten(make_site: Callable[..., Site], on: bool) -> None:
    """With vectors the file of the series stays, without it goes (the twin); instances are written anew either way."""
    site = filled(make_site(f"lake.deletion_vectors={str(on).lower()}"))
    first = {name: site.files(name) for name in TABLES}
    run = changed(site)
    assert (run.updated, run.deleted) == (1, 1)
    assert (first["series"] <= site.files("series")) is on
    assert not first["instance"] & site.files("instance")
    versions = {name: site.opened(name).protocol().min_reader_version for name in TABLES}
    assert versions == {"instance": 1, "series": 3 if on else 1, "study": 3 if on else 1}
    check_equal(site)


@pytest.mark.soak
def test_vectors_that_somebody_else_switched_on_do_no_harm(site: Site) -> None:
    """Delta's MERGE fails where rows of a table with a column filePath would be marked: ours marks none there."""
    filled(site)
    assert site.spark is not None
    for name in TABLES:
        place = site.place(name)
        site.spark.sql(f"ALTER TABLE delta.`{place}` SET TBLPROPERTIES ('delta.enableDeletionVectors' = 'true')")
    run = changed(site)
    assert (run.updated, run.deleted) == (1, 1)
    check_equal(site)
