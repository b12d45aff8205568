"""Each guard has a broken twin: the same check passes the real code and catches the broken one.

A mutant names the rule it breaks, what it puts in the place of what, and the check that must fail then. To
add one is to add a line to MUTANTS (issue 4 has the longer list).
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import ModuleType
from typing import Any

import httpx
import pytest
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from dicom_etl.attributes import ATTRIBUTES, INSTANCE_KEY, SERIES_KEY, STUDY_KEY
from dicom_etl.dicomweb import slices
from dicom_etl.dicomweb.changefeed import read_feed
from dicom_etl.dicomweb.client import connect
from dicom_etl.dicomweb.keyset import Cursor
from dicom_etl.dicomweb.page import Ask
from dicom_etl.entry import Entry
from dicom_etl.lake import changes, rollup
from dicom_etl.settings import Dicom
from dicom_etl.window import Window
from support.frames import NOON, changes_frame, collected, entry, instance, instances_frame

# -- what is checked -----------------------------------------------------------------------------------------


def check_the_fold(spark: SparkSession) -> None:
    """Of six instances two are upserted and two removed, each by its last entry."""
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
    ]
    source = collected(changes.instance_changes(changes_frame(spark, rows), 1, []))
    assert sorted((row["sopInstanceUid"], row["effect"], row["sequence"]) for row in source) == [
        ("created again while the clock stepped back", "upsert", 8),
        ("created, deleted in a later window", "remove", 2),
        ("deleted while the clock stepped back", "remove", 6),
        ("kept", "upsert", 1),
    ]


def check_the_rollup(spark: SparkSession) -> None:
    """A touched series and a touched study without live instances have a row that says 0."""
    live = instances_frame(spark, [instance("a", 1)])
    touched = spark.createDataFrame(
        [("p", "1.1", "1.1.1"), ("p", "1.1", "1.1.2"), ("p", "1.2", "1.2.1")],
        "partitionName string, studyInstanceUid string, seriesInstanceUid string",
    )
    series = {row["seriesInstanceUid"]: row["instanceCount"] for row in collected(rollup.series_rows(touched, live))}
    assert series == {"1.1.1": 1, "1.1.2": 0, "1.2.1": 0}
    studies = {row["studyInstanceUid"]: row["instanceCount"] for row in collected(rollup.study_rows(touched, live))}
    assert studies == {"1.1": 1, "1.2": 0}


# A page is served per list: first one of which every row is gone by now, then one with a row served twice.
FIRST = 17_145_216_000_000_000
ROWS = [(FIRST + number, number + 1, "Deleted" if number < 4 else "Current") for number in range(14)]


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
        read_feed(client, window, batch_size=4, connections=1, sink=got.extend)
    assert [item.sequence for item in sorted(got, key=lambda item: item.ticks)] == list(range(1, 15))


def _page(asked: dict[str, str]) -> list[dict[str, Any]]:
    """A page by service-protocol §2.4; the one from the fifth row on holds a row twice."""
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


def _fold(last: Callable[[DataFrame, Column], DataFrame]) -> Callable[[DataFrame], DataFrame]:
    def folded(entries: DataFrame) -> DataFrame:
        row = F.struct(*(name for name in entries.columns if name not in INSTANCE_KEY))
        return last(entries, row).select(*INSTANCE_KEY, "last.*")

    return folded


def _rolled_up_by_inner_join(touched: DataFrame, instances: DataFrame) -> DataFrame:
    joined = touched.join(instances, on=list(SERIES_KEY), how="inner")
    return joined.groupBy(*SERIES_KEY).agg(F.count("sopInstanceUid").alias("instanceCount"))


def _studies_by_inner_join(touched: DataFrame, instances: DataFrame) -> DataFrame:
    joined = touched.select(*STUDY_KEY).distinct().join(instances, on=list(STUDY_KEY), how="inner")
    return joined.groupBy(*STUDY_KEY).agg(F.count("sopInstanceUid").alias("instanceCount"))


def _reading(goes_on: Callable[[list[Entry], list[Entry], int], bool]) -> Callable[..., bool]:
    """Keyset paging that goes on by another rule: of the page, of what is new in it, and of the limit."""

    def advance(cursor: Cursor, fetch: Any, emit: Any) -> bool:
        page = fetch(Ask(cursor.ticks, cursor.end, len(cursor.seen), cursor.limit, cursor.metadata)).entries
        new = list({item.sequence: item for item in page if item.sequence not in cursor.seen}.values())
        if new:
            if new[-1].ticks != cursor.ticks:
                cursor.ticks, cursor.seen = new[-1].ticks, set()
            cursor.seen.update(item.sequence for item in new if item.ticks == cursor.ticks)
            emit(new)
        return goes_on(page, new, cursor.limit)

    return advance


@dataclass(frozen=True)
class Mutant:
    """A rule, the check that must catch its breach, and the breach: ``module.name`` is replaced by ``broken``."""

    rule: str
    check: Callable[[SparkSession], None]
    module: ModuleType
    name: str
    broken: Callable[..., Any]


MUTANTS = [
    Mutant("Deleted upserted", check_the_fold, changes, "effects", _effects(_deleted_upserted)),
    Mutant("Replaced merged", check_the_fold, changes, "effects", _effects(_replaced_merged)),
    Mutant("fold by time", check_the_fold, changes, "last_of_each_key",
           _fold(lambda rows, row: rows.groupBy(*INSTANCE_KEY).agg(F.max_by(row, "timestamp").alias("last")))),
    Mutant("fold without order", check_the_fold, changes, "last_of_each_key",
           _fold(lambda rows, row: rows.groupBy(*INSTANCE_KEY).agg(F.first(row).alias("last")))),
    Mutant("inner join in the roll-up of series", check_the_rollup, rollup, "series_rows", _rolled_up_by_inner_join),
    Mutant("inner join in the roll-up of studies", check_the_rollup, rollup, "study_rows", _studies_by_inner_join),
    Mutant("stop on a short page", check_the_reading, slices, "advance",
           _reading(lambda _page, new, limit: len(new) >= limit)),
    Mutant("stop on a filtered page", check_the_reading, slices, "advance",
           _reading(lambda page, _new, limit: len(page) >= limit and any(item.has_metadata for item in page))),
]  # fmt: skip
CHECKS = list(dict.fromkeys(mutant.check for mutant in MUTANTS))


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_the_real_code_passes(spark: SparkSession, check: Callable[[SparkSession], None]) -> None:
    """The checks below are those that the product meets."""
    check(spark)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.rule)
def test_the_broken_twin_is_caught(spark: SparkSession, monkeypatch: pytest.MonkeyPatch, mutant: Mutant) -> None:
    """With the guard broken the very same check fails, by its own assertion."""
    assert hasattr(mutant.module, mutant.name)
    monkeypatch.setattr(mutant.module, mutant.name, mutant.broken)
    with pytest.raises(AssertionError):
        mutant.check(spark)


def test_broken_readings_are_right_but_for_their_rule(monkeypatch: pytest.MonkeyPatch, spark: SparkSession) -> None:
    """The twin of the paging with the right rule passes: what is caught is the rule, not the twin."""
    monkeypatch.setattr(slices, "advance", _reading(lambda page, _new, limit: len(page) >= limit))
    check_the_reading(spark)
    assert (
        json.dumps(
            _page({"startTime": "2024-05-01T00:00:00Z", "endTime": "2024-05-02T00:00:00Z", "offset": "4", "limit": "4"})
        ).count("sequence")
        == 4
    )
