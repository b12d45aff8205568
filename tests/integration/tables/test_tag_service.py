"""Which rows of `instance_tags` an answer of the service fills, on a small frame with literal expectations."""

from __future__ import annotations

from pyspark.sql import SparkSession

from dicom_etl.tables.tag_schema import TagColumn, TagTables, answer_columns
from dicom_etl.tables.tag_service import filled
from support.frames import NOON

TABLE = TagTables(
    (TagColumn("kvp", "double", "instance", "KVP"), TagColumn("rows", "long", "instance", "Rows"))
).instance
# Of each stored row: sequence, createdSequence, headerState, headerQuality.
STORED = {
    "missing": (5, 2, "missing", None),
    "new tag": (6, 6, "ok", "1-"),
    "whole": (7, 7, "ok", "11"),
    "changed since": (9, 9, "missing", None),
}
ASKED = {"missing": 5, "new tag": 6, "whole": 7, "changed since": 8, "gone since": 4}


def test_a_row_is_filled_where_it_still_lacks_what_was_asked_for(spark: SparkSession) -> None:
    """Its header, or that of a tag that was chosen later; its own sequences and time stay."""
    key = ("p", "1.1", "1.1.1")
    stored = [(*key, sop, NOON, *own, None, None) for sop, own in STORED.items()]
    answers = [(*key, sop, "ok", "11", 80.0, 512, asked) for sop, asked in ASKED.items()]
    rows = filled(
        TABLE,
        spark.createDataFrame(answers, answer_columns(TABLE, "asked")),
        spark.createDataFrame(stored, TABLE.columns),
        ("sequence", "headerQuality"),
    ).collect()
    assert {row["sopInstanceUid"]: row["effect"] for row in rows} == {
        "missing": "upsert",
        "new tag": "upsert",
        "whole": "same",
        "changed since": "same",
        "gone since": "same",
    }
    names = ("sequence", "createdSequence", "headerState", "headerQuality", "kvp", "rows", "was")
    assert {row["sopInstanceUid"]: tuple(row[n] for n in names) for row in rows if row["effect"] == "upsert"} == {
        "missing": (5, 2, "ok", "11", 80.0, 512, (5, None)),
        "new tag": (6, 6, "ok", "11", 80.0, 512, (6, "1-")),
    }
