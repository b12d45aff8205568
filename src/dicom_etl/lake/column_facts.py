"""What each column of our tables holds, when it is null, and an example: the one home of these texts.

docs/tables.md shows them, and new tables carry them as comments of their columns (docs/adr/0082-column-comments.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa

from dicom_etl.core.attributes import ATTRIBUTES, Attribute

_UID_KEYWORDS = {
    "studyInstanceUid": ("StudyInstanceUID", "0020000D"),
    "seriesInstanceUid": ("SeriesInstanceUID", "0020000E"),
    "sopInstanceUid": ("SOPInstanceUID", "00080018"),
}
# The attributes that columns are made of, by column.
_BY_COLUMN: dict[str, Attribute] = {attribute.column: attribute for attribute in ATTRIBUTES} | {
    column: Attribute(column, keyword, tag, "UI", "instance") for column, (keyword, tag) in _UID_KEYWORDS.items()
}

_SHARED = ("instance", "series", "study", "instance_tags", "series_tags", "study_tags")
_NEVER = "never"
_ADOPTED = "sync --adopt took the row over from the Data Factory template, and no entry has renewed it"
_NOT_READ = "the verb reads no feed (maintain, adopt), or it failed before it read, or it was killed"
_FAILED = "the run did not succeed"
_NOT_COMMITTED = "the run did not succeed, and had committed nothing to it"

# What a column holds and when it is null, by `column`, or by `table.column` where a table differs.
_FACTS: dict[str, tuple[str, str]] = {
    "partitionName": (_NEVER, "data partition of the service; `Microsoft.Default` where it has none"),
    "studyInstanceUid": (_NEVER, "without padding"),
    "seriesInstanceUid": (_NEVER, "without padding"),
    "sopInstanceUid": (_NEVER, "without padding"),
    "lastModifiedTimestamp": (
        _ADOPTED,
        "the maximum over the living instances. **It may go back**, when the newest instance is deleted, and stays "
        "as it is when another one is: who refreshes by it misses deletions (compare the whole row, or read the "
        "table's Delta versions)",
    ),
    "instance.lastModifiedTimestamp": (
        _ADOPTED,
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
        _ADOPTED,
        "number of the entry of the feed that the row stands for, `sequence` in `change`; grows with each change of an "
        "instance",
    ),
    "sequence": (_NEVER, "number of the entry in the feed"),
    "instanceCount": (_NEVER, "how many living instances, at least 1"),
    "seriesCount": (_NEVER, "how many series with living instances, at least 1"),
    "modalitiesInStudy": (
        "no living instance has a modality",
        "distinct modalities of the living instances, sorted, joined by a backslash, as ModalitiesInStudy "
        "(0008,0061): split it by the backslash, as one modality may be a part of another's code",
    ),
    "runId": (
        _NEVER,
        "the run; ids grow. An id that is missing in `run` was taken to read ahead and not needed, or belongs to a run "
        "that was killed and that the next run has not recorded yet",
    ),
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
        "open, resolved or void; the newest row of a sequence counts. What `dicom-etl rejects --close` makes void has "
        "a text in one more column, `why`, which is added with the first of them",
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
        "`windowStart` where it covers nothing. Example: a run of 08:00 to 10:00, planned at 09:20 with a delay of 15 "
        "minutes, counts as done up to 09:05",
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

_FACTS |= {
    "instance_tags.lastModifiedTimestamp": _FACTS["instance.lastModifiedTimestamp"],
    "instance_tags.sequence": _FACTS["instance.sequence"],
    "createdSequence": (
        "`change` did not have the Create any more when the row was written",
        "number of the entry that created the instance last: since then it has had the same pixels, whatever became of "
        "its header",
    ),
    "headerState": (
        _NEVER,
        "ok; missing: `change` does not have the header (purged, or `lake.keep_metadata = false`, or an adopted row); "
        "unreadable: it is no JSON. All tags are null in the last two",
    ),
    "headerQuality": (
        "the header is missing",
        "a digit for each tag column, in their order: 0 absent, 1 present, 2 first of several, 3 another VR, 4 empty, "
        "5 wrong VR, 6 unparsable, 7 binary; -: the header was gone when the tag was chosen",
    ),
    "settledAt": (
        "no living instance has a time",
        "when the study counts as settled, unless something comes before: `outputs.settle` after its last change",
    ),
    "reopened": (
        _NEVER,
        "how often a living instance came, or was changed, after the study had been quiet for `outputs.settle`",
    ),
    "expectedInstances": (
        "no header says",
        "NumberOfStudyRelatedInstances (0020,1208), as the latest header that has it says",
    ),
    "missingNumbers": (
        "no instance has a number",
        "how many instance numbers lack between the lowest and the highest, of all series together",
    ),
    "header_quality.tag": (_NEVER, "name of a tag column of `instance_tags`"),
    "header_quality.day": (
        "the instances have no time (adopted rows)",
        "day of `lastModifiedTimestamp`, in UTC, of the instances that are counted",
    ),
    "header_quality.manufacturer": ("the headers do not say", "Manufacturer (0008,0070) of the instances"),
    "header_quality.manufacturerModelName": (
        "the headers do not say",
        "ManufacturerModelName (0008,1090) of the instances",
    ),
    "header_quality.noHeader": (_NEVER, "living instances whose header is missing, or cannot be read"),
    "header_quality.absent": (_NEVER, "whose header lacks the attribute"),
    "header_quality.present": (_NEVER, "whose value is in the column, with nothing left out"),
    "header_quality.several": (_NEVER, "of whose several values the first is in the column"),
    "header_quality.otherVr": (_NEVER, "whose value is in the column, though the header gives another VR"),
    "header_quality.empty": (_NEVER, "whose header has the attribute without a value"),
    "header_quality.wrongVr": (_NEVER, "whose header gives another VR, and no value of the column's type"),
    "header_quality.unparsable": (_NEVER, "whose value is none of the column's type"),
    "header_quality.binary": (_NEVER, "whose value is not in the header"),
    "output": (_NEVER, "name of the output: columns or fhir"),
    "executionId": (_NEVER, "the execution; ids of an output grow"),
    "mode": (
        _NEVER,
        "how it was computed: changed (the keys of new entries), compare (the keys that differ), full (everything), "
        "service (headers that the service was asked for)",
    ),
    "output.status": (_NEVER, "succeeded or failed"),
    "fromRun": (_NEVER, "the run up to which the output had come before; 0: none"),
    "toRun": (_NEVER, "the run whose tables the output equals since; of a failed execution, was to equal"),
    "output.startedAt": (_NEVER, "when the execution began"),
    "output.finishedAt": (_NEVER, "when it ended"),
    "touched": (_NEVER, "keys that were looked at: unchanged + written + withdrawn + refused + failed"),
    "unchanged": (_NEVER, "of these, keys of which nothing had to be written"),
    "written": (_NEVER, "of these, keys whose row was written"),
    "withdrawn": (_NEVER, "of these, keys whose row was removed"),
    "refused": (_NEVER, "of these, keys that the other side did not take; 0 for tables"),
    "failed": (_NEVER, "of these, keys that could not be computed: the service was asked, and gave no header"),
    "versions": (_NEVER, "Delta versions of the output's tables behind the execution, by name, as JSON"),
    "designDigest": ("the output has no design", "digits that change with the tags that the output is made of"),
    "output.errorClass": ("the execution succeeded", "class of the error that ended it"),
    "details": ("the output has no more to count", "further counts of the execution, by word, as JSON"),
    "number": (_NEVER, "grows with each row that is written later; of a resource the row with the highest counts"),
    "fhir_sent.executionId": (_NEVER, "the execution of the output fhir"),
    "server": (_NEVER, "address of the FHIR server, without scheme; rows of another server do not count"),
    "kind": (_NEVER, "ImagingStudy, Endpoint, Patient or Observation; PatientSearch: what the server answered"),
    "key": (_NEVER, "the id that is computed of what the resource is made of"),
    "resourceId": (
        "a search found no Patient, or several",
        "id of the resource in the server; of a search the Patient that was found",
    ),
    "parent": (
        "the resource has none",
        "of an ImagingStudy the key of its patient, of an Observation the key of its ImagingStudy",
    ),
    "digest": ("the resource was deleted, or taken over", "digits that change with what is to be sent"),
    "fhir_sent.state": (
        _NEVER,
        "sent, deleted, refused, failed (the server erred to the end of the retries) or adopted; of a search one, none "
        "or several",
    ),
    "httpStatus": ("nothing was asked", "status of the server's answer for this resource"),
    "issueCode": ("the server gave none", "code of the first issue of the server's OperationOutcome"),
    "at": (_NEVER, "when the answer came"),
}

_LATEST = "that of the latest instance that has one: by `lastModifiedTimestamp`, then `sequence`"

# A value of each column, made up.
_EXAMPLES: dict[str, str] = {
    "partitionName": "Microsoft.Default",
    "studyInstanceUid": "1.2.840.113619.2.1",
    "seriesInstanceUid": "1.2.840.113619.2.1.7",
    "sopInstanceUid": "1.2.840.113619.2.1.7.42",
    "lastModifiedTimestamp": "2026-03-01T08:12:09.123456Z",
    "studyDate": "2026-02-28",
    "studyDescription": "CT Thorax",
    "issuerOfPatientId": "Hospital North",
    "patientId": "4711",
    "patientName": "Doe^Jane",
    "modality": "CT",
    "sopClassUid": "1.2.840.10008.5.1.4.1.1.2",
    "filePath": "AHDS/ws/dicom/svc/Microsoft.Default/132_9.dcm",
    "sequence": "90210",
    "instanceCount": "312",
    "seriesCount": "4",
    "modalitiesInStudy": "CT\\SR",
    "runId": "17",
    "readAt": "2026-03-01T09:15:00Z",
    "timestamp": "2026-03-01T08:12:09.123456Z",
    "timestampTicks": "17723526291234567",
    "action": "Update",
    "state": "Current",
    "metadata": '{"00080060":{"vr":"CS","Value":["CT"]}}',
    "reason": "metadata-missing",
    "rejected.status": "open",
    "recordedAt": "2026-03-01T09:15:20Z",
    "verb": "sync",
    "run.status": "succeeded",
    "windowStart": "2026-03-01T08:00:00Z",
    "windowEnd": "2026-03-01T09:00:00Z",
    "coveredUntil": "2026-03-01T09:00:00Z",
    "startedAt": "2026-03-01T09:15:00Z",
    "finishedAt": "2026-03-01T09:15:31Z",
    "entriesRead": "1204",
    "inserted": "1100",
    "updated": "80",
    "deleted": "4",
    "superseded": "20",
    "rejected": "0",
    "repeated": "3",
    "pages": "7",
    "retries": "0",
    "startSeconds": "4.1",
    "fetchSeconds": "6.2",
    "landSeconds": "0.4",
    "mergeSeconds": "9.0",
    "rollupSeconds": "8.3",
    "changeVersion": "16",
    "instanceVersion": "31",
    "seriesVersion": "30",
    "studyVersion": "30",
    "writerVersion": "0.1.0",
    "host": "etl-1",
    "settingsDigest": "5f1c0ab2d9e4",
    "errorClass": "ServiceUnavailable",
    "createdSequence": "90101",
    "headerState": "ok",
    "headerQuality": "1110140",
    "settledAt": "2026-03-01T08:42:09.123456Z",
    "reopened": "0",
    "expectedInstances": "312",
    "missingNumbers": "0",
    "header_quality.tag": "sliceThickness",
    "header_quality.day": "2026-03-01",
    "header_quality.manufacturer": "ACME",
    "header_quality.manufacturerModelName": "Scan 1",
    "header_quality.noHeader": "0",
    "header_quality.absent": "2",
    "header_quality.present": "300",
    "header_quality.several": "0",
    "header_quality.otherVr": "0",
    "header_quality.empty": "10",
    "header_quality.wrongVr": "0",
    "header_quality.unparsable": "0",
    "header_quality.binary": "0",
    "output": "columns",
    "executionId": "5",
    "mode": "changed",
    "output.status": "succeeded",
    "fromRun": "16",
    "toRun": "17",
    "touched": "1184",
    "unchanged": "0",
    "written": "1180",
    "withdrawn": "4",
    "refused": "0",
    "failed": "0",
    "versions": '{"instance_tags": 7, "series_tags": 7, "study_tags": 7}',
    "designDigest": "0c9be1b5d2a7f3e4",
    "details": '{"requests": 3}',
    "number": "5000001",
    "server": "ws-fhir.fhir.azurehealthcareapis.com",
    "kind": "ImagingStudy",
    "key": "0f3a…",
    "resourceId": "0f3a…",
    "parent": "77b1…",
    "digest": "9ac0…",
    "fhir_sent.state": "sent",
    "httpStatus": "200",
    "issueCode": "invalid",
    "at": "2026-03-01T09:16:02Z",
}


@dataclass(frozen=True, slots=True)
class ColumnFacts:
    """A column's DICOM attribute, if it is one; when it is null, what it holds, and a value that is made up."""

    attribute: Attribute | None
    null: str
    meaning: str
    example: str

    @property
    def comment(self) -> str:
        """The facts as one line of plain text, as a catalog shows it."""
        named = f"{self.attribute.keyword} ({_tag(self.attribute)}): " if self.attribute else ""
        null = "" if self.null == _NEVER else f". Null when {self.null}"
        return (named + self.meaning + null).replace("`", "").replace("**", "")


