"""Facts for the FHIR mapping: of one made-up instance, and of pydicom's datasets as the tables would have them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from pydicom import Dataset

from dicom_etl.core.attributes import ATTRIBUTES
from dicom_etl.core.values import kept_value
from dicom_etl.outputs.columns.design import ColumnDesign, imaging_columns
from dicom_etl.outputs.columns.parse import HeaderReader
from dicom_etl.outputs.fhir.facts import MappingOptions, SeriesFacts, StudyFacts

OPTIONS = MappingOptions(
    service_url="https://hospital.example.org/v2",
    source="https://hospital.example.org",
    lake="8d3f2c6a",
    key=b"example",
    issuers={"HOSP": "urn:oid:1.2.3"},
    default_system=None,
    zone=None,
    patients="find",
    instances="auto",
    dose=True,
    strict_modality=False,
)
SUBJECT = {"reference": "Patient/4f1d"}
ENDPOINT = "90ab"
STARTED = datetime(2026, 3, 29, 8, tzinfo=UTC)
COLUMNS = imaging_columns()
LEVELS = {**{a.keyword: a.level for a in ATTRIBUTES}, **{column.path.text: column.level for column in COLUMNS}}
_UIDS = {"StudyInstanceUID": "1.2", "SeriesInstanceUID": "1.2.1", "SOPInstanceUID": "1.2.1.1"}


def one_instance(given: Mapping[str, Any]) -> StudyFacts:
    """A study of one series with one instance, each value at the level where the tables have it."""
    uids = {name: given.get(name, uid) for name, uid in _UIDS.items()}
    levels: dict[str, dict[str, Any]] = {"study": {}, "series": {}, "instance": {}}
    for tag, value in given.items():
        if tag not in uids:
            levels[LEVELS[tag]][tag] = value
    instance = {"SOPInstanceUID": uids["SOPInstanceUID"], **levels["instance"]}
    series = SeriesFacts(uids["SeriesInstanceUID"], levels["series"], [instance])
    return StudyFacts("Microsoft.Default", uids["StudyInstanceUID"], levels["study"], [series])


def study_of(datasets: Sequence[Dataset]) -> StudyFacts:
    """The facts of one study, of its living datasets in the order in which the service got them."""
    reader = HeaderReader(ColumnDesign(COLUMNS))
    rows = [_row(reader, number, dataset) for number, dataset in enumerate(datasets)]
    series: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        series.setdefault(row["SeriesInstanceUID"], []).append(row)
    found = [SeriesFacts(uid, _latest(of, "series"), of) for uid, of in series.items()]
    return StudyFacts("Microsoft.Default", rows[0]["StudyInstanceUID"], _latest(rows, "study"), found)


def _row(reader: HeaderReader, number: int, dataset: Dataset) -> dict[str, Any]:
    elements = dataset.to_json_dict()
    parsed = reader.read(json.dumps(elements))
    kept = {a.keyword: kept_value(a, json.dumps(elements.get(a.tag, {})).encode()) for a in ATTRIBUTES}
    tags = {column.path.text: value for column, value in zip(COLUMNS, parsed.values, strict=True)}
    uids = {name: str(dataset[name].value).strip(" \0") for name in _UIDS}
    return {
        **tags, **kept, **uids, "sequence": number + 1, "lastModifiedTimestamp": STARTED + timedelta(seconds=number),
    }  # fmt: skip


def _latest(rows: Iterable[Mapping[str, Any]], level: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for row in rows:
        found.update({tag: value for tag, value in row.items() if value is not None and LEVELS.get(tag) == level})
    return found
