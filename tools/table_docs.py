"""docs/tables.md, from the schemas."""

from __future__ import annotations

import pyarrow as pa
from pyspark.sql.types import DataType

from dicom_etl.core.attributes import ATTRIBUTES, Attribute
from dicom_etl.lake.change_schema import change_schema
from dicom_etl.lake.ledger import SCHEMA as RUN_SCHEMA
from dicom_etl.lake.rejected import rejected_schema
from dicom_etl.tables.schema import TABLES, Table

_HEAD = """# The tables, column by column

For people who query the tables. `make docs` generates this page from the schemas; do not edit it. Times are UTC. Empty
values are null, never `""`.

Values of DICOM attributes: the first element of the attribute's `Value`; when that is null or empty, null, and no
search for another. Spaces and NULs are stripped at both ends. A number in a text column is written as in the JSON; an
object or a list there is null. A person's name is its Alphabetic group. A date is eight digits that are a date, else
null.

In the column *null*: `never`, or when a value is null. *No value* means that the instance's header lacks the attribute,
or that its first value is empty or of another kind than the column takes, as above. Rows that `sync --adopt` took over
from the Data Factory template keep its nulls until an entry of the feed renews them.
"""

_UID_KEYWORDS = {
    "studyInstanceUid": ("StudyInstanceUID", "0020000D"),
    "seriesInstanceUid": ("SeriesInstanceUID", "0020000E"),
    "sopInstanceUid": ("SOPInstanceUID", "00080018"),
}
# The attributes that columns are made of, by column.
_ATTRIBUTES: dict[str, Attribute] = {attribute.column: attribute for attribute in ATTRIBUTES} | {
    column: Attribute(column, keyword, tag, "UI", "instance") for column, (keyword, tag) in _UID_KEYWORDS.items()
}

_SHARED = ("instance", "series", "study")
_NEVER = "never"
_NOT_READ = "the verb reads no feed (maintain, adopt), or it failed before it read, or it was killed"
_FAILED = "the run did not succeed"
_NOT_COMMITTED = "the run did not succeed, and had committed nothing to it"