def column_facts(table: str, column: str) -> ColumnFacts:
    """What is known of a column. Raises KeyError for one that nobody has described."""
    null, meaning = _facts(column, table)
    example = _EXAMPLES.get(f"{table}.{column}") or _EXAMPLES[column]
    return ColumnFacts(_BY_COLUMN.get(column), null, meaning, example)


def commented(table: str, schema: pa.Schema) -> pa.Schema:
    """The schema with the facts of each column as its comment; for making a table, not for its files."""
    return pa.schema([field.with_metadata(comment_of(table, field.name)) for field in schema])


def comment_of(table: str, column: str) -> Mapping[str, str]:
    """The metadata of a column that Delta's readers show as its comment."""
    return {"comment": column_facts(table, column).comment}


def _tag(attribute: Attribute) -> str:
    return f"{attribute.tag[:4]},{attribute.tag[4:]}"


def _facts(column: str, table: str) -> tuple[str, str]:
    """When it is null, and what it holds. Raises KeyError for a column that nobody has described."""
    if column in _UID_KEYWORDS and table not in _SHARED:
        return "the entry has none (it is a reject)", "without padding"
    attribute = _BY_COLUMN.get(column)
    if attribute is None or column in _UID_KEYWORDS:
        return _FACTS.get(f"{table}.{column}") or _FACTS[column]
    if table == "change":
        return "the header has no value, or the entry has no usable metadata", "first value in the entry's header"
    kind = "no value, or none that is a date" if attribute.is_date else "no value"
    if table == "instance":
        return f"the header has {kind}", "first value in the instance's header"
    return (
        f"the header of every living instance has {kind}",
        "the value of the latest living instance which has one: by lastModifiedTimestamp, then sequence",
    )
