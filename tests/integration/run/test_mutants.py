"""Each guard has a broken twin: the same check passes the real code and catches the broken one.

A mutant names the rule it breaks, what it puts in the place of what, the check that must fail then, and what the
failing assertion says. To add one is to add a line to MUTANTS. Here are the rules of small frames and of single pages;
those of the MERGEs are in test_mutants_merges, those of whole runs in test_mutants_runs.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from dicom_etl.core.attributes import ATTRIBUTES, INSTANCE_KEY, SERIES_KEY
from dicom_etl.core.entry import Entry
from dicom_etl.core.errors import ProtocolError
from dicom_etl.core.settings.model import Dicom
from dicom_etl.core.timerange import Window, format_instant
from dicom_etl.dicomweb.connect import connect
from dicom_etl.dicomweb.feed import page, paging, parallel
from dicom_etl.dicomweb.feed.page import Page, PageRequest
from dicom_etl.dicomweb.feed.paging import Cursor
from dicom_etl.dicomweb.feed.reader import FeedReader, read_feed
from dicom_etl.landing import rows as landed_rows
from dicom_etl.tables import fold, rollup
from support.broken import Mutant, assert_caught, checks
from support.frames import NOON, changes_frame, collected, entry, instance, instances_frame

# -- what is checked -----------------------------------------------------------------------------------------


def check_the_fold(spark: SparkSession) -> None:
    """Of seven instances two are upserted and two removed, each by its last entry."""
    later = NOON + timedelta(hours=1)
    rows = [
        entry("kept", 1, "Create", "Current"),
        entry("created, deleted in a later window", 2, "Create", "Deleted"),
        entry("created, updated in a later window", 3, "Create", "Replaced"),
        entry("deleted, created again in a later window", 4, "Delete", "Replaced"),
        entry("deleted while the clock stepped back", 5, "Create", "Deleted", timestamp=later),
        entry("deleted while the clock stepped back", 6, "Delete", "Deleted", filePath="last"),
        entry("created again while the clock stepped back", 7, "Delete", "Replaced", timestamp=later),
        entry("created again while the clock stepped back", 8, "Create", "Current", filePath="last"),
        entry("landed by a dead run, gone since", 9, "Create", "Current", runId=0),
    ]
    source = collected(fold.changing(fold.folded(changes_frame(spark, rows), 1, [])))
    fates = {row["sopInstanceUid"]: (row["effect"], row["sequence"]) for row in source}
    assert len(source) == len(fates), "one row per instance"
    assert fates.get("kept") == ("upsert", 1), "Current is upserted"
    assert fates.get("created, deleted in a later window") == ("remove", 2), "Deleted removes, whatever the action"
    replaced = {"created, updated in a later window", "deleted, created again in a later window"}
    assert not replaced & fates.keys(), "Replaced has no effect"
    assert [fates.get(f"{what} while the clock stepped back") for what in ("deleted", "created again")] == [
        ("remove", 6),
        ("upsert", 8),
    ], "the entry with the highest sequence decides"
    assert "landed by a dead run, gone since" not in fates, "a run merges only what it has read itself"


def check_bad_entries(spark: SparkSession) -> None:
    """Neither a row of nulls nor a void entry comes into the source, and what is unfit does not hide what is fit."""
    rows = [
        entry("unreadable", 1, "Create", "Replaced"),
        entry("unreadable", 2, "Update", "Current"),
        entry("unfit", 3, "Create", "Current", filePath="first"),
        entry("unfit", 4, "Update", "Current"),
        entry("expired", 8, "Expire", "Deleted"),
        entry("expired, and again", 9, "Expire", "Replaced"),
        entry("moved away", 5, "Create", "Current"),
        entry("moved away and created again", 6, "Create", "Deleted"),
        entry("moved away and created again", 7, "Create", "Current"),
    ]
    voids = {("p", "1.1", "1.1.1", f"moved away{more}"): 6 for more in ("", " and created again")}
    source = collected(fold.changing(fold.folded(changes_frame(spark, rows), 1, [2], [4], voids)))
    fates = {row["sopInstanceUid"]: (row["effect"], row["sequence"]) for row in source}
    assert fates.get("moved away and created again") == ("upsert", 7), "an entry above its void lives"
    assert fates.get("expired") == ("remove", 8), "the state decides, whatever the action is called"
    assert "expired, and again" not in fates, "the state decides, whatever the action is called"
    assert "unreadable" not in fates, "without readable metadata there is no row"
    assert fates.get("unfit") == ("upsert", 3), "unfit entries take no part in the fold"
    assert fates.get("moved away") == ("remove", 5), "an entry up to its void counts as Deleted"


def check_the_touched(spark: SparkSession) -> None:
    """Every series of every entry since the roll-ups' marker, whatever became of the entry."""
    rows = [
        entry("1", 1, "Create", "Current", runId=4, seriesInstanceUid="rolled up before"),
        entry("1", 2, "Create", "Current", runId=5, seriesInstanceUid="of a dead run"),
        entry("1", 3, "Create", "Replaced", runId=6, seriesInstanceUid="replaced"),
        entry("1", 4, "Delete", "Deleted", runId=6, seriesInstanceUid="deleted"),
    ]
    touched = collected(rollup.touched_series(changes_frame(spark, rows), 4, 6))
    series = {row["seriesInstanceUid"] for row in touched}
    assert "deleted" in series, "what this run has read is touched"
    assert "of a dead run" in series, "what dead runs have left is touched"
    assert "replaced" in series, "whatever became of the entry"
    assert "rolled up before" not in series, "what the roll-ups have taken is not touched again"


