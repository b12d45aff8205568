"""The story's lake between its two chapters: changes of every kind are due, and many runs can start from there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dicom_etl.core.timerange import Window
from dicom_etl.lake import ledger
from dicom_etl.lake.ledger import Run
from support.site import Site, at
from support.story import make_changes, make_creates

SHARED = ("instance", "series", "study")
TABLES = ("change", *SHARED, "rejected", "run")


def make_due(site: Site) -> Site:
    """The story's creates, synced by run 1, and its changes, which are due: 22 entries between 11:00 and 13:00."""
    make_creates(site)
    (run,) = site.sync(now=at(12))
    assert (run.run_id, run.entries_read, run.inserted) == (1, 35, 33)
    make_changes(site)
    assert len(site.feed(11, 15)) == 22
    return site


def copy_of(site: Site, folder: Path) -> Site:
    """A copy of the lake, before the same service."""
    return site.copied(folder)


def versions(site: Site) -> dict[str, int]:
    return {name: site.version(name) for name in TABLES}


def markers(site: Site) -> dict[str, int]:
    """The last run that has committed to each table."""
    tables = {name: site.opened(name) for name in TABLES}
    lakes = {table.metadata().configuration["dicomEtl.lakeId"] for table in tables.values()}
    assert len(lakes) == 1
    return {name: table.transaction_version(f"{min(lakes)}/{name}") or 0 for name, table in tables.items()}


def strays(site: Site, table: str) -> set[str]:
    """The data files in the table's folder that its newest version does not name."""
    return {name for name in site.listed(table) if name.endswith(".parquet")} - {
        Path(uri).name for uri in site.files(table)
    }


def covered(site: Site) -> list[Window]:
    return ledger.covered(Run.from_row(row) for row in site.ledger())


def check_equal(site: Site) -> None:
    """The tables are what the service holds at the story's end; no row and no landed entry is there twice."""
    expected = site.expected()
    assert [len(expected[name]) for name in SHARED] == [26, 13, 13]
    assert site.tables() == expected
    landed = [(row["runId"], row["sequence"]) for row in site.rows("change")]
    assert len(landed) == len(set(landed))


def synced(site: Site, entries: list[Any], **how: Any) -> Run:
    """The one run of the next sync, which reads these entries: each accounted for, and the tables equal."""
    fates = site.fates(entries)
    (run,) = site.sync(**how)
    names = ("inserted", "updated", "deleted", "superseded", "rejected")
    assert {name: getattr(run, name) for name in names} == {name: fates[name] for name in names}
    assert run.entries_read == fates.total()
    check_equal(site)
    return run
