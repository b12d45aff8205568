"""Rows of `instance_tags` as a pure function, on small frames with literal expectations."""

from __future__ import annotations

from typing import Any

import pytest
from pyspark.sql import DataFrame, SparkSession

from dicom_etl.outputs.columns.batches import batch_parser
from dicom_etl.outputs.columns.design import design_of
from dicom_etl.tables.tag_headers import current_entries, latest_headers
from dicom_etl.tables.tag_rows import Inputs, classified, create_entries, dormant_creates, live_rows
from dicom_etl.tables.tag_schema import TagColumn, TagTables
from support.frames import changes_frame, entry, instance, instances_frame

DESIGN = design_of(["KVP"], imaging=False)
TABLES = TagTables((TagColumn("kvp", "double", "instance", "KVP"),))


def header(kvp: int) -> str:
    return f'{{"00180060": {{"vr": "DS", "Value": [{kvp}]}}}}'


def headers(changes: DataFrame) -> DataFrame:
    return latest_headers(current_entries(changes), TABLES.columns, batch_parser(DESIGN))


def values(rows: DataFrame, *names: str) -> dict[str, tuple[Any, ...]]:
    """The named columns of each row, by instance; one row an instance."""
    found = rows.select("sopInstanceUid", *names).collect()
    assert len({row[0] for row in found}) == len(found)
    return {row[0]: tuple(row[1:]) for row in found}


def test_a_header_belongs_to_an_instance_by_key_and_sequence(spark: SparkSession) -> None:
    """A service that was restored gives sequence 5 to b again, and 7 to an instance that is gone since."""
    changes = changes_frame(
        spark,
        [
            entry("a", 5, "Create", "Current", metadata=header(80)),
            entry("b", 5, "Create", "Current", metadata=header(100), runId=2),
            entry("gone", 7, "Create", "Current", metadata=header(120), runId=2),
            entry("d", 6, "Create", "Current", metadata=header(60)),
            entry("d", 6, "Create", "Current", metadata=header(70), runId=2),
        ],
    )
    live = [instance("a", 5), instance("b", 5), instance("c", 7), instance("d", 6)]
    inputs = Inputs(
        live=live_rows(instances_frame(spark, live)),
        headers=headers(changes),
        creates=create_entries(changes, 0),
        stored=spark.createDataFrame([], TABLES.instance.columns),
        touched=None,
    )
    assert values(classified(TABLES.instance, inputs), "kvp", "headerState") == {
        "a": (80.0, "ok"),
        "b": (100.0, "ok"),
        "c": (None, "missing"),
        "d": (70.0, "ok"),
    }


# Runs 1 and 2 read a service that was then restored to a backup of before sequence 3; run 5 rebuilt the tables.
ENTRIES = [
    entry("again", 1, "Create", "Replaced"),
    entry("again", 4, "Create", "Replaced"),
    entry("again", 1, "Create", "Replaced", runId=5),
    entry("again", 6, "Update", "Current", runId=6),
    entry("later", 2, "Create", "Current"),
    entry("later", 9, "Create", "Current", runId=6),
    entry("purged", 8, "Update", "Current", runId=6),
]
LIVE = [instance("again", 6), instance("later", 2), instance("purged", 8)]
STORED = {"again": (4, 4), "later": (2, None), "purged": (7, 3)}


@pytest.mark.parametrize(
    ("rebuilt", "stands", "created"),
    [
        (0, True, {"again": 4, "later": 2, "purged": 3}),
        (5, True, {"again": 4, "later": None, "purged": 3}),
        (5, False, {"again": 1, "later": None, "purged": None}),
    ],
)
def test_a_row_is_created_by_the_last_create_up_to_its_own_entry(
    spark: SparkSession, rebuilt: int, stands: bool, created: dict[str, int | None]
) -> None:
    """Never by a later one (9), nor, once the tables were rebuilt, by one of the service before its restore (4)."""
    changes = changes_frame(spark, ENTRIES)
    names = TABLES.instance.columns.names
    held = [
        {**instance(sop, sequence), "createdSequence": by, "headerState": "ok"}
        for sop, (sequence, by) in STORED.items()
    ]
    inputs = Inputs(
        live=live_rows(instances_frame(spark, LIVE)),
        headers=headers(changes),
        creates=create_entries(changes, rebuilt),
        stored=spark.createDataFrame([tuple(row.get(name) for name in names) for row in held], TABLES.instance.columns),
        touched=None,
        created_stands=stands,
    )
    found = values(classified(TABLES.instance, inputs), "createdSequence", "sequence")
    assert {sop: sequence for sop, (_, sequence) in found.items()} == {"again": 6, "later": 2, "purged": 8}
    assert {sop: by for sop, (by, _) in found.items()} == created


def test_a_create_that_made_no_row_counts_from_the_last_rebuild_on(spark: SparkSession) -> None:
    """Replaced when it was read, or rejected; of runs from one to another."""
    more = [entry("bad", 3, "Create", "Current", runId=5), entry("too late", 7, "Create", "Replaced", runId=6)]
    found = dormant_creates(changes_frame(spark, ENTRIES + more), (5, 5), {3})
    assert sorted((row["sopInstanceUid"], row["created"]) for row in found.collect()) == [("again", 1), ("bad", 3)]
    everything = dormant_creates(changes_frame(spark, ENTRIES + more), (0, 6), {3})
    assert sorted(row["created"] for row in everything.collect()) == [1, 1, 3, 4, 7]