def check_the_rollup(spark: SparkSession) -> None:
    """A touched series and a touched study without live instances have a row that says 0."""
    live = instances_frame(spark, [instance("a", 1)])
    touched = spark.createDataFrame(
        [("p", "1.1", "1.1.1"), ("p", "1.1", "1.1.2"), ("p", "1.2", "1.2.1")],
        "partitionName string, studyInstanceUid string, seriesInstanceUid string",
    )
    made = rollup.summaries(live, touched)
    series = {row["seriesInstanceUid"]: row["instanceCount"] for row in collected(rollup.series_rows(made))}
    assert series == {"1.1.1": 1, "1.1.2": 0, "1.2.1": 0}, "an empty series has a row"
    studies = {row["studyInstanceUid"]: row["instanceCount"] for row in collected(rollup.study_rows(made))}
    assert studies == {"1.1": 1, "1.2": 0}, "an empty study has a row"


def check_the_latest_value(spark: SparkSession) -> None:
    """Of three instances the last has no name and the one before it has: nulls do not win, and time decides."""
    live = [
        instance("a", 3, patientName="Oldest"),
        instance("b", 1, patientName="Latest", lastModifiedTimestamp=NOON + timedelta(hours=1)),
        instance("c", 2, lastModifiedTimestamp=NOON + timedelta(hours=2)),
    ]
    (row,) = collected(rollup.series_rows(rollup.summaries(instances_frame(spark, live))))
    assert row["instanceCount"] == 3, "all three are counted"
    assert row["patientName"] == "Latest", "the latest value that is not null"


# A page is served per list: first one of which every row is gone by now, then one with a row served twice, and
# three rows at one instant across the edge of a page.
FIRST = 17_145_216_000_000_000
TIE = (10, 11, 12)
ROWS = [
    (FIRST + (9 if number + 1 in TIE else number), number + 1, "Deleted" if number < 4 else "Current")
    for number in range(14)
]


def check_the_reading(_: SparkSession) -> None:
    """Every entry of the feed is read, once."""
    got: list[Entry] = []
    lock = threading.Lock()

    def answer(request: httpx.Request) -> httpx.Response:
        with lock:
            return httpx.Response(200, json=_page(dict(request.url.params)))

    settings = Dicom("http://127.0.0.1:1", 2, "none", "T", 1, 10.0, 10.0)
    with connect(settings, transport=httpx.MockTransport(answer), sleep=lambda _: None) as client:
        window = Window(FIRST - 5, FIRST + 100)
        # A reader that goes round in circles may be stopped by its own checks: entries are missing all the same.
        with suppress(ProtocolError):
            read_feed(FeedReader(client, 4, 1), window, got.extend)
    assert sorted(item.sequence for item in got) == list(range(1, 15)), "every entry of the feed is read, once"


