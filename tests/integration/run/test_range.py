"""A range that is asked for: one run when it is a window, else cut like every catching up, each run with its row.

design/architecture.md: Coverage and the ledger.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from dicom_etl.core.errors import ProtocolError
from support.landing_only import landing_only, outcome
from support.site import SECOND, Site, text_at, ticks_at

START, END = text_at(1), text_at(7)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """One entry an hour from 1 to 6, three in the hour 4; a run takes two, or one window."""
    with landing_only(tmp_path, "feed.max_entries_per_run=2") as site:
        for number, hour in enumerate((1, 2, 3, 4, 4, 4, 5, 6)):
            site.create("1.1", "1.1.1", f"1.1.1.{number}", at_ticks=ticks_at(hour) + number * SECOND, modality="CT")
        site.clock(8)
        yield site.init()


def ranges(site: Site) -> list[tuple[str, float, float, int]]:
    """The ledger: status, the hours of the window, entries read."""
    return [
        (row["status"], row["windowStart"].hour, row["windowEnd"].hour, row["entriesRead"] or 0)
        for row in site.ledger()
    ]


CUT = [("succeeded", 1, 3, 2), ("succeeded", 3, 4, 1), ("succeeded", 4, 5, 3), ("succeeded", 5, 7, 2)]


def test_a_range_longer_than_a_window_is_cut_into_runs(site: Site) -> None:
    """Each with its own commit and row; a second time as well, though all of it is covered by then."""
    runs = site.sync(start=START, end=END)
    assert [run.entries_read for run in runs] == [2, 1, 3, 2]
    assert ranges(site) == CUT
    assert len(site.rows("change")) == 8
    site.sync(start=START, end=END)
    assert ranges(site) == CUT * 2
    assert len(site.rows("change")) == 16


def test_a_range_of_at_most_a_window_is_one_run(site: Site) -> None:
    """However many entries it holds, and also across an edge of the grid."""
    site.sync(start=text_at(4), end=text_at(5))
    site.sync(start=text_at(3.5), end=text_at(4.5))
    assert ranges(site) == [("succeeded", 4, 5, 3), ("succeeded", 3, 4, 3)]
    # The broken twin: a little longer than a window.
    site.sync(start=text_at(3.4), end=text_at(4.5))
    assert [entries for *_, entries in ranges(site)[2:]] == [0, 3]


def test_a_range_that_ends_early_says_where_it_goes_on(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """After so many runs, and after a failure; the command that it names completes the range."""
    rest = []

    def told() -> None:
        events = [record for record in caplog.records if record.message.startswith("range not read to its end")]
        rest.append([(record.read_until, record.end) for record in events])  # type: ignore[attr-defined]
        caplog.clear()

    caplog.set_level(logging.WARNING, "dicom_etl")
    site.sync(start=START, end=END, max_runs=1)
    told()
    calls = []

    def failing(*_: object) -> object:
        calls.append(1)
        if len(calls) == 2:
            raise ProtocolError("the change feed broke")
        return outcome()

    monkeypatch.setattr("dicom_etl.run.pipeline.merge_landed", failing)
    with pytest.raises(ProtocolError):
        site.sync(start=text_at(3), end=END)
    told()
    site.sync(start=text_at(4), end=END)
    told()
    assert rest == [
        [("2024-05-01T03:00:00Z", "2024-05-01T07:00:00Z")],
        [("2024-05-01T04:00:00Z", "2024-05-01T07:00:00Z")],
        [],
    ]
    assert [one for one in ranges(site) if one[0] == "succeeded"] == CUT
