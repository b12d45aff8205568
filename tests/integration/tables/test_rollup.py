"""Series and study rows as a pure function of the live instances, on small frames with literal expectations."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from dicom_etl.tables import rollup
from dicom_etl.tables.engine.session import MOST_LITERALS, cluster_session
from dicom_etl.tables.file_skipping import study_ranges
from dicom_etl.tables.merge import read_table
from dicom_etl.tables.schema import INSTANCE
from support.frames import NOON, changes_frame, collected, day, entry, instance, instances_frame

LATER = NOON + timedelta(seconds=1)

# Study 1.1 has two series, 1.2 none without a modality, 1.3 no live instance any more.
INSTANCES = [
    instance("a", 1, patientName="Old", patientId="1", studyDate=day("2024-01-01"), modality="MR"),
    instance("b", 2, patientName="New", lastModifiedTimestamp=LATER, modality="CT"),
    instance("c", 3, seriesInstanceUid="1.1.2", modality="CT", studyDescription="seen", lastModifiedTimestamp=LATER),
    instance("d", 4, studyInstanceUid="1.2", seriesInstanceUid="1.2.1"),
    instance("a", 5, partitionName="q", modality="US"),
]
TOUCHED = [
    ("p", "1.1", "1.1.1"),
    ("p", "1.1", "1.1.2"),
    ("p", "1.2", "1.2.1"),
    ("p", "1.3", "1.3.1"),
    ("p", "1.1", "1.1.9"),
    ("q", "1.1", "1.1.1"),
]


def touched_frame(spark: SparkSession, keys: list[tuple[str, str, str]]) -> Any:
    return spark.createDataFrame(keys, "partitionName string, studyInstanceUid string, seriesInstanceUid string")


@pytest.fixture(scope="module")
def series(spark: SparkSession) -> dict[tuple[str, ...], dict[str, Any]]:
    frame = rollup.series_rows(rollup.summaries(instances_frame(spark, INSTANCES), touched_frame(spark, TOUCHED)))
    return {
        (row.pop("partitionName"), row.pop("studyInstanceUid"), row.pop("seriesInstanceUid")): row
        for row in collected(frame)
    }


@pytest.fixture(scope="module")
def studies(spark: SparkSession) -> dict[tuple[str, ...], dict[str, Any]]:
    frame = rollup.study_rows(rollup.summaries(instances_frame(spark, INSTANCES), touched_frame(spark, TOUCHED)))
    return {(row.pop("partitionName"), row.pop("studyInstanceUid")): row for row in collected(frame)}


def _series(**given: Any) -> dict[str, Any]:
    names = ("lastModifiedTimestamp", "studyDate", "studyDescription", "issuerOfPatientId", "patientId", "patientName",
             "modality", "instanceCount")  # fmt: skip
    return {**dict.fromkeys(names), **given}


def _study(**given: Any) -> dict[str, Any]:
    names = ("lastModifiedTimestamp", "studyDate", "studyDescription", "issuerOfPatientId", "patientId", "patientName",
             "seriesCount", "instanceCount", "modalitiesInStudy")  # fmt: skip
    return {**dict.fromkeys(names), **given}


def test_every_touched_series_has_a_row(series: dict[tuple[str, ...], dict[str, Any]]) -> None:
    """Values of the latest instance that has one, counts, and 0 for a series without instances."""
    assert series == {
        ("p", "1.1", "1.1.1"): _series(
            lastModifiedTimestamp=LATER, studyDate=day("2024-01-01"), patientId="1", patientName="New", modality="CT",
            instanceCount=2,
        ),
        ("p", "1.1", "1.1.2"): _series(
            lastModifiedTimestamp=LATER, studyDescription="seen", modality="CT", instanceCount=1
        ),
        ("p", "1.2", "1.2.1"): _series(lastModifiedTimestamp=NOON, instanceCount=1),
        ("p", "1.3", "1.3.1"): _series(instanceCount=0),
        ("p", "1.1", "1.1.9"): _series(instanceCount=0),
        ("q", "1.1", "1.1.1"): _series(lastModifiedTimestamp=NOON, modality="US", instanceCount=1),
    }  # fmt: skip


def test_every_touched_study_has_a_row(studies: dict[tuple[str, ...], dict[str, Any]]) -> None:
    """Over all its series; modalities sorted and joined, null when there is none; 0 without instances."""
    assert studies == {
        ("p", "1.1"): _study(
            lastModifiedTimestamp=LATER, studyDate=day("2024-01-01"), studyDescription="seen", patientId="1",
            patientName="New", seriesCount=2, instanceCount=3, modalitiesInStudy="CT\\MR",
        ),
        ("p", "1.2"): _study(lastModifiedTimestamp=NOON, seriesCount=1, instanceCount=1),
        ("p", "1.3"): _study(seriesCount=0, instanceCount=0),
        ("q", "1.1"): _study(lastModifiedTimestamp=NOON, seriesCount=1, instanceCount=1, modalitiesInStudy="US"),
    }  # fmt: skip


# Values of one attribute, each (value, seconds after noon, sequence, series, sop), and the one that wins.
LATEST = {
    "by time": ([("a", 2, 1), ("b", 1, 9)], "a"),
    "then by sequence": ([("a", 1, 9), ("b", 1, 1)], "a"),
    "then by series": ([("a", 1, 1, "1.2"), ("b", 1, 1, "1.1")], "a"),
    "then by sop": ([("a", 1, 1, "1.1", "2"), ("b", 1, 1, "1.1", "1")], "a"),
    "never a null": ([(None, 9, 9), ("b", 1, 1)], "b"),
    "nulls only": ([(None, 1, 1), (None, 2, 2)], None),
    "an instance without sequence is the earliest of its time": ([("a", 1, None), ("b", 1, 1)], "b"),
    "an instance without time is the earliest": ([("a", None, 9), ("b", 1, None)], "b"),
    "alone without time and sequence": ([("a", None, None), (None, 1, 1)], "a"),
}


def test_the_latest_value_that_is_not_null_wins(spark: SparkSession) -> None:
    """In the order (lastModifiedTimestamp, sequence, series, sop), nulls first, for each attribute by itself."""
    rows = []
    for case, (values, _) in LATEST.items():
        for number, (value, seconds, sequence, *uids) in enumerate(values):
            series_uid, sop = [*uids, *("1.1", str(number))[len(uids) :]]
            moment = None if seconds is None else NOON + timedelta(seconds=seconds)
            rows.append(instance(sop, sequence, studyInstanceUid=case, seriesInstanceUid=series_uid,
                                 lastModifiedTimestamp=moment, patientName=value))  # fmt: skip
    found = collected(rollup.study_rows(rollup.summaries(instances_frame(spark, rows))))
    assert {row["studyInstanceUid"]: row["patientName"] for row in found} == {
        case: winner for case, (_, winner) in LATEST.items()
    }


def test_touched_are_the_keys_of_every_entry_of_the_runs(spark: SparkSession) -> None:
    """Whatever became of an entry its series is rolled up; runs at the floor and above the run are not."""
    frame = changes_frame(
        spark,
        [
            entry("a", 1, "Create", "Current", runId=3, studyInstanceUid="at the floor"),
            entry("a", 2, "Create", "Replaced", runId=4, studyInstanceUid="replaced"),
            entry("a", 3, "Merge", "Lost", runId=5, studyInstanceUid="rejected"),
            entry("b", 4, "Delete", "Deleted", runId=5, studyInstanceUid="rejected"),
            entry("a", 5, "Create", "Current", runId=6, studyInstanceUid="above the run"),
            entry("a", 6, "Create", "Current", runId=5, studyInstanceUid=None),
            entry("a", 7, "Create", "Current", runId=5, seriesInstanceUid=None),
        ],
    )
    assert sorted(row["studyInstanceUid"] for row in collected(rollup.touched_series(frame, 3, 5))) == [
        "rejected",
        "replaced",
    ]


def test_ranges_take_in_every_study_and_leave_out_the_others(spark: SparkSession) -> None:
    """Of 1 000 studies in at most 64 ranges; instances of studies between two ranges are not read."""
    studies = [f"1.2.{number}" for number in range(0, 2000, 2)]
    ranges = study_ranges(studies)
    assert len(ranges) == 63
    assert study_ranges(["b", "a", "b"]) == [("a", "a"), ("b", "b")]
    assert study_ranges([]) == []
    assert study_ranges(["a", "b", "c"], most=2) == [("a", "b"), ("c", "c")]
    rows = [instance("1", 1, studyInstanceUid=study) for study in [*studies, "1.1", "1.3", "0"]]
    frame = instances_frame(spark, rows)
    assert len(studies) > MOST_LITERALS
    found = collected(rollup.instances_within(frame, ranges, studies))
    assert {row["studyInstanceUid"] for row in found} == set(studies)
    few = collected(rollup.instances_within(frame, [("1.1", "1.3")], ["1.1", "1.2.4"]))
    assert sorted(row["studyInstanceUid"] for row in few) == ["1.1", "1.2.4"]
    assert collected(rollup.instances_within(frame, [], [])) == []


ROWS, PAGE = 100_000, 20_000


@pytest.mark.soak
@pytest.mark.parametrize(("literals", "read"), [(MOST_LITERALS, 2 * PAGE), (0, ROWS)])
def test_of_a_large_file_only_the_pages_with_the_studies_are_read(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, literals: int, read: int
) -> None:
    """Two studies at the ends of one range: two pages by their UIDs; without those (second case) the whole file."""
    monkeypatch.setattr(rollup, "MOST_LITERALS", literals)
    study = F.format_string("1.%06d", F.floor(F.col("id") / 50)).alias("studyInstanceUid")
    blank = (F.lit(None).cast(field.dataType).alias(field.name) for field in INSTANCE.columns.fields[2:])
    rows = spark.range(ROWS).select(F.lit("p").alias("partitionName"), study, *blank)
    path = str(tmp_path / "instance")
    rows.coalesce(1).sortWithinPartitions("studyInstanceUid").write.format("delta").save(path)

    first, last = "1.000003", "1.001996"
    stored = read_table(cluster_session(spark), path)
    found = rollup.instances_within(stored, [(first, last)], {first, last})
    counts = {row["studyInstanceUid"]: row["count"] for row in found.groupBy("studyInstanceUid").count().collect()}

    assert (counts[first], counts[last]) == (50, 50)
    assert len(counts) == (2 if literals else 1994)
    assert _rows_read(found) == read


def _rows_read(frame: DataFrame) -> int:
    """What the one scan of a frame gave, before anything was filtered."""
    jvm: Any = frame
    plan = jvm._jdf.queryExecution().executedPlan()
    plan.executeCollect()
    return int(plan.collectLeaves().head().metrics().apply("numOutputRows").value())