def _page(asked: dict[str, str]) -> list[dict[str, Any]]:
    """A page (design/service-protocol.md: Paging the feed); the one from the fifth row on holds a row twice."""
    start, end = (_ticks(asked[name]) for name in ("startTime", "endTime"))
    rows = [row for row in ROWS if start <= row[0] < end][int(asked["offset"]) :][: int(asked["limit"])]
    if len(rows) == 4 and rows[0][1] == 5:
        rows = [rows[0], rows[0], *rows[1:3]]
    return [_entry(*row) for row in rows]


def _entry(ticks: int, sequence: int, state: str) -> dict[str, Any]:
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=ticks // 10_000_000)
    timestamp = f"{moment:%Y-%m-%dT%H:%M:%S}.{ticks % 10_000_000:07d}+00:00"
    body = {"sequence": sequence, "timestamp": timestamp, "action": "Create", "state": state}
    return {**body, "metadata": {}} if state == "Current" else body


def _ticks(text: str) -> int:
    head, _, fraction = text.removesuffix("Z").partition(".")
    moment = datetime.fromisoformat(head + "+00:00")
    return int(moment.timestamp()) * 10_000_000 + int((fraction or "0").ljust(7, "0"))


def check_the_keys(_: SparkSession) -> None:
    """An instance whose UIDs were padded once and not the next time is one instance."""
    uids = [("1.2 ", "1.2.3\0", "1.2.3.4"), ("1.2", "1.2.3", "1.2.3.4 ")]
    entries = [
        Entry(number, "", "p", *uid, action="Create", state="Current", ticks=FIRST) for number, uid in enumerate(uids)
    ]
    batch = landed_rows.rows_of(entries, run_id=1, read_at=NOON).batch
    assert batch.num_rows == 2
    keys = set(zip(*(batch[name].to_pylist() for name in INSTANCE_KEY), strict=True))
    assert keys == {("p", "1.2", "1.2.3", "1.2.3.4")}, "padded or not, it is the same key"


# -- what is broken ------------------------------------------------------------------------------------------


def _effects(effect: Callable[[], Column]) -> Callable[..., DataFrame]:
    def effects(last: DataFrame, _unusable: Any) -> DataFrame:
        values = (a.column for a in ATTRIBUTES)
        moment = F.col("timestamp").alias("lastModifiedTimestamp")
        return last.select(*INSTANCE_KEY, moment, *values, "filePath", "sequence", effect().alias("effect"))

    return effects


def _deleted_upserted() -> Column:
    """Create and Update are upserts, whatever became of the instance: the template's ghosts."""
    written = F.col("action").isin("Create", "Update") & (F.col("state") != "Replaced")
    return F.when(written, "upsert").when(F.col("state") == "Replaced", "leave").otherwise("remove")


def _replaced_merged() -> Column:
    """A Replaced entry is merged by its action: the Delete takes a living row away."""
    deleted = (F.col("state") == "Deleted") | (F.col("action") == "Delete")
    return F.when(deleted, "remove").otherwise("upsert")


def _by_state_alone() -> Column:
    """Nobody asks whether there is metadata: nulls overwrite what stands."""
    return F.when(F.col("state") == "Deleted", "remove").when(F.col("state") == "Replaced", "leave").otherwise("upsert")


def _fold(last: Callable[[DataFrame, Column], DataFrame]) -> Callable[[DataFrame], DataFrame]:
    def folded(entries: DataFrame) -> DataFrame:
        row = F.struct(*(name for name in entries.columns if name not in INSTANCE_KEY))
        return last(entries, row).select(*INSTANCE_KEY, "last.*", F.lit(1).alias("entries"))

    return folded


