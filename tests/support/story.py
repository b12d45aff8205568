"""A story of one lake: creates of every kind, then changes, then old windows again; four syncs in all."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pydicom

from dicom_etl.commands.upload import upload
from dicom_etl.lake.ledger import Run
from support.oracle import Tables
from support.site import MINUTE, Site, at, ticks_at

REAL_FILES = ("CT_small.dcm", "MR_small.dcm", "rtplan.dcm", "JPEG2000.dcm", "examples_overlay.dcm", "reportsi.dcm")
P, Q = "Microsoft.Default", "clinic-2"


class NoSpark:
    """A session that must not be asked for anything."""

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"Spark was asked for {name}")


@dataclass(frozen=True)
class Chapter:
    """What one sync did, and what it had to do."""

    runs: list[Run]
    tables: Tables
    expected: Tables
    fates: Counter[str]
    files: dict[str, set[str]]


@dataclass
class Story:
    """A lake after several syncs; its service stands still from here on. Copy it before you write to it."""

    site: Site
    chapters: dict[str, Chapter] = field(default_factory=dict)

    def tell(self, name: str, hours: tuple[float, float], **how: Any) -> None:
        """Sync, and remember what was there before and after; ``hours`` are those of the feed it reads."""
        site = self.site
        fates = site.fates(site.feed(*hours))
        runs = site.sync(**how)
        files = {table: site.files(table) for table in ("instance", "series", "study")}
        self.chapters[name] = Chapter(runs, site.tables(), site.expected(), fates, files)


def make_creates(site: Site) -> None:
    """The clock stands at 08:00 and moves a second with each event."""
    service = site.service
    data = Path(pydicom.__file__).parent / "data" / "test_files"
    outcomes = [done.outcome.kind for done in upload(site.settings, [data / name for name in REAL_FILES])]
    assert all(kind.startswith("stored") for kind in outcomes), outcomes
    # Three series, the same SOP UID in two of them, and in two partitions.
    site.create(
        "1.1", "1.1.1", "1.1.1.1", name="One^A", id="1", issuer="I", date="20240101", modality="MR", sop_class="1.2"
    )
    site.create("1.1", "1.1.1", "1.1.1.2", name="One^B", modality="CT")
    site.create("1.1", "1.1.2", "1.1.1.1", description="other series", modality="CT")
    site.create("1.1", "1.1.1", "1.1.1.1", Q, name="Other^Partition", modality="US")
    # Attributes that are odd.
    odd = b"""{"00080016": {"vr": "UI", "Value": [null, "1.2"]}, "00080020": {"vr": "DA", "Value": ["2024.01.01"]},
      "00080060": {"vr": "CS", "Value": ["", "CT"]}, "00081030": {"vr": "LO", "Value": ["  padded \\u0000"]},
      "00100010": {"vr": "PN", "Value": [{"Ideographic": "\\u5c71\\u7530"}]},
      "00100020": {"vr": "LO", "Value": [1.50]}, "00100021": {"vr": "LO", "Value": [{"no": "text"}]}}"""
    site.create("1.2", "1.2.1", "1.2.1.1", document=odd)
    site.create("1.2", "1.2.1", "1.2.1.2", document={})
    site.create("1.2", "1.2.1", "1.2.1.3", uids=("1.2 ", "1.2.1 ", "1.2.1.3 "), name="Pädded^Ünïcode", date="20240230")
    # Ten times with 0 to 7 fraction digits, on edges of windows, in ties, against their sequences.
    for digits in range(8):
        fraction = int("1234567"[:digits].ljust(7, "0") or 0)
        site.create("1.3", "1.3.1", f"1.3.1.{digits}", name=f"Digits^{digits}", at_ticks=ticks_at(9) + fraction)
    for number, (sequence, hour) in enumerate([(505, 9), (504, 9), (503, 10), (502, 9.5), (501, 10)]):
        site.create("1.4", "1.4.1", f"1.4.1.{number}", name=f"Tie^{number}", sequence=sequence, at_ticks=ticks_at(hour))
    service.skip_sequences(7)
    site.create("1.5", "1.5.1", "1.5.1.1", at_ticks=ticks_at(11) - 1, name="Last^Tick")
    # Gone before anybody read it.
    site.create("1.6", "1.6.1", "1.6.1.1", name="Never^Seen")
    service.delete(P, "1.6")
    for sop in ("1", "2", "3"):
        for series in ("1", "2"):
            site.create("1.7", f"1.7.{series}", f"1.7.{series}.{sop}", name="Seven^Old", modality="CT")
    service.clock.freeze(at(12), step=0)


def make_changes(site: Site) -> None:
    """Updates, deletes on three levels and re-creates between 11:00 and 13:00."""
    service = site.service
    site.create("1.5", "1.5.1", "1.5.1.2", at_ticks=ticks_at(11), name="Next^Window")
    service.clock.freeze(at(12), step=MINUTE)
    site.update("1.1", "1.1.1", "1.1.1.1", name="One^New", modality="MR")
    site.update("1.1", "1.1.1", "1.1.1.1", name="One^Newest", modality="MR")
    site.update("1.2", "1.2.1", "1.2.1.2", name="No^Longer^Empty", date="20240131")
    service.delete(P, "1.1", "1.1.2", "1.1.1.1")  # the last instance of its series
    service.delete(P, "1.3", "1.3.1", "1.3.1.0")  # one of many
    service.delete(P, "1.4")  # a study
    service.delete(P, "1.7", "1.7.1")  # a series
    service.delete(P, "1.5", "1.5.1", "1.5.1.1")
    site.create("1.5", "1.5.1", "1.5.1.1", name="Created^Again")
    service.delete(P, "1.3", "1.3.1", "1.3.1.1")
    site.create("1.3", "1.3.1", "1.3.1.1", name="Again")
    site.update("1.3", "1.3.1", "1.3.1.1", name="Again^Updated")
    site.create("1.7", "1.7.2", "1.7.2.9", name="Seven^New", date="20240505", modality="MR")
    site.create("1.8", "1.8.1", "1.8.1.1", Q, name="New^Study")
    site.update("1.1", "1.1.1", "1.1.1.1", Q, name="Only^Here", modality="US")
    service.clock.freeze(at(15), step=0)
