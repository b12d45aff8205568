"""The next windows are read, under a claimed id of their own, while the last are merged.

design/architecture.md: Claims.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dicom_emulator.testing.faults import Fault
from dicom_etl.commands import sync
from dicom_etl.commands.sync_request import SyncRequest
from dicom_etl.core.errors import ProtocolError, StorageError
from dicom_etl.core.progress import NullProgress
from dicom_etl.core.timerange import Window
from dicom_etl.dicomweb.connect import connect
from dicom_etl.dicomweb.feed.reader import FeedReader, read_feed
from dicom_etl.remote.http.client import Cancelled
from dicom_etl.run import prefetch
from dicom_etl.run import read as fetching
from dicom_etl.run.write_session import Resources
from dicom_etl.tables.engine import session
from support.due import strays
from support.landing_only import landed, landing_only, outcome
from support.site import Site, at, text_at, ticks_at

# `landing_only` puts nothing in the place of them.
BEGIN, SESSION = session.Engine.begin, session.Engine.session

WAIT_SECONDS = 20
# One entry an hour from 1 to 6, two of them a run.
HOURS = range(1, 7)


class Merges:
    """Stands in the place of the MERGEs: each run's is told, and may wait or fail."""

    def __init__(self) -> None:
        self.of: list[int] = []
        self.before: Any = lambda _run_id: None

    def __call__(self, _spark: Any, session: Any, *_: Any) -> Any:
        self.before(session.run_id)
        self.of.append(session.run_id)
        return outcome()


class Fetches:
    """The readings: told when they are over, or failing."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.over: dict[int, threading.Event] = {number: threading.Event() for number in range(1, 10)}
        self.failing: set[int] = set()
        monkeypatch.setattr(prefetch, "fetch", self._ahead)

    def _ahead(self, session: Any, *rest: Any) -> Any:
        try:
            if session.run_id in self.failing:
                raise ProtocolError("the change feed broke")
            return fetching.fetch(session, *rest)
        finally:
            self.over[session.run_id].set()


@pytest.fixture
def merges() -> Merges:
    return Merges()


@pytest.fixture
def site(tmp_path: Path, merges: Merges) -> Iterator[Site]:
    with landing_only(tmp_path, "feed.max_entries_per_run=2", merge=merges) as site:
        for hour in HOURS:
            site.clock(hour)
            site.create(f"1.{hour}", f"1.{hour}.1", f"1.{hour}.1.1", modality="CT")
        site.clock(8)
        yield site


@pytest.fixture
def fetches(monkeypatch: pytest.MonkeyPatch) -> Fetches:
    return Fetches(monkeypatch)


def orphans(site: Site) -> set[str]:
    """Files below ``change`` that no version holds."""
    return strays(site, "change")


def unreleased(site: Site) -> list[str]:
    claims = sorted((site.root / "_claims").glob("*.json"))
    assert claims
    return [claim.name for claim in claims if not json.loads(claim.read_bytes())["released"]]


def ended(site: Site) -> list[tuple[int, str, int, int]]:
    """The ledger: run, status, entries read and its window's hours."""
    return [(r["runId"], r["status"], r["entriesRead"] or 0, _hours(r)) for r in site.ledger()]


def _hours(row: Any) -> int:
    return round((row["windowEnd"] - row["windowStart"]).total_seconds() / 3600)


def test_the_next_windows_are_read_while_the_last_are_merged(site: Site, merges: Merges, fetches: Fetches) -> None:
    """The second run's reading is over before the first one's MERGE, and in no table before the first one's row."""
    seen: list[tuple[int, set[int], int]] = []

    def before(run_id: int) -> None:
        if run_id < 3:
            assert fetches.over[run_id + 1].wait(WAIT_SECONDS), "the next run reads meanwhile"
        seen.append((run_id, landed(site), len(site.ledger())))

    merges.before = before
    runs = site.sync()
    assert [(run.run_id, run.entries_read) for run in runs] == [(1, 2), (2, 2), (3, 2)]
    assert merges.of == [1, 2, 3]
    assert seen == [(1, {1, 2}, 0), (2, {1, 2, 3, 4}, 1), (3, {1, 2, 3, 4, 5, 6}, 2)]
    assert orphans(site) == set()
    assert unreleased(site) == []
    assert site.sync() == []