def _entries_of_all_runs(landed: DataFrame, run_id: int, _unfit: Any = ()) -> DataFrame:
    """What dead runs landed is merged together with what this run has read."""
    carried = ("sequence", "timestamp", "timestampTicks", "action", "state", "filePath")
    return landed.where(F.col("runId") <= run_id).select(*INSTANCE_KEY, *carried, *(a.column for a in ATTRIBUTES))


def _entries_with_unfit_ones(landed: DataFrame, run_id: int, _unfit: Any = ()) -> DataFrame:
    """Rejects are taken out after the fold only, where they hide the entries before them."""
    return _entries_of_all_runs(landed.where(F.col("runId") == run_id), run_id)


def _of_known_actions(entries: DataFrame, real: Any = fold.last_of_each_key) -> DataFrame:
    """What a word means that we do not know, nobody can tell: such entries take no part."""
    return real(entries.where(F.col("action").isin("Create", "Update", "Delete")))


def _touched(which: Callable[[int, int], Column]) -> Callable[..., DataFrame]:
    return lambda landed, above, up_to: landed.where(which(above, up_to)).select(*SERIES_KEY).distinct()


def _of_live_instances_only(
    instances: DataFrame, _touched: DataFrame | None = None, real: Any = rollup.summaries
) -> DataFrame:
    return real(instances)


def _living_studies(summaries: DataFrame, real: Any = rollup.study_rows) -> DataFrame:
    return real(summaries).where("instanceCount > 0")


def _valued(value: Column) -> Column:
    return F.struct(value.alias("value"))


def _reading(goes_on: Callable[[list[Entry], list[Entry], int], bool]) -> Callable[..., bool]:
    """Keyset paging that goes on by another rule: of the page, of what is new in it, and of the limit."""

    def advance(cursor: Cursor, fetch: Any, emit: Any) -> bool:
        page = fetch(PageRequest(cursor.ticks, cursor.end, len(cursor.seen), cursor.limit, cursor.metadata)).entries
        new = list({item.sequence: item for item in page if item.sequence not in cursor.seen}.values())
        if new:
            if new[-1].ticks != cursor.ticks:
                cursor.ticks, cursor.seen = new[-1].ticks, set()
            cursor.seen.update(item.sequence for item in new if item.ticks == cursor.ticks)
            emit(Page(new, 0))
        return goes_on(page, new, cursor.limit)

    return advance


def _move_past_the_last_timestamp(cursor: Cursor, new: list[Entry]) -> None:
    cursor.page_entries, cursor.page_ticks = len(new), new[-1].ticks - new[0].ticks
    cursor.ticks, cursor.seen = new[-1].ticks + 1, set()


