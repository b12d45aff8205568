"""docs/tables.md, made from the schemas: ``python -m dicom_etl.table_docs > docs/tables.md`` (a test compares)."""

from __future__ import annotations

import pyarrow as pa
from pyspark.sql.types import DataType

from dicom_etl.attributes import ATTRIBUTES, Attribute
from dicom_etl.lake.schema import TABLES, Table
from dicom_etl.landing.rejects import rejected_schema
from dicom_etl.landing.schema import change_schema
from dicom_etl.runs.ledger import SCHEMA as RUN_SCHEMA

_ATTRIBUTES: dict[str, Attribute] = {attribute.column: attribute for attribute in ATTRIBUTES}

_HEAD = """# The tables, column by column

Made from the schemas by `make docs`; do not edit. Times are UTC. Empty values are null, never `""`.

Values of DICOM attributes: the first element of the attribute's `Value`; when that is null or empty, null, and no search
for another. Spaces and NULs are stripped at both ends. A number in a text column is written as in the JSON; an object or
a list there is null. A person's name is its Alphabetic group. A date is eight digits that are a date, else null.
"""

_SPECIAL = {
    "partitionName": "data partition of the service; `Microsoft.Default` where it has none",
    "studyInstanceUid": "StudyInstanceUID (0020,000D), padding stripped",
    "seriesInstanceUid": "SeriesInstanceUID (0020,000E), padding stripped",
    "sopInstanceUid": "SOPInstanceUID (0008,0018), padding stripped",
    "filePath": "name of the DICOM file inside the container, as the feed gives it; null without a data lake",
    "sequence": "the entry of the feed that the row stands for; grows with each change of an instance",
    "instanceCount": "how many living instances",
    "seriesCount": "how many series with living instances",
    "modalitiesInStudy": "distinct modalities of the instances, sorted, joined by a backslash; null when none has one",
    "timestamp": "time of the entry, cut to microseconds",
    "timestampTicks": "time of the entry in 100 ns since 1970, whole",
    "metadata": "the header as the service sent it, DICOM JSON; null with `lake.keep_metadata = false`",
    "readAt": "when the run that read the entry began",
    "action": "Create, Update or Delete",
    "state": "Current, Replaced or Deleted: what the entry was when it was read",
    "runId": "the run; ids grow",
    "coveredUntil": "up to where the run counts as done: the end of its window, or its beginning less `feed.delay`",
    "superseded": "entries that changed nothing: not the last of their key, replaced, older than the row, nothing to remove",
    "repeated": "entries that were met more than once",
    "errorClass": "class of the error that ended the run; null when it succeeded",
    "reason": "code of why the entry could not be used",
    "status": "of a run: succeeded, failed, superseded; of a reject: open, resolved, void",
}

_LAST_MODIFIED = {
    "instance": "time of the instance's last Create or Update",
    "series": "the maximum over the living instances",
    "study": "the maximum over the living instances",
}

_SPARK_TYPES = {"bigint": "long"}
_ARROW_TYPES = {"int64": "long", "double": "double", "string": "string", "date32[day]": "date"}


def tables_document() -> str:
    """The whole of docs/tables.md."""
    sections = [_HEAD, *(_shared(table) for table in TABLES)]
    for name, schema in (("change", change_schema()), ("rejected", rejected_schema()), ("run", RUN_SCHEMA)):
        sections.append(_section(name, None, [_row(f.name, _arrow_type(f.type), name) for f in schema]))
    return "\n".join(sections)


def _shared(table: Table) -> str:
    rows = [_row(field.name, _spark_type(field.dataType), table.name) for field in table.columns]
    return _section(table.name, table.key, rows)


def _section(name: str, key: tuple[str, ...] | None, rows: list[str]) -> str:
    about = f"Key: {', '.join(f'`{column}`' for column in key)}.\n\n" if key else ""
    head = "| column | type | what it holds |\n|---|---|---|\n"
    return f"## `{name}`\n\n{about}{head}" + "\n".join(rows) + "\n"


def _row(column: str, kind: str, table: str) -> str:
    return f"| `{column}` | {kind} | {_meaning(column, table)} |"


def _meaning(column: str, table: str) -> str:
    if column == "lastModifiedTimestamp":
        return _LAST_MODIFIED[table]
    attribute = _ATTRIBUTES.get(column)
    if attribute is None:
        return _SPECIAL.get(column, "")
    where = "" if table in ("instance", "change") else "; the latest value that is not null"
    return f"{attribute.keyword} ({attribute.tag[:4]},{attribute.tag[4:]}), VR {attribute.vr}{where}"


def _spark_type(kind: DataType) -> str:
    name = kind.simpleString()
    return _SPARK_TYPES.get(name, name)


def _arrow_type(kind: pa.DataType) -> str:
    return "timestamp" if pa.types.is_timestamp(kind) else _ARROW_TYPES[str(kind)]


if __name__ == "__main__":
    print(tables_document(), end="")
