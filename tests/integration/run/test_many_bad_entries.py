"""Thousands of bad entries: what they cost, what is recorded of them, how they heal.

design/architecture.md: Rejects; issue 4, §4.

How one bad entry is found is in test_misbehaving_service.py and tests/unit/dicomweb/test_dicomweb_changefeed.py.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from dicom_emulator.testing.faults import Fault
from dicom_etl.lake.status import status
from support.oracle import Row, Tables, by_key, instance_row, tables_of
from support.site import SECOND, Site, ticks_at
from support.story import NoSpark

Command = Callable[..., tuple[int, str, str]]

# What a run asks besides pages and rejects: the clock, whether the feed has gone back, late rows among 200 before.
BESIDES = 10
# The second look lists the last three hours: 5 200 entries, and two requests for each of four connections.
SECOND_LOOK = 26 + 2 * 4
# dicomweb/poison.py: a run looks closer with 2000 requests. Of an entry alone two of them are counted and three sent,
# and never more than two for one.
LOOKING_CLOSER = 2 * 2000
# For each page that fails: four attempts and one without metadata.
A_PAGE = 5
# one_run.py: for those that stay bad; a microsecond's page may go over it.
REJECTS = 300


def make(site: Site, hour: float, numbers: range, **given: Any) -> None:
    """An instance a number, a second apart, in ten studies."""
    for place, number in enumerate(numbers):
        study = f"1.{number % 10}"
        key = (study, f"{study}.1", f"{study}.1.{number}")
        site.create(*key, at_ticks=ticks_at(hour) + place * SECOND // 4, name=f"Made^{number}", modality="CT", **given)


def update(site: Site, hour: float, numbers: range) -> None:
    for place, number in enumerate(numbers):
        study = f"1.{number % 10}"
        site.update(
            study, f"{study}.1", f"{study}.1.{number}",
            at_ticks=ticks_at(hour) + place * SECOND // 4, name=f"Updated^{number}", modality="MR",
        )  # fmt: skip


def expected(site: Site, bad: set[int], before: list[Row]) -> Tables:
    """What the tables hold while these cannot be read: the rows of `before` stay where only an update is bad."""
    old = {row["sopInstanceUid"]: row for row in before}
    rows = []
    for live in site.service.live_instances():
        if live.sequence not in bad:
            rows.append(instance_row(live))
        elif live.key.sop in old:
            rows.append(old[live.key.sop])
    return tables_of(rows)


def tried(site: Site) -> set[str]:
    """The instants of the entries that were asked for alone, with metadata, since the log was cleared."""
    return {
        str(one.query["startTime"])
        for one in site.service.requests.all()
        if one.path == "/v2/changefeed" and one.query["limit"] == "1" and one.query["includeMetadata"] == "true"
    }


def counts(run: Any) -> dict[str, int]:
    return {name: getattr(run, name) for name in ("inserted", "updated", "deleted", "superseded", "rejected")}


def fates_of(fates: Counter[str]) -> dict[str, int]:
    return {name: fates[name] for name in ("inserted", "updated", "deleted", "superseded", "rejected")}


@pytest.mark.soak
def test_a_night_of_bad_entries_is_recorded_retried_in_turns_and_heals(
    make_site: Callable[..., Site], command: Command
) -> None:
    """Rows that stand are not overwritten; each run retries others, at a bounded cost; when they heal they go in."""
    site = make_site("dicom.connections=4")
    make(site, 8, range(60))
    site.clock(9.25)
    site.sync()
    before = site.rows("instance")
    assert (len(before), {row["patientName"][:4] for row in before}) == (60, {"Made"})

    # 60 updates and 160 creates that fail for good, side by side and every other one; 80 are good.
    update(site, 9.3, range(60))
    make(site, 9.4, range(60, 280))
    bad = {*range(61, 121), *range(130, 180), *range(180, 340, 2)} | {121, 340 - 1}
    assert len(bad) == 192
    site.service.faults.add(Fault(sequences=tuple(bad)))
    fates = site.fates(site.feed(9, 10), unusable=bad)
    assert fates_of(fates) == {"inserted": 88, "updated": 0, "deleted": 0, "superseded": 0, "rejected": 192}
    site.clock(10.25)
    site.service.requests.clear()
    (run,) = site.sync()
    assert counts(run) == fates_of(fates)
    # Each of them alone: three requests; and two for each page of which it was a part, eight at most.
    assert 3 * 192 <= site.service.requests.count() <= 1200
    # Every update was bad: all sixty rows are as they were, column by column.
    assert site.tables() == expected(site, bad, before)
    old = {row["sopInstanceUid"] for row in before}
    assert [row for row in site.tables()["instance"] if row["sopInstanceUid"] in old] == by_key("instance", before)
    rejects = site.rows("rejected")
    assert {row["sequence"] for row in rejects} == bad
    assert {(row["reason"], row["status"]) for row in rejects} == {("metadata-unavailable", "open")}
    code, out, _ = command(site, "status", "--json")
    assert (code, json.loads(out)["openRejects"]) == (0, 192)

    # Nothing heals for two hours: no JVM, no rows, and each hour others are asked for.
    asked: list[set[str]] = []
    for hour in (11.25, 12.25):
        site.clock(hour)
        site.service.requests.clear()
        (run,) = site.sync(spark=NoSpark())
        assert (run.entries_read, run.rejected, run.status) == (0, 0, "succeeded")
        assert 200 <= site.service.requests.count() <= REJECTS + 10
        asked.append(tried(site))
        assert 100 <= len(asked[-1]) <= 150
    assert len(set.union(*asked)) == 192
    assert len(site.rows("rejected")) == 192

    # Mended but for two: what has healed goes in with the next run, though no window brings it. --strict tells a
    # scheduler of the one that is new.
    site.service.faults.clear()
    site.service.faults.add(Fault(sequences=(61, 339)))
    new = site.create("1.0", "1.0.1", "1.0.1.999", at_ticks=ticks_at(12.5), document=b"[1]").sequence
    site.clock(13.25)
    code, out, said = command(site, "sync", "--strict")
    assert code == 65
    assert said.splitlines()[-1] == "dicom-etl: 1 entries were rejected; dicom-etl rejects lists those that are open"
    assert "191 entries, 131 inserted, 59 updated, 0 deleted, 0 superseded, 1 rejected" in out
    assert site.tables() == expected(site, {61, 339, new}, before)
    assert status(site.settings).open_rejects == 3


@pytest.mark.soak
@pytest.mark.parametrize("scattered", [False, True], ids=["side by side", "scattered"])
def test_three_thousand_of_five_thousand(make_site: Callable[..., Site], scattered: bool) -> None:
    """The night costs at most 4 000 requests and five a page; each later run 300; two years of nights nothing more."""
    site = make_site("dicom.connections=4")
    make(site, 8, range(200))
    site.clock(9.25)
    site.sync()
    before = site.rows("instance")
    assert len(before) == 200
    update(site, 9.3, range(200))
    make(site, 9.4, range(200, 5000))
    numbers = range(201, 5201)
    bad = {n for n in numbers if n % 5 in (0, 1, 2)} if scattered else set(range(201, 3201))
    assert len(bad) == 3000
    poison = site.service.faults.add(Fault(sequences=tuple(bad)))
    fates = site.fates(site.feed(9, 10))
    assert fates.total() == 5000
    site.clock(10.25)
    site.service.requests.clear()
    (run,) = site.sync()
    assert poison.hits > 1000
    rejects = {row["sequence"]: row["reason"] for row in site.rows("rejected")}
    # Beyond the budget good entries of a failing page are rejects too: nobody looked at them alone.
    assert bad <= rejects.keys()
    assert (run.rejected, run.entries_read) == (len(rejects), 5000)
    assert set(rejects.values()) == {"metadata-unavailable", "metadata-not-tried"}
    assert {s for s, reason in rejects.items() if reason == "metadata-unavailable"} <= bad
    assert 25 <= run.pages <= 60
    assert site.service.requests.count() <= LOOKING_CLOSER + A_PAGE * run.pages + BESIDES <= 4500
    assert site.tables() == expected(site, set(rejects), before)
    assert status(site.settings).open_rejects == len(rejects) >= 3000

    # Two runs in which nothing heals that is bad in itself.
    for hour in (11.25, 12.25):
        site.clock(hour)
        site.service.requests.clear()
        (run,) = site.sync()
        healed = run.inserted + run.updated
        assert site.service.requests.count() <= REJECTS + 2 * healed + 10 + SECOND_LOOK
        assert (run.rejected, run.entries_read) == (0, healed)

    # Mended: a thousand a run, in turns, until none is left.
    site.service.faults.clear()
    left = status(site.settings).open_rejects
    assert left is not None
    hour = 13.25
    while left:
        site.clock(hour)
        site.service.requests.clear()
        (run,) = site.sync()
        assert run.entries_read == min(left, 1000)
        assert site.service.requests.count() <= 2 * 1000 + 10 + SECOND_LOOK
        left = status(site.settings).open_rejects or 0
        hour += 1
    assert site.tables() == site.expected()
    assert hour <= 13.25 + 5


@pytest.mark.soak
def test_bad_entries_of_one_instant(make_site: Callable[..., Site]) -> None:
    """A thousand at one timestamp: a retry reads the tie's pages without metadata, and stays within its bound."""
    site = make_site()
    make(site, 8, range(10))
    for number in range(1000):
        site.create("1.5", "1.5.9", f"1.5.9.{number}", at_ticks=ticks_at(8.5), name=f"Tie^{number}")
    bad = set(range(11, 1011))
    site.service.faults.add(Fault(sequences=tuple(bad)))
    site.clock(9.25)
    (run,) = site.sync()
    assert (run.inserted, run.rejected) == (10, 1000)
    for hour in (10.25, 11.25):
        site.clock(hour)
        site.service.requests.clear()
        (run,) = site.sync(spark=NoSpark())
        # Six pages of the tie may go over what is left of the bound; the second look lists it, on ten connections.
        assert 250 <= site.service.requests.count() <= REJECTS + 20 + 6 + 2 * 10
    site.service.faults.clear()
    site.clock(12.25)
    (run,) = site.sync()
    # A tie's pages cost a tenth of what its entries give back.
    assert run.inserted == 1000
    assert site.tables() == site.expected()