READ = "every entry of the feed is read, once"
MUTANTS = [
    Mutant("Deleted upserted", check_the_fold, fold, "effects", _effects(_deleted_upserted), "Deleted removes"),
    Mutant("Replaced merged", check_the_fold, fold, "effects", _effects(_replaced_merged), "Replaced has no effect"),
    Mutant("fold by time", check_the_fold, fold, "last_of_each_key",
           _fold(lambda rows, row: rows.groupBy(*INSTANCE_KEY).agg(F.max_by(row, "timestamp").alias("last"))),
           "the entry with the highest sequence decides"),
    Mutant("fold without order", check_the_fold, fold, "last_of_each_key",
           _fold(lambda rows, row: rows.groupBy(*INSTANCE_KEY).agg(F.first(row).alias("last"))),
           "the entry with the highest sequence decides"),
    Mutant("a landing of another run merged", check_the_fold, fold, "entries_of_run", _entries_of_all_runs,
           "a run merges only what it has read itself"),
    Mutant("nulls where metadata could not be read", check_bad_entries, fold, "effects", _effects(_by_state_alone),
           "without readable metadata there is no row"),
    Mutant("rejects before the fold hide what is fit", check_bad_entries, fold, "entries_of_run",
           _entries_with_unfit_ones, "unfit entries take no part in the fold"),
    Mutant("known actions only", check_bad_entries, fold, "last_of_each_key", _of_known_actions,
           "the state decides, whatever the action is called"),
    Mutant("voids forgotten", check_bad_entries, fold, "as_deleted", lambda last, _voids: last,
           "an entry up to its void counts as Deleted"),
    Mutant("touched: of this run alone", check_the_touched, rollup, "touched_series",
           _touched(lambda _above, up_to: F.col("runId") == up_to), "what dead runs have left is touched"),
    Mutant("touched: not by Replaced entries", check_the_touched, rollup, "touched_series",
           _touched(lambda above, _: (F.col("runId") > above) & (F.col("state") != "Replaced")),
           "whatever became of the entry"),
    Mutant("series of live instances only", check_the_rollup, rollup, "summaries", _of_live_instances_only,
           "an empty series has a row"),
    Mutant("studies of live instances only", check_the_rollup, rollup, "study_rows", _living_studies,
           "an empty study has a row"),
    Mutant("the last row's value, null or not", check_the_latest_value, rollup, "_latest",
           lambda column: _valued(F.max_by(F.col(column), "lastModifiedTimestamp")),
           "the latest value that is not null"),
    Mutant("the value of the highest sequence", check_the_latest_value, rollup, "_latest",
           lambda column: _valued(F.max_by(F.col(column), F.when(F.col(column).isNotNull(), F.col("sequence")))),
           "the latest value that is not null"),
    Mutant("stop on a short page", check_the_reading, parallel, "advance",
           _reading(lambda _page, new, limit: len(new) >= limit), READ),
    Mutant("stop on a filtered page", check_the_reading, parallel, "advance",
           _reading(lambda page, _new, limit: len(page) >= limit and any(item.has_metadata for item in page)), READ),
    Mutant("6-digit timestamps", check_the_reading, page, "format_instant",
           lambda ticks: format_instant(ticks // 10 * 10), READ),
    Mutant("go on after the last timestamp", check_the_reading, paging, "_move", _move_past_the_last_timestamp, READ),
    Mutant("one entry an instant", check_the_reading, paging, "_distinct",
           lambda entries: list({item.ticks: item for item in entries}.values()), READ),
    Mutant("read twice what is listed twice", check_the_reading, paging, "_distinct", lambda entries: entries, READ),
    Mutant("UIDs as they come", check_the_keys, landed_rows, "stripped", lambda text: text,
           "padded or not, it is the same key"),
]  # fmt: skip


@pytest.mark.parametrize("check", checks(MUTANTS), ids=lambda check: check.__name__)
def test_the_real_code_passes(spark: SparkSession, check: Callable[[SparkSession], None]) -> None:
    """The checks below are those that the product meets."""
    check(spark)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.rule)
def test_the_broken_twin_is_caught(spark: SparkSession, mutant: Mutant) -> None:
    """With the guard broken the very same check fails, by its own assertion."""
    assert_caught(mutant, spark)


def test_broken_readings_are_right_but_for_their_rule(monkeypatch: pytest.MonkeyPatch, spark: SparkSession) -> None:
    """The twin of the paging with the right rule passes: what is caught is the rule, not the twin."""
    monkeypatch.setattr(parallel, "advance", _reading(lambda page, _new, limit: len(page) >= limit))
    check_the_reading(spark)
    day = {"startTime": "2024-05-01T00:00:00Z", "endTime": "2024-05-02T00:00:00Z"}
    assert [row["sequence"] for row in _page({**day, "offset": "4", "limit": "4"})] == [5, 5, 6, 7]
    assert [row["sequence"] for row in _page({**day, "offset": "7", "limit": "4"})] == [8, 9, 10, 11]


def test_broken_effects_and_folds_are_right_but_for_their_rule(
    monkeypatch: pytest.MonkeyPatch, spark: SparkSession
) -> None:
    """The same for the twins of the fold."""
    by_sequence = _fold(lambda rows, row: rows.groupBy(*INSTANCE_KEY).agg(F.max_by(row, "sequence").alias("last")))
    monkeypatch.setattr(fold, "last_of_each_key", by_sequence)
    monkeypatch.setattr(fold, "effects", _effects(_by_state_alone))
    check_the_fold(spark)
