"""Searches the service by QIDO-RS, and gives each match as a row (design/service-protocol.md: QIDO-RS)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal

import msgspec

from dicom_etl.core.errors import RequestRefused, UsageError
from dicom_etl.core.settings.model import Settings
from dicom_etl.dicomweb.connect import connect
from dicom_etl.dicomweb.elements import plain_value
from dicom_etl.dicomweb.keywords import Keyword, keyword
from dicom_etl.dicomweb.resources import route
from dicom_etl.dicomweb.search import PAGE, Search, partitions
from dicom_etl.remote.http.client import HttpClient
from dicom_etl.remote.identity import dicom_tokens

Level = Literal["studies", "series", "instances"]
_DATASETS = msgspec.json.Decoder(list[dict[str, Any]])
_PARAMETERS = {"limit": "--limit", "offset": "--limit", "includefield": "--fields", "fuzzymatching": "exact names"}

_STUDY = (
    "StudyInstanceUID", "PatientID", "PatientName", "PatientBirthDate", "StudyDate", "AccessionNumber",
    "StudyDescription", "ReferringPhysicianName", "ModalitiesInStudy",
)  # fmt: skip
_SERIES = ("SeriesInstanceUID", "Modality", "ManufacturerModelName", "PerformedProcedureStepStartDate")
SEARCHABLE: Mapping[Level, tuple[str, ...]] = {
    "studies": _STUDY,
    "series": (*_STUDY, *_SERIES),
    "instances": (*_STUDY, *_SERIES, "SOPInstanceUID"),
}
"""What the service searches by without extended query tags (conformance statement v2)."""

COLUMNS: Mapping[Level, tuple[str, ...]] = {
    "studies": (*_STUDY, "NumberOfStudyRelatedInstances"),
    "series": (
        "StudyInstanceUID", "SeriesInstanceUID", "Modality", "SeriesNumber", "SeriesDescription",
        "ManufacturerModelName", "PerformedProcedureStepStartDate", "NumberOfSeriesRelatedInstances",
    ),
    "instances": (
        "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID", "InstanceNumber", "Modality", "Rows",
        "Columns", "NumberOfFrames",
    ),
}  # fmt: skip
"""What a match is shown by unless other fields are asked for."""

_UIDS: Mapping[Level, tuple[str, ...]] = {
    "studies": ("0020000D",),
    "series": ("0020000D", "0020000E"),
    "instances": ("0020000D", "0020000E", "00080018"),
}


@dataclass(frozen=True, slots=True)
class SearchRequest:
    """One search: by which attributes with which values, which fields of each match, how many matches; None: all."""

    level: Level
    filters: tuple[tuple[Keyword, str], ...] = ()
    fields: tuple[Keyword, ...] = ()
    partition: str | None = None
    limit: int | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of a row's values: the keywords of the fields, or tags without one."""
        return tuple(field.name for field in self.fields)


def search_request(
    level: Level,
    words: Iterable[str] = (),
    *,
    fields: Iterable[str] = (),
    partition: str | None = None,
    limit: int | None = None,
) -> SearchRequest:
    """The search that ``KEY=VALUE`` words and names of fields ask for; without fields COLUMNS of the level.

    Raises UsageError, which never holds a value.
    """
    filters = [_filter(word) for word in words]
    keys = [attribute.tag for attribute, _ in filters]
    if twice := next((attribute.name for attribute, _ in filters if keys.count(attribute.tag) > 1), None):
        raise UsageError(f"search: {twice}: is given twice")
    named = [name for text in fields for name in text.split(",") if name.strip()] or COLUMNS[level]
    shown = tuple(dict.fromkeys(_named("--fields: ", name.strip()) for name in named))
    return SearchRequest(level, tuple(filters), shown, partition, limit)


def search(settings: Settings, request: SearchRequest) -> Iterator[tuple[Any, ...]]:
    """A row of ``request.columns`` for each match, newest first, page by page.

    The service has no snapshot: while others write, a match may be missed; one that moved to the next page is given
    once. Raises UsageError when the service does not take the search; else as ``HttpClient.send``.
    """
    with connect(settings.dicom, dicom_tokens(settings.dicom)) as client:
        try:
            for dataset in islice(_datasets(client, request), request.limit):
                yield tuple(plain_value(dataset, field) for field in request.fields)
        except RequestRefused as error:
            raise UsageError(_why_refused(client, request)) from error


def _datasets(client: HttpClient, request: SearchRequest) -> Iterator[dict[str, Any]]:
    page = min(PAGE, request.limit or PAGE)
    asked = Search(
        client,
        route(request.partition, request.level),
        _DATASETS,
        {attribute.name: value for attribute, value in request.filters},
        tuple(field.name for field in request.fields),
        page,
    )
    before: set[tuple[Any, ...]] = set()
    for matches in asked.pages():
        keys = [tuple(_uid(match, tag) for tag in _UIDS[request.level]) for match in matches]
        yield from (match for key, match in zip(keys, matches, strict=True) if key not in before)
        before = set(keys)


def _uid(match: dict[str, Any], tag: str) -> Any:
    values = (match.get(tag) or {}).get("Value") or [None]
    return values[0]


def _filter(word: str) -> tuple[Keyword, str]:
    key, equals, value = word.partition("=")
    if not equals:
        raise UsageError("search: expected KEY=VALUE, such as PatientID=1CT1")
    if key.lower() in _PARAMETERS:
        raise UsageError(f"search: {key.lower()}: is no attribute; use {_PARAMETERS[key.lower()]}")
    attribute = _named("search: ", key)
    if not value.strip():
        raise UsageError(f"search: {attribute.name}: has no value; the service finds nothing by an empty one")
    if "<" in value:
        raise UsageError(f"search: {attribute.name}: the service takes no value with <")
    return attribute, value


def _named(before: str, text: str) -> Keyword:
    try:
        return keyword(text)
    except UsageError as error:
        raise UsageError(f"{before}{error}") from None


def _why_refused(client: HttpClient, request: SearchRequest) -> str:
    """What to do about a 400; the service's own text may quote a value."""
    names = partitions(client)
    if names is not None and request.partition is None:
        return f"search: this service has data partitions; name one by --partition: {', '.join(names)}"
    if names is not None and request.partition not in names:
        return f"--partition: this service has no such data partition; there are: {', '.join(names)}"
    if names is None and request.partition is not None:
        return "--partition: this service has no data partitions; leave it out"
    known = SEARCHABLE[request.level]
    if others := [attribute.name for attribute, _ in request.filters if attribute.name not in known]:
        return (
            f"search: the service does not search {request.level} by {', '.join(others)}: make it an extended query "
            f"tag, or search by {', '.join(known)}"
        )
    return (
        "search: the service does not take one of the values; a date is YYYYMMDD, or a range such as 20240101-20241231"
    )
