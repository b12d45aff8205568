"""The statements of docs/researchers.md run as they stand there, and give what the page says."""

from __future__ import annotations

import json
import re
from collections import Counter
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from dicom_etl.commands.query import read_only
from dicom_etl.tables.engine.session import cluster_session

PAGE = Path(__file__).parents[3] / "docs" / "researchers.md"
KEY = ("partitionName", "studyInstanceUid", "seriesInstanceUid", "sopInstanceUid")
DAY = date(2019, 10, 19)
SCOUT = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
AXIAL = ["ORIGINAL", "PRIMARY", "AXIAL"]
# Of each CT instance: ImageType, BodyPartExamined, the study's and the series' description, SliceThickness, birth date,
# age, study date; and what the cohort makes of it. As in the demo's files most of them lack something.
CTS: list[tuple[Any, ...]] = [
    (AXIAL, "CHEST", None, None, 1.25, "19400101", None, DAY, "cohort"),
    (None, None, "Ct Thorax nativ", None, 2.0, None, "046Y", DAY, "cohort"),
    (["DERIVED"], None, None, "LUNG 1.0", 0.6, "not a date", "076Y", DAY, "cohort"),
    (AXIAL, "ABDOMEN", "chest/abdomen", None, 1.0, "19731020", "046Y", DAY, "too young"),  # 45 until tomorrow
    (AXIAL, "CHEST", None, None, 1.0, "19731020", "046Y", None, "cohort"),  # no study date: the text
    (AXIAL, "CHEST", None, None, 1.0, "20300101", "050Y", DAY, "cohort"),  # a birth after the study: the text
    (AXIAL, "CHEST", None, None, 1.0, None, "999M", DAY, "cohort"),  # 83 years
    (AXIAL, "CHEST", None, None, 1.0, None, "006M", DAY, "too young"),
    (AXIAL, "CHEST", None, None, 1.0, None, "010D", DAY, "too young"),
    (AXIAL, "CHEST", None, None, 1.0, None, "000Y", DAY, "age not known"),
    (AXIAL, "CHEST", None, None, 1.0, None, "47", DAY, "age not known"),
    (AXIAL, "CHEST", None, None, 1.0, None, None, DAY, "age not known"),
    (AXIAL, "CHEST", None, None, None, "19400101", None, DAY, "thickness not known"),
    (AXIAL, "CHEST", None, None, 5.0, "19400101", None, DAY, "too thick"),
    (SCOUT, "CHEST", None, None, 650.0, "19400101", None, DAY, "localizer"),
    (["ORIGINAL", "PRIMARY", "Localizer"], None, None, None, None, None, None, DAY, "localizer"),
    (AXIAL, "HEAD", None, "Lv2", 1.0, None, "076Y", DAY, "another body part"),
    (AXIAL, None, "Abdomen/Pelvis", None, 1.0, None, "076Y", DAY, "another body part"),
    (None, None, None, None, 5.0, None, None, None, "body part not known"),
    (None, None, "Testing File-set", "e+1", 5.0, None, None, None, "body part not known"),  # text names no part
    (AXIAL, None, "overhead 5/5mm Plain", None, 1.0, None, "076Y", DAY, "body part not known"),
    (AXIAL, "CHEST", None, None, 1.0, None, "077Y", DAY, "cohort"),
    (AXIAL, "CHEST", None, None, 1.0, None, "078Y", DAY, "cohort"),
]
# The tag tables lag behind the last two: one came since, of the other they have an older state. A sequence that is null
# in both, as an adopted row's is, is equal.
ABSENT, OLDER, ADOPTED = len(CTS) - 2, len(CTS) - 1, 0
LAGGING = "tags not computed yet"


