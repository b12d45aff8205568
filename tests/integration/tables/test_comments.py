"""Tables carry what docs/tables.md says of their columns, and a lake without it goes on."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from deltalake import DeltaTable

from dicom_etl.lake.column_facts import column_facts
from dicom_etl.tables.engine.location import sql_name
from dicom_etl.tables.merge import Fence, read_table
from dicom_etl.tables.replace import replace_table
from dicom_etl.tables.schema import SERIES, TableDesign
from support.site import Site

NAMES = ("instance", "series", "study", "change", "rejected", "run")
pytestmark = pytest.mark.jvm


def comments(site: Site, name: str) -> dict[str, str]:
    """By column, as Delta's log has them."""
    return {field.name: field.metadata.get("comment", "") for field in site.opened(name).schema().fields}


def forget_comments(site: Site, name: str) -> None:
    """What an older version made: the same columns without their comments, as a commit of its own."""
    table = site.opened(name)
    log = sorted((site.root / name / "_delta_log").glob("0*.json"))
    actions = [json.loads(line) for file in log for line in file.read_text().splitlines()]
    declared = [action for action in actions if "metaData" in action][-1]
    schema = json.loads(declared["metaData"]["schemaString"])
    for field in schema["fields"]:
        field["metadata"] = {}
    declared["metaData"]["schemaString"] = json.dumps(schema)
    new = site.root / name / "_delta_log" / f"{table.version() + 1:020d}.json"
    new.write_text(json.dumps(declared) + "\n")


def commented(site: Site, name: str) -> bool:
    """Whether each column has the comment of its facts."""
    said = comments(site, name)
    assert len(said) >= 10
    return said == {column: column_facts(name, column).comment for column in said}


def test_new_tables_have_comments_and_older_ones_go_on_without(make_site: Callable[..., Site]) -> None:
    """All six have one for each column, also after a MERGE, and Spark shows them; a lake without is written on.

    A table that is put in the place of one without has them.
    """
    site = make_site()
    site.create("1.1", "1.1.1", "1.1.1.1")
    site.create("1.1", "1.1.1", "1.1.1.2")
    site.clock(9.5)
    site.sync()
    assert {name: commented(site, name) for name in NAMES} == dict.fromkeys(NAMES, True)
    assert site.spark is not None
    described = site.spark.sql(f"DESCRIBE {sql_name(site.place('instance'))}").collect()
    comment = "Modality (0008,0060): first value in the instance's header. Null when the header has no value"
    said = ("modality", "string", comment)
    assert said in [tuple(row) for row in described]

    for name in NAMES:
        forget_comments(site, name)
        assert set(comments(site, name).values()) == {""}
    site.create("1.2", "1.2.1", "1.2.1.1")
    site.clock(11.5)
    site.sync()
    assert {name: len(rows) for name, rows in site.tables().items()} == {"instance": 3, "series": 2, "study": 2}
    assert site.tables() == site.expected()
    assert not any(commented(site, name) for name in NAMES)

    place = site.place("series")
    design = TableDesign((), 720, False, {})
    replaced = replace_table(site.spark, SERIES, place, lambda spark: read_table(spark, place), Fence("a", 1), design)
    assert replaced == DeltaTable(place).version()
    assert commented(site, "series")
    assert site.tables() == site.expected()
