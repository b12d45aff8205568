"""Rows that become visible after their window was read: found, landed and merged by the next run.

design/architecture.md: Late rows.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace

import pytest

from dicom_emulator.state.uids import instance_key
from dicom_emulator.testing.faults import Fault
from support.late import LateFeed, late_alone
from support.site import Site, at, ticks_at
from support.story import NoSpark

pytestmark = pytest.mark.soak  # each sync, repair and rebuild costs seconds of Spark

COUNTED = ("inserted", "updated", "deleted", "superseded", "rejected")


@pytest.fixture(scope="module")
def first_lake(_make_site: Callable[..., Site], tmp_path_factory: pytest.TempPathFactory) -> Site:
    """The lake after three instances were read at 12:15: nothing is due before 13:15."""
    with ExitStack() as stack:
        feed = LateFeed(_make_site(stack, tmp_path_factory.mktemp("late")))
        feed.create_three()
        run = feed.sync(12.25)
        assert (run.window_end, run.covered_until, run.entries_read) == (ticks_at(12), ticks_at(12), 3)
        return feed.site


@pytest.fixture
def feed(site: Site, first_lake: Site) -> LateFeed:
    """A service of its own with the same three rows, and a copy of that lake."""
    feed = LateFeed(replace(site, address=first_lake.copied(site.folder).address))
    feed.create_three()
    site.service.clock.freeze(at(12.25))
    return feed


def test_late_rows_are_merged_by_the_next_run(feed: LateFeed) -> None:
    """Half an hour late, with a delay of a quarter: a create, an update, a delete, and a create of what is gone.

    The ledger counts them as any other entry. (Without a second look they are lost: test_late_search.)
    """
    late = ticks_at(11.9)
    feed.create(11.9, "2.1.1")
    feed.site.update("1.2.1", "1.2.1.1", "1.2.1.1.1", at_ticks=late, modality="MR", name="changed")
    feed.service.delete("Microsoft.Default", "1.2.1", "1.2.1.1", "1.2.1.1.2", at_ticks=late)
    feed.create(11.9, "4.1.1")
    feed.service.delete("Microsoft.Default", "1.2.4", at_ticks=ticks_at(12.7))
    read = [row for row in feed.site.feed(0, 13) if row.sequence > 3]
    fates = feed.site.fates(read)
    assert fates == {"inserted": 1, "updated": 1, "deleted": 1, "superseded": 2}

    run = feed.sync(13.25)

    assert (run.window_start, run.window_end) == (ticks_at(12), ticks_at(13))
    assert run.entries_read == len(read) == 5
    assert {name: getattr(run, name) for name in COUNTED} == {name: fates[name] for name in COUNTED}
    assert [feed.runs_of(row.sequence) for row in read] == [[run.run_id]] * 5
    assert {name: len(feed.site.rows(name)) for name in ("instance", "study")} == {"instance": 3, "study": 2}
    assert feed.equal()


def test_a_late_row_without_metadata_is_rejected_and_heals(feed: LateFeed) -> None:
    """It does not stop the run, and is tried again by its time as any other reject."""
    late, _ = late_alone(feed)
    poison = feed.service.faults.add(Fault(sequences=(late,)))

    run = feed.sync(13.25)

    assert (run.entries_read, run.inserted, run.rejected) == (1, 0, 1)
    assert [(row["sequence"], row["reason"]) for row in feed.site.rows("rejected")] == [(late, "metadata-unavailable")]
    feed.service.faults.remove(poison.id)
    assert feed.sync(14.25).inserted == 1
    assert feed.equal()


def test_an_empty_window_starts_spark_only_for_a_hit(feed: LateFeed) -> None:
    """What was read before needs no session, nor do rows of windows to come; a store that ends does."""
    key = instance_key("1.2.9", "1.2.9.1", "1.2.9.1.1")
    feed.service.reserve(key)
    feed.create(13.1, "1.1.4")

    run = feed.sync(13.25, spark=NoSpark())

    assert run.entries_read == 0
    assert feed.asked() == (1, 3)
    feed.service.commit(key, b'{"00080060":{"vr":"CS","Value":["US"]}}', at_ticks=ticks_at(12.6))
    assert feed.sync(14.25).inserted == 2
    assert feed.equal()