def test_a_run_that_fails_abandons_what_was_begun(site: Site, merges: Merges, fetches: Fetches) -> None:
    """Its reading is stopped, its files are removed, its claim is released; the next sync reads it all."""

    def fail(run_id: int) -> None:
        assert fetches.over[run_id + 1].wait(WAIT_SECONDS)
        raise StorageError("instance: it broke")

    merges.before = fail
    with pytest.raises(StorageError, match="it broke"):
        site.sync()
    assert ended(site) == [(1, "failed", 0, 7)]
    assert landed(site) == {1, 2}
    assert orphans(site) == set()
    assert unreleased(site) == []

    merges.before = lambda _run_id: None
    assert [(run.run_id, run.entries_read) for run in site.sync()] == [(3, 2), (4, 2), (5, 2)]
    assert landed(site) == {1, 2, 3, 4, 5, 6}


def test_a_reading_that_fails_ahead_is_its_own_runs_failure(site: Site, merges: Merges, fetches: Fetches) -> None:
    """The run before it succeeds; the one that failed stands in the ledger with its window, and covers nothing."""
    fetches.failing = {2}
    with pytest.raises(ProtocolError, match="broke"):
        site.sync()
    assert merges.of == [1]
    assert [row[:3] for row in ended(site)] == [(1, "succeeded", 2), (2, "failed", 0)]
    assert site.ledger()[1]["errorClass"] == "ProtocolError"
    assert orphans(site) == set()
    assert unreleased(site) == []
    fetches.failing = set()
    assert [(run.run_id, run.entries_read) for run in site.sync()] == [(3, 2), (4, 2)]


def test_whoever_listens_no_more_leaves_nothing_behind(site: Site, fetches: Fetches) -> None:
    """A caller that stops after the first run: nothing that was begun ahead stays."""
    runs = site.runs()
    assert next(runs).entries_read == 2
    assert fetches.over[2].wait(WAIT_SECONDS)
    runs.close()  # type: ignore[attr-defined]
    assert [row[:3] for row in ended(site)] == [(1, "succeeded", 2)]
    assert orphans(site) == set()
    assert unreleased(site) == []


def test_no_further_than_asked(site: Site, fetches: Fetches) -> None:
    """--max-runs 1 claims and reads nothing beyond its run."""
    (run,) = site.sync(max_runs=1)
    assert run.run_id == 1
    assert not any(over.is_set() for over in fetches.over.values())
    assert [claim.name for claim in (site.root / "_claims").glob("*.json")] == ["00000000000000000001.json"]


def test_a_reading_ends_when_it_is_stopped(site: Site) -> None:
    """Even one that waits for a service that asks it to come back later, whatever that takes."""
    site.service.faults.add(Fault(path="/v2/changefeed", status=503, retry_after=10))
    window = Window(ticks_at(0), ticks_at(7))
    stop, asleep = threading.Event(), threading.Event()
    told: list[BaseException] = []

    def sleep(_seconds: float) -> None:
        asleep.set()
        stop.wait(WAIT_SECONDS)

    def read() -> None:
        with connect(site.settings.dicom, sleep=sleep) as client:
            try:
                read_feed(FeedReader(client, 200, 2, stop=stop), window, lambda _: None)
            except BaseException as error:  # noqa: BLE001 - it is what is asserted
                told.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    assert asleep.wait(WAIT_SECONDS)
    stop.set()
    reader.join(WAIT_SECONDS)
    assert [type(error) for error in told] == [Cancelled]


def test_a_run_and_the_reading_ahead_of_it_start_one_spark(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first stretch is empty, and its run has tables to make; the second has entries: both ask at once."""
    site.sync(start=text_at(3), end=text_at(5))
    asked, started, stopped = threading.Event(), [], []

    def begin(engine: session.Engine, rows: int) -> None:
        BEGIN(engine, rows)
        asked.set()

    @contextmanager
    def starter(_settings: Any, rows: int) -> Iterator[Any]:
        started.append(rows)
        assert asked.wait(WAIT_SECONDS), "the reading ahead asks while the run's own start is under way"
        yield SimpleNamespace(conf=SimpleNamespace(set=lambda *_: None))
        stopped.append(rows)

    monkeypatch.setattr(session.Engine, "session", SESSION)
    monkeypatch.setattr(session.Engine, "begin", begin)
    settings = site.having(f"feed.start={text_at(2.5)}").settings
    with session.Engine(settings.spark, starter=starter) as engine:
        resources = Resources(settings, None, engine, NullProgress(), lambda: at(8), lambda _: None)
        runs = list(sync.sync_in(resources, SyncRequest()))
    assert [(run.window_start, run.entries_read) for run in runs] == [(ticks_at(2.5), 0), (ticks_at(5), 2)]
    assert (len(started), len(stopped)) == (1, 1)
