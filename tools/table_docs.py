"""docs/tables.md, from the schemas."""

from __future__ import annotations

import pyarrow as pa
from pyspark.sql.types import DataType

from dicom_etl.core.attributes import Attribute
from dicom_etl.lake.change_schema import change_schema
from dicom_etl.lake.column_facts import column_facts
from dicom_etl.lake.ledger import SCHEMA as RUN_SCHEMA
from dicom_etl.lake.rejected import rejected_schema
from dicom_etl.outputs.execution import SCHEMA as OUTPUT_SCHEMA
from dicom_etl.outputs.fhir.sent import SCHEMA as SENT_SCHEMA
from dicom_etl.tables.schema import TABLES, Table
from dicom_etl.tables.tag_quality import HEADER_QUALITY
from dicom_etl.tables.tag_schema import TagTables

_HEAD = """# The tables, column by column

For people who query the tables. `make docs` generates this page from the schemas; do not edit it. Times are UTC. Empty
values are null, never `""`.

Values of DICOM attributes: the first element of the attribute's `Value`; when that is null or empty, null, and no
search for another. Spaces and NULs are stripped at both ends. A number in a text column is written as in the JSON; an
object or a list there is null. A person's name is its Alphabetic group. A date is eight digits that are a date, else
null.

In the column *null*: `never`, or when a value is null. A header *has no value* when it lacks the attribute, or its first
value is empty or of another kind than the column takes, as above. Rows that `sync --adopt` took over
from the Data Factory template keep its nulls until an entry of the feed renews them. The examples are made up.

Tables that this version or a newer one makes carry these texts as comments of their columns: `DESCRIBE instance`,
Databricks' catalog and field metadata (`comment`) show them. Older tables stay without; `repair --rebuild` makes the
three shared tables with them.

`modalitiesInStudy` is one text. Studies with a CT: `array_contains(split(modalitiesInStudy, '\\\\\\\\'), 'CT')` in Spark SQL,
`pl.col("modalitiesInStudy").str.split("\\\\").list.contains("CT")` in Polars. Not `LIKE '%CT%'`: `CTPROTOCOL` is a modality, too.
"""


_HEADER_VIEW = """### The view `header`

One row a living instance: the columns of `instance`, then `runId` (long) and `metadata` (string) of the entry in `change`
that the row was made from. Both are null where `change` holds no header of it. An entry that several runs have read stands
in `change` once for each, a run that was killed included; the view takes one of them: with a header before without, then of the
highest `runId`. It is a view of `dicom-etl query` and `dicom-etl export`, no table, and for those who may read `change`.
Paths into the JSON, and the SQL for other engines: [researchers.md](researchers.md#attributes-that-are-no-columns).
"""

_TAG_TABLES = """# The tag tables and the ledger of outputs

Made by `dicom-etl columns update` ([columns.md](columns.md)). The first three have a column for each chosen tag, and
`series_tags` and `study_tags` have a column `…_values` behind it: how many distinct values the living instances have. Types
and odd values are in [tags.md](tags.md).
"""

_HEADINGS = (
    "| column | keyword | tag | VR | type | null | what it holds | example |\n|---|---|---|---|---|---|---|---|\n"
)
_SPARK_TYPES = {"bigint": "long"}
_ARROW_TYPES = {"int64": "long", "double": "double", "string": "string", "date32[day]": "date"}


def tables_document() -> str:
    """The whole of docs/tables.md."""
    sections = [_HEAD, *(_shared(table) for table in TABLES)]
    for name, schema in (("change", change_schema()), ("rejected", rejected_schema()), ("run", RUN_SCHEMA)):
        sections.append(_section(name, None, [_row(f.name, _arrow_type(f.type), name) for f in schema]))
    sections.insert(len(TABLES) + 2, _HEADER_VIEW)  # behind `change`
    tags = TagTables(())
    pairs = zip((tags.instance, tags.series, tags.study), TABLES, strict=True)
    sections += [_TAG_TABLES, *(_beside(table, shared) for table, shared in pairs), _shared(HEADER_QUALITY)]
    for name, schema in (("output", OUTPUT_SCHEMA), ("fhir_sent", SENT_SCHEMA)):
        sections.append(_section(name, None, [_row(f.name, _arrow_type(f.type), name) for f in schema]))
    return "\n".join(sections)


def _shared(table: Table) -> str:
    rows = [_row(field.name, _spark_type(field.dataType), table.name) for field in table.columns]
    return _section(table.name, table.key, rows)


def _beside(table: Table, shared: Table) -> str:
    """A tag table: what it has as the shared table of its level has it is named, and the rest described."""
    known = {field.name for field in shared.columns}
    same = ", ".join(f"`{field.name}`" for field in table.columns if field.name in known)
    own = [
        _row(field.name, _spark_type(field.dataType), table.name) for field in table.columns if field.name not in known
    ]
    about = f"Key: that of `{shared.name}`. As in `{shared.name}`: {same}.\n"
    return f"## `{table.name}`\n\n{about}" + (f"\n{_HEADINGS}" + "\n".join(own) + "\n" if own else "")


def _section(name: str, key: tuple[str, ...] | None, rows: list[str]) -> str:
    about = f"Key: {', '.join(f'`{column}`' for column in key)}.\n\n" if key else ""
    return f"## `{name}`\n\n{about}{_HEADINGS}" + "\n".join(rows) + "\n"


def _row(column: str, kind: str, table: str) -> str:
    facts = column_facts(table, column)
    example = facts.example.replace("|", "\\|")
    return f"| `{column}` | {_dicom(facts.attribute)} | {kind} | {facts.null} | {facts.meaning} | `{example}` |"


def _dicom(attribute: Attribute | None) -> str:
    """Keyword, tag and VR as three cells; dashes for a column that is no attribute."""
    if attribute is None:
        return "- | - | -"
    return f"{attribute.keyword} | ({attribute.tag[:4]},{attribute.tag[4:]}) | {attribute.vr}"


def _spark_type(kind: DataType) -> str:
    name = kind.simpleString()
    return _SPARK_TYPES.get(name, name)


def _arrow_type(kind: pa.DataType) -> str:
    return "timestamp" if pa.types.is_timestamp(kind) else _ARROW_TYPES[str(kind)]
