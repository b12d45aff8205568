"""When `header_quality` is known to equal `instance_tags`, by the logs alone; and what it counts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable

from dicom_etl.commands.columns.quality import quality_source, standing
from dicom_etl.commands.maintain import output_tables
from dicom_etl.core.settings.load import load_settings
from dicom_etl.lake.delta.commit import append_rows
from dicom_etl.lake.delta.table import create_table
from dicom_etl.lake.lake_id import new_identity
from dicom_etl.lake.paths import lake_paths
from dicom_etl.lake.snapshot import Lake
from dicom_etl.outputs.columns.design import design_of
from dicom_etl.outputs.columns.vr import Outcome
from dicom_etl.outputs.stored_tags import StoredTags
from dicom_etl.tables.tag_quality import BY_DIGIT, COUNTS, HEADER_QUALITY

DESIGN = design_of(["SliceThickness name=thickness", "Manufacturer name=maker", "KVP"])
ROWS = pa.table({"tag": ["kvp"]})


@dataclass(frozen=True)
class Place:
    """A lake whose tables are made by delta-rs, each with the marker that an execution left."""

    lake: Lake

    def write(self, name: str, execution_id: int, design: str) -> DeltaTable:
        path = self.lake.path(name)
        table = create_table(path, ROWS.schema, name=name, properties={"dicomEtl.columns": design})
        append_rows(table, ROWS, app_id=self.lake.app_id(name), run_id=execution_id, details={})
        return DeltaTable(path)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    paths = lake_paths(
        load_settings(None, [f"lake.root={tmp_path}/lake", f"columns.root={tmp_path}/tags"], {}, tmp_path)
    )
    return Place(Lake(paths, new_identity("svc.example")))


@pytest.mark.parametrize(
    ("tags", "quality", "design", "stands"),
    [
        (3, 3, DESIGN.to_json(), True),
        (3, 5, DESIGN.to_json(), True),  # execution 5 changed no row, and counted all
        (5, 3, DESIGN.to_json(), False),  # execution 5 died behind instance_tags
        (3, 3, design_of([]).to_json(), False),  # other tags are counted there
        (3, None, "", False),
    ],
)
def test_it_stands_where_no_execution_died_before_it(
    place: Place, tags: int, quality: int | None, design: str, stands: bool
) -> None:
    counted = None if quality is None else place.write("header_quality", quality, design)
    stored = StoredTags({"instance_tags": place.write("instance_tags", tags, DESIGN.to_json())}, counted)
    assert standing(place.lake, stored, DESIGN) == (1 if stands else None)


def test_it_lies_beside_the_tag_tables_and_is_maintained_like_them(place: Place) -> None:
    place.write("header_quality", 1, DESIGN.to_json())
    assert place.lake.path("header_quality").endswith("/tags/header_quality")
    assert list(output_tables(place.lake)) == ["header_quality"]


def test_a_device_is_told_by_the_columns_of_its_attributes_whatever_their_names() -> None:
    source = quality_source(DESIGN)
    assert (source.manufacturer, source.model) == ("maker", "manufacturerModelName")
    assert source.tags == tuple(column.name for column in DESIGN.columns)
    assert len(source.tags) > 40


def test_each_digit_of_an_outcome_has_the_column_of_its_name() -> None:
    """ABSENT is 0, and counted as absent; what has no digit, as noHeader."""
    camel = [
        one.name.split("_")[0].lower() + "".join(part.title() for part in one.name.split("_")[1:]) for one in Outcome
    ]
    assert list(BY_DIGIT) == camel
    assert (COUNTS[0], len(COUNTS), HEADER_QUALITY.columns.names[4:]) == ("noHeader", 9, list(COUNTS))