def statements() -> list[str]:
    return re.findall(r"```sql\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


def header(values: dict[str, tuple[str, list[Any] | None]]) -> str:
    """DICOM JSON of the attributes that have values."""
    return json.dumps({tag: {"vr": vr, "Value": value} for tag, (vr, value) in values.items() if value is not None})


def one(value: Any) -> list[Any] | None:
    return None if value is None else [value]


def rows() -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The rows of `header` and of `instance_tags` of those instances, and of a picture that is no CT."""
    headers, tags = [], []
    for number, (kind, body, study, series, thickness, birth, age, day, _) in enumerate(CTS):
        values = ("Microsoft.Default", f"1.{number // 2}", "1.1", f"1.1.{number}")
        key = dict(zip(KEY, values, strict=True))
        metadata = header({
            "00080008": ("CS", kind), "0008103E": ("LO", one(series)), "00100010": ("PN", [{"Alphabetic": "A"}]),
            "00100030": ("DA", one(birth)), "00101010": ("AS", one(age)), "00180015": ("CS", one(body)),
            "00180050": ("DS", one(thickness)),
        })  # fmt: skip
        key["sequence"] = None if number == ADOPTED else number
        shared = {"filePath": f"{number}.dcm", "studyDate": day, "studyDescription": study, "modality": "CT"}
        headers.append({**key, **shared, "metadata": metadata})
        born = date.fromisoformat(birth) if birth and birth.isdigit() else None
        chosen = {"bodyPartExamined": body, "seriesDescription": series, "sliceThickness": thickness}
        row = {**key, **chosen, "imageType_all": "\\".join(kind) if kind else None, "patientBirthDate": born}
        tags += {ABSENT: [], OLDER: [{**row, "sequence": number - 1}]}.get(number, [row])
    return [*headers, {**headers[0], "sopInstanceUid": "9", "modality": "MR", "metadata": header({})}], tags


@pytest.fixture(scope="module")
def session(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> SparkSession:
    """The two as views."""
    session = cluster_session(spark)
    for name, of_view in zip(("header", "instance_tags"), rows(), strict=True):
        file = tmp_path_factory.mktemp(name) / "rows.parquet"
        pq.write_table(pa.Table.from_pylist(of_view), file)
        session.read.parquet(str(file)).createTempView(name)
    return session


def test_the_cohort_accounts_for_every_instance_with_and_without_the_tag_tables(session: SparkSession) -> None:
    """Each CT under the condition that it fails, and no instance lost: also one that the tag tables do not have yet."""
    with_tags, header_only = [text for text in statements() if "WITH picture AS" in text]
    _, separator, rest = with_tags.partition("), aged AS (")
    assert separator
    other = header_only.rstrip().removesuffix(")") + separator + rest
    of_headers = {f"{number}.dcm": one[-1] for number, one in enumerate(CTS)}
    of_tags = of_headers | {f"{number}.dcm": LAGGING for number in (ABSENT, OLDER)}
    for text, expected in ((with_tags, of_tags), (other, of_headers)):
        counts = read_only(session, text.strip().rstrip(";")).collect()
        assert {row.outcome: row.instances for row in counts} == Counter(expected.values())
        assert sum(row.instances for row in counts) == len(CTS) == 23
        every, _, _ = text.partition("SELECT outcome, count(*)")
        rows = read_only(session, f"{every} SELECT filePath, outcome FROM judged").collect()  # noqa: S608
        assert {row.filePath: row.outcome for row in rows} == expected


def test_attributes_by_their_paths_and_a_wrong_path_is_null(session: SparkSession) -> None:
    """The page's paths find what is there; with a comma, or a small letter, nothing is found and nothing is said."""
    (text,) = [text for text in statements() if "AS firstReferenced" in text]
    first = read_only(session, text.strip().rstrip(";")).collect()[0]
    assert (first.sliceThickness, first.bodyPart, first.age, first.name) == (1.25, "CHEST", None, "A")
    paths = {"$.0008103E.Value[0]": 3, "$.0008103e.Value[0]": 0, "$.00180050.Value[0]": 21, "$.0018,0050.Value[0]": 0}
    counts = ", ".join(f"count(get_json_object(metadata, '{path}'))" for path in paths)
    assert tuple(read_only(session, f"SELECT {counts} FROM header").collect()[0]) == tuple(paths.values())  # noqa: S608
