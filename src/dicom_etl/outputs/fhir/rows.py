"""The studies of the tables as one run left them, as the FHIR mapping reads them; no JVM is started."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, cast

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable

from dicom_etl.core.attributes import ATTRIBUTES, INSTANCE_KEY, SERIES_KEY, STUDY_KEY, Level
from dicom_etl.lake.delta.table import iterate_rows, read_rows
from dicom_etl.outputs.fhir.facts import Facts, SeriesFacts, StudyFacts

# What is read in one go, so that memory does not grow with the tables: a dict of 25 values each is 2 KB.
MOST_INSTANCES: Final = 20_000

TAGS: Final[dict[Level, tuple[str, ...]]] = {
    "study": (
        "StudyTime",
        "AccessionNumber",
        "ReferringPhysicianName",
        "NameOfPhysiciansReadingStudy",
        "PatientBirthDate",
        "PatientSex",
        "ProcedureCodeSequence[0].CodeValue",
        "ProcedureCodeSequence[0].CodingSchemeDesignator",
        "ProcedureCodeSequence[0].CodeMeaning",
    ),
    "series": (
        "SeriesDate",
        "SeriesTime",
        "SeriesNumber",
        "SeriesDescription",
        "PerformingPhysicianName",
        "OperatorsName",
        "Laterality",
        "BodyPartExamined",
    ),
    "instance": (
        "TimezoneOffsetFromUTC",
        "ImageLaterality",
        "ConceptNameCodeSequence[0].CodeMeaning",
        "ContentLabel",
        "DocumentTitle",
        "InstanceNumber",
    ),
}
_FIXED: Final[dict[Level, tuple[str, ...]]] = {
    "study": ("StudyDate", "StudyDescription", "IssuerOfPatientID", "PatientID", "PatientName"),
    "series": ("Modality",),
    "instance": ("SOPClassUID",),
}
_FIXED_COLUMNS: Final = {attribute.keyword: attribute.column for attribute in ATTRIBUTES}
_AS_IT_IS: Final = ("lastModifiedTimestamp", "sequence")


class StudyKey(NamedTuple):
    """The key of a study, in its order of sorting."""

    partition: str
    uid: str


@dataclass(frozen=True, slots=True)
class TagNames:
    """Which column of a tag table has which tag; ``names`` by level, then by the tag as it is written."""

    names: Mapping[Level, Mapping[str, str]]


@dataclass(frozen=True, slots=True)
class StudyTables:
    """The tables of one run: ``fixed`` and ``tags`` by level."""

    fixed: Mapping[Level, DeltaTable]
    tags: Mapping[Level, DeltaTable]
    names: TagNames


def study_keys(table: DeltaTable) -> list[tuple[StudyKey, int]]:
    """The living studies of ``table``, `study` of one run, in their order, each with how many instances it has."""
    found: list[tuple[StudyKey, int]] = []
    for batch in iterate_rows(table, [*STUDY_KEY, "instanceCount"]):
        rows = zip(*(column.to_pylist() for column in batch.columns), strict=True)
        found += [(StudyKey(partition, uid), count) for partition, uid, count in rows]
    return sorted(found)


def patients(tables: StudyTables, only: Sequence[StudyKey] | None = None) -> Iterator[StudyFacts]:
    """Of these studies, or all, what tells of their patients: ``series`` is empty."""
    keys = [key for key, _ in study_keys(tables.fixed["study"])] if only is None else only
    for at in range(0, len(keys), MOST_INSTANCES):
        part = keys[at : at + MOST_INSTANCES]
        for key, row in _study_rows(_Reader(tables, part), set(part)):
            yield StudyFacts(key.partition, key.uid, row, ())


def studies(tables: StudyTables, keys: Sequence[tuple[StudyKey, int]]) -> Iterator[list[StudyFacts]]:
    """The facts of these studies, in the order of ``keys``, so many at once as the memory should hold.

    ``keys`` are of `study` of the same run, sorted, each with how many instances it has. Raises DataError, StorageError
    or AccessDenied when a table cannot be read.
    """
    for part in _parts(keys):
        yield _studies(tables, part)


def _parts(keys: Iterable[tuple[StudyKey, int]]) -> Iterator[list[StudyKey]]:
    part: list[StudyKey] = []
    size = 0
    for key, count in keys:
        if part and size + count > MOST_INSTANCES:
            yield part
            part, size = [], 0
        part.append(key)
        size += count
    if part:
        yield part


def _studies(tables: StudyTables, keys: Sequence[StudyKey]) -> list[StudyFacts]:
    read = _Reader(tables, keys)
    by_series: dict[tuple[str, ...], list[Facts]] = defaultdict(list)
    for row in read.rows("instance", INSTANCE_KEY, "SOPInstanceUID"):
        by_series[(row["partitionName"], row["studyInstanceUid"], row["seriesInstanceUid"])].append(row)
    by_study: dict[StudyKey, list[SeriesFacts]] = defaultdict(list)
    for row in read.rows("series", SERIES_KEY, "SeriesInstanceUID"):
        uid = row["SeriesInstanceUID"]
        instances = by_series[(row["partitionName"], row["studyInstanceUid"], uid)]
        by_study[StudyKey(row["partitionName"], row["studyInstanceUid"])].append(SeriesFacts(uid, row, instances))
    rows = dict(_study_rows(read, set(keys)))
    return [StudyFacts(key.partition, key.uid, rows[key], by_study[key]) for key in keys if key in rows]


def _study_rows(read: _Reader, wanted: Set[StudyKey]) -> Iterator[tuple[StudyKey, Facts]]:
    for row in read.rows("study", STUDY_KEY, "StudyInstanceUID"):
        key = StudyKey(row["partitionName"], row["StudyInstanceUID"])
        if key in wanted:
            yield key, row


@dataclass(frozen=True, slots=True)
class _Reader:
    tables: StudyTables
    keys: Sequence[StudyKey]

    def rows(self, level: Level, key: Sequence[str], uid: str) -> list[dict[str, Any]]:
        """Rows of one level by tag; the last column of the key is called ``uid``, and the others as in the table."""
        fixed = {_FIXED_COLUMNS[keyword]: keyword for keyword in _FIXED[level]}
        tags = {column: tag for tag, column in self.tables.names.names[level].items()}
        plain = {"instance": _AS_IT_IS, "series": (), "study": ("lastModifiedTimestamp",)}[level]
        left = self._read(self.tables.fixed[level], [*key, *fixed, *plain])
        right = self._read(self.tables.tags[level], [*key, *tags])
        joined = left.join(right, list(key), join_type="left outer", use_threads=False)
        named = fixed | tags | {key[-1]: uid}
        rows = joined.rename_columns([named.get(name, name) for name in joined.column_names])
        return cast(list[dict[str, Any]], rows.to_pylist())

    def _read(self, table: DeltaTable, columns: Sequence[str]) -> pa.Table:
        uids = sorted({key.uid for key in self.keys})
        study = pc.field("studyInstanceUid")
        # Bounds for the files that lie apart from these studies; Arrow skips none by a set.
        only = (study >= uids[0]) & (study <= uids[-1])
        batches = list(iterate_rows(table, columns, only & study.isin(uids)))
        found = pa.Table.from_batches(batches) if batches else read_rows(table, columns, pc.scalar(False))
        return found.combine_chunks()
