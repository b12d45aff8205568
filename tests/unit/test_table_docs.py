"""docs/tables.md says of each column what the schemas, the attributes and DICOM's dictionary say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydicom.datadict import dictionary_VR, keyword_for_tag

from dicom_etl.lake import column_facts
from dicom_etl.lake.ledger import SCHEMA
from dicom_etl.tables.schema import INSTANCE, TABLES
from support.oracle import COLUMNS, KEYS
from tools.table_docs import tables_document

DOCUMENT = Path(__file__).parents[2] / "docs" / "tables.md"
CELLS = ["column", "keyword", "tag", "VR", "type", "null", "what it holds", "example"]
TYPES = {"string", "long", "double", "timestamp", "date"}
Row = dict[str, str]


def tables(text: str) -> dict[str, list[Row]]:
    """The tables of the document: name to rows, each by the heads of its columns."""
    found: dict[str, list[Row]] = {}
    for section in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
        lines = [line for line in section.splitlines() if line.startswith("|")]
        if not lines:
            continue  # a tag table without a column that the shared one does not have
        head, _, *rows = ([cell.strip() for cell in line.strip("|").split(" | ")] for line in lines)
        assert head == CELLS
        found[section.split("`")[1]] = [dict(zip(CELLS, row, strict=True)) for row in rows]
    return found


@pytest.fixture(scope="module")
def documented() -> dict[str, list[Row]]:
    """The tables of the file, of which there are eleven."""
    found = tables(DOCUMENT.read_text(encoding="utf-8"))
    assert {name: len(rows) for name, rows in found.items()} == {
        "instance": 14, "series": 11, "study": 11, "change": 20, "rejected": 10, "run": 30,
        "instance_tags": 3, "study_tags": 4, "header_quality": 13, "output": 20, "fhir_sent": 12,
    }  # fmt: skip
    return found


def test_the_shared_tables_have_their_columns_in_order(documented: dict[str, list[Row]]) -> None:
    """Those that readers rely on, word for word, and their keys; a tag table names what it has of them."""
    text = DOCUMENT.read_text(encoding="utf-8")
    named = "`partitionName`, `studyInstanceUid`, `seriesInstanceUid`, `lastModifiedTimestamp`, `instanceCount`"
    assert f"## `series_tags`\n\nKey: that of `series`. As in `series`: {named}.\n" in text
    for name, columns in COLUMNS.items():
        assert [row["column"].strip("`") for row in documented[name]] == columns
        assert f"## `{name}`\n\nKey: {', '.join(f'`{column}`' for column in KEYS[name])}.\n" in text


def test_every_column_has_its_type_its_null_rule_and_its_meaning(documented: dict[str, list[Row]]) -> None:
    """No cell of any table is empty; key columns are never null."""
    for name, rows in documented.items():
        for row in rows:
            assert row["type"] in TYPES
            assert all(row.values()), (name, row["column"])
            if row["column"].strip("`") in KEYS.get(name, ()):
                assert row["null"] == "never"


def test_keywords_tags_and_vrs_are_those_of_dicom(documented: dict[str, list[Row]]) -> None:
    """Each attribute's keyword and VR are what pydicom's dictionary has for its tag."""
    attributes = 0
    for row in (row for rows in documented.values() for row in rows):
        if row["keyword"] == "-":
            assert (row["tag"], row["VR"]) == ("-", "-")
            continue
        attributes += 1
        assert re.fullmatch(r"\([0-9A-F]{4},[0-9A-F]{4}\)", row["tag"])
        tag = int(row["tag"].strip("()").replace(",", ""), 16)
        assert (row["keyword"], row["VR"]) == (keyword_for_tag(tag), dictionary_VR(tag))
        assert (row["type"] == "date") == (row["VR"] == "DA")
    assert attributes == 10 + 8 + 6 + 10 + 3


@pytest.mark.parametrize("gone", ["filePath", "sequence", "modality"])
def test_a_column_without_a_description_is_noticed(monkeypatch: pytest.MonkeyPatch, gone: str) -> None:
    """The broken twins: a column that nobody has described fails, and one that is no attribute any more as well."""
    if gone in column_facts._FACTS:
        monkeypatch.delitem(column_facts._FACTS, gone)
    else:
        monkeypatch.delitem(column_facts._BY_COLUMN, gone)
    with pytest.raises(KeyError, match=gone):
        tables_document()


def test_new_tables_carry_what_the_document_says(documented: dict[str, list[Row]]) -> None:
    """The comment of each column has the meaning of docs/tables.md, without its Markdown; the types stay plain."""
    for table in TABLES:
        assert [field.name for field in table.columns] == [row["column"].strip("`") for row in documented[table.name]]
        for field, row in zip(table.columns, documented[table.name], strict=True):
            assert row["what it holds"].replace("`", "").replace("**", "") in field.metadata["comment"]
    assert INSTANCE.columns["modality"].metadata == {
        "comment": "Modality (0008,0060): first value in the instance's header. Null when the header has no value"
    }
    comments = [field.metadata[b"comment"] for field in column_facts.commented("run", SCHEMA)]
    assert (len(comments), comments[1]) == (30, b"sync, repair, maintain or adopt; the runs of watch are syncs")
    assert not any(field.metadata for field in SCHEMA)  # its files carry none