# What a column holds and when it is null, by `column`, or by `table.column` where a table differs.
_FACTS: dict[str, tuple[str, str]] = {
    "partitionName": (_NEVER, "data partition of the service; `Microsoft.Default` where it has none"),
    "studyInstanceUid": (_NEVER, "padding stripped"),
    "seriesInstanceUid": (_NEVER, "padding stripped"),
    "sopInstanceUid": (_NEVER, "padding stripped"),
    "lastModifiedTimestamp": (
        "never, but in adopted rows",
        "the maximum over the living instances. **It may go back**, when the newest instance is deleted, and stays "
        "as it is when another one is: who refreshes by it misses deletions (compare the whole row, or read the "
        "table's Delta versions)",
    ),
    "instance.lastModifiedTimestamp": (
        "never, but in adopted rows",
        "time of the instance's last Create or Update, cut to microseconds",
    ),
    "filePath": (
        "the service had no data lake",
        "name of the DICOM file inside the container, as the feed gives it; `dicom_etl.open_instance` follows it",
    ),
    "change.filePath": (
        "the entry has none: a Delete, or no data lake",
        "name of the DICOM file inside the container, as the feed gave it then",
    ),
    "instance.sequence": (
        "never, but in adopted rows",
        "the entry of the feed that the row stands for; grows with each change of an instance",
    ),
    "sequence": (_NEVER, "number of the entry in the feed"),
    "instanceCount": (_NEVER, "how many living instances, at least 1"),
    "seriesCount": (_NEVER, "how many series with living instances, at least 1"),
    "modalitiesInStudy": (
        "no living instance has a modality",
        "distinct modalities of the living instances, sorted, joined by a backslash, as ModalitiesInStudy (0008,0061)",
    ),
    "runId": (_NEVER, "the run; ids grow"),
    "readAt": (_NEVER, "when the run that read the entry began"),
    "timestamp": (_NEVER, "time of the entry, cut to microseconds"),
    "timestampTicks": (_NEVER, "time of the entry in 100 ns since 1970, whole"),
    "action": ("the entry has none (it is a reject)", "Create, Update or Delete; other words stay as they came"),
    "state": (
        "the entry has none (it is a reject)",
        "Current, Replaced or Deleted: what the entry was when it was read; other words stay as they came",
    ),
    "metadata": (
        "the entry has none (a deleted instance), it is not UTF-8, or `lake.keep_metadata = false`",
        "the header as the service sent it, DICOM JSON",
    ),
    "reason": (_NEVER, "code of why the entry could not be used"),
    "rejected.status": (
        _NEVER,
        "open, resolved or void; the newest row of a sequence counts. What `dicom-etl rejects --close` makes void has a "
        "text in one more column, `why`, which is added with the first of them",
    ),
    "recordedAt": (_NEVER, "when this was learned"),
    "verb": (_NEVER, "sync, repair, maintain or adopt; the runs of watch are syncs"),
    "run.status": (
        _NEVER,
        "succeeded, failed, superseded or killed; only a succeeded run covers its window. killed: it ended without "
        "writing its row, and the next run did",
    ),
    "windowStart": (_NOT_READ, "where the window that was read begins, inclusive"),
    "windowEnd": (_NOT_READ, "where it ends, exclusive"),
    "coveredUntil": (
        _NOT_READ,
        "up to where the run counts as done: the end of its window, or when its sync was planned less `feed.delay`; "
        "`windowStart` where it covers nothing",
    ),
    "startedAt": (_NEVER, "when the run began"),
    "finishedAt": (_NEVER, "when it ended; of a killed run its last heartbeat"),
    "entriesRead": (
        _NEVER,
        "entries of the feed, each once; the sum of inserted, updated, deleted, superseded and rejected",
    ),
    "inserted": (_NEVER, "new rows of `instance`"),
    "updated": (_NEVER, "rows of `instance` that were rewritten"),
    "deleted": (_NEVER, "rows of `instance` that were removed"),
    "superseded": (
        _NEVER,
        "entries that changed nothing: not the last of their key, replaced, older than the row or equal to it, nothing "
        "to remove, a reject that is void",
    ),
    "rejected": (_NEVER, "entries that could not be used, new or still open"),
    "repeated": (_NEVER, "entries that were met more than once"),
    "pages": (_NEVER, "pages of the feed that were read"),
    "retries": (_NEVER, "requests that were sent again"),
    "startSeconds": (_NEVER, "waiting for Spark, and making tables that are missing"),
    "fetchSeconds": (_NEVER, "reading the feed"),
    "landSeconds": (_NEVER, "writing `change`"),
    "mergeSeconds": (_NEVER, "the MERGE of `instance`"),
    "rollupSeconds": (_NEVER, "rolling up and merging `series` and `study`"),
    "changeVersion": (_NOT_COMMITTED, "Delta version of `change` after the run"),
    "instanceVersion": (
        _NOT_COMMITTED,
        "Delta version of `instance` after the run; those of one row fit each other where it succeeded",
    ),
    "seriesVersion": (_FAILED, "Delta version of `series` after the run"),
    "studyVersion": (_FAILED, "Delta version of `study` after the run"),
    "writerVersion": (_NEVER, "version of dicom-etl that wrote the row"),
    "host": (_NEVER, "name of the machine"),
    "settingsDigest": ("the run was killed", "twelve digits that change when a setting changes"),
    "errorClass": ("the run succeeded", "class of the error that ended the run"),
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
    head = "| column | keyword | tag | VR | type | null | what it holds |\n|---|---|---|---|---|---|---|\n"
    return f"## `{name}`\n\n{about}{head}" + "\n".join(rows) + "\n"


def _row(column: str, kind: str, table: str) -> str:
    null, meaning = _facts(column, table)
    return f"| `{column}` | {_dicom(column)} | {kind} | {null} | {meaning} |"


def _dicom(column: str) -> str:
    """Keyword, tag and VR as three cells; dashes for a column that is no attribute."""
    attribute = _ATTRIBUTES.get(column)
    if attribute is None:
        return "- | - | -"
    return f"{attribute.keyword} | ({attribute.tag[:4]},{attribute.tag[4:]}) | {attribute.vr}"


def _facts(column: str, table: str) -> tuple[str, str]:
    """When it is null, and what it holds. Raises KeyError for a column that nobody has described."""
    if column in _UID_KEYWORDS and table not in _SHARED:
        return "the entry has none (it is a reject)", "padding stripped"
    attribute = _ATTRIBUTES.get(column)
    if attribute is None or column in _UID_KEYWORDS:
        return _FACTS.get(f"{table}.{column}") or _FACTS[column]
    if table == "change":
        return "no value, or the entry has no usable metadata", "of the entry's header"
    kind = "no value, or none that is a date" if attribute.is_date else "no value"
    if table == "instance":
        return kind, "of the instance's header"
    return f"{kind}, in every living instance", "the latest value that is not null"


def _spark_type(kind: DataType) -> str:
    name = kind.simpleString()
    return _SPARK_TYPES.get(name, name)


def _arrow_type(kind: pa.DataType) -> str:
    return "timestamp" if pa.types.is_timestamp(kind) else _ARROW_TYPES[str(kind)]
