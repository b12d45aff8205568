"""What the search holds, study by study, in requests that the service can answer cheaply.

design/architecture.md: Comparison and repair.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import date
from itertools import islice
from typing import Any, TypeVar

import msgspec
import pyarrow as pa

from dicom_etl.core.attributes import DEFAULT_PARTITION, INSTANCE_KEY, STUDY_KEY
from dicom_etl.core.errors import ProtocolError
from dicom_etl.dicomweb.resources import is_uid, route
from dicom_etl.dicomweb.search import PAGE, SamePage, Search
from dicom_etl.dicomweb.side_by_side import side_by_side
from dicom_etl.dicomweb.study_dates import Part
from dicom_etl.remote.http.client import HttpClient
from dicom_etl.remote.http.retry import RetryPolicy

# The service finds a page by counting through all that stands before it.
DEEPEST_OFFSET = 2_000
_ROWS_PER_BATCH = 10_000

STUDY_COUNTS = pa.schema([*((name, pa.string()) for name in STUDY_KEY), ("instances", pa.int64())])
INSTANCE_KEYS = pa.schema([(name, pa.string()) for name in INSTANCE_KEY])


class _Texts(msgspec.Struct, gc=False):
    values: list[str | None] = msgspec.field(default_factory=list, name="Value")


class _Numbers(msgspec.Struct, gc=False):
    values: list[int | str | None] = msgspec.field(default_factory=list, name="Value")


class _Match(msgspec.Struct, gc=False):
    study: _Texts = msgspec.field(default_factory=_Texts, name="0020000D")
    series: _Texts = msgspec.field(default_factory=_Texts, name="0020000E")
    sop: _Texts = msgspec.field(default_factory=_Texts, name="00080018")
    instances: _Numbers = msgspec.field(default_factory=_Numbers, name="00201208")


T = TypeVar("T")
_MATCHES = msgspec.json.Decoder(list[_Match])


@dataclass(frozen=True, slots=True)
class Depth:
    """How many matches a page holds, and how many may stand before it: a multiple of that."""

    page: int = PAGE
    deepest: int = DEEPEST_OFFSET


@dataclass(frozen=True, slots=True)
class StudyCounts:
    """How far a list of studies can be trusted.

    ``complete``: every study is on it. Else studies without a StudyDate may be missing, which no search finds among
    more than ``DEEPEST_OFFSET``, and studies of ``incomplete_dates``: days with more studies than that.
    """

    complete: bool
    incomplete_dates: tuple[date, ...] = ()


def study_counts(
    client: HttpClient,
    partition: str | None,
    *,
    connections: int,
    sink: Callable[[pa.RecordBatch], None],
    depth: Depth = Depth(),
) -> StudyCounts:
    """Gives ``sink`` every study that the search finds, with its number of instances (columns: STUDY_COUNTS).

    ``partition`` is None where the service has none. One search while all studies fit into it; else ranges of
    StudyDate, halved until they do, and on a day with too many studies ranges of PatientBirthDate. A study may come
    twice, with another count when it changed meanwhile; and while others delete, one may be missed, as in any list of
    pages. Neither is remembered here: ask again for what seems to be missing. ``sink`` is called in this thread.
    Raises as ``HttpClient.send``.
    """
    name = partition or DEFAULT_PARTITION
    too_large: list[Part] = []

    def ask(part: Part, retry_policy: RetryPolicy) -> tuple[list[_Match], Iterable[Part]]:
        include = ("NumberOfStudyRelatedInstances",)
        asked = Search(client, route(partition, "studies"), _MATCHES, part.filters, include, depth.page, retry_policy)
        matches, whole = _as_far(asked, depth, newest=part.exceeds_its_parts)
        if not whole and part.exceeds_its_parts:
            too_large.append(part)
        return matches, () if whole else part.divided()

    def rows() -> Iterator[tuple[str, str, int]]:
        for matches in side_by_side(ask, [Part()], connections=connections):
            yield from ((name, _uid(match.study), _count(match.instances)) for match in matches)

    for batch in _batches(rows(), STUDY_COUNTS):
        sink(batch)
    days = {part.study.first for part in too_large if part.study is not None}
    return StudyCounts(not too_large, tuple(sorted(days)))


def instances_of_studies(
    client: HttpClient,
    partition: str | None,
    studies: Iterable[str],
    *,
    connections: int,
    depth: Depth = Depth(),
) -> Iterator[pa.RecordBatch]:
    """The instances of these studies (columns: INSTANCE_KEYS), in any order; a study that is not there has none.

    A study that is too large for one search is asked series by series. A series is always read to its end, which no
    attribute that the service searches divides: its pages cost the service at most that series. An instance may come
    twice or be missed as with ``study_counts``. ``studies`` are taken as they are needed, in this thread.
    """
    name = partition or DEFAULT_PARTITION

    def ask(part: _Within, retry_policy: RetryPolicy) -> tuple[list[tuple[str, ...]], Iterable[_Within]]:
        parent = route(partition, "studies", part.study, *(("series", part.series) if part.series else ()))
        asked = Search(client, f"{parent}/instances", _MATCHES, page=depth.page, retry_policy=retry_policy)
        if part.series:
            matches = asked.part(part.offset, depth.page)
            first = _uid(matches[0].sop) if matches else None
            if first is not None and first == part.before:
                raise SamePage
            next_page = replace(part, offset=part.offset + depth.page, before=first)
            more = [next_page] if len(matches) == depth.page else []
        else:
            matches, whole = _as_far(asked, depth, newest=False)
            series = Search(client, f"{parent}/series", _MATCHES, page=depth.page, retry_policy=retry_policy)
            pages = () if whole else series.pages()
            more = [_Within(part.study, _uid(match.series)) for page in pages for match in page]
        return [(name, part.study, part.series or _uid(match.series), _uid(match.sop)) for match in matches], more

    possible = (_Within(study) for study in studies if is_uid(study))
    answers = side_by_side(ask, possible, connections=connections)
    return _batches((row for rows in answers for row in rows), INSTANCE_KEYS)


@dataclass(frozen=True, slots=True)
class _Within:
    """Instances to ask for: of a study, or of a series of it after the first ``offset``.

    ``before`` is the first instance of the page before.
    """

    study: str
    series: str | None = None
    offset: int = 0
    before: str | None = None


def _as_far(asked: Search[T], depth: Depth, *, newest: bool) -> tuple[list[T], bool]:
    """All matches and true, when they are no more than ``depth`` allows; else false, and none or the ``newest``."""
    matches = asked.part(0, depth.page)
    if len(matches) < depth.page:
        return matches, True
    # One request tells what would else take as many as there are pages.
    if not newest and asked.part(depth.deepest, 1):
        return [], False
    for page in asked.pages(depth.page, depth.deepest + 1):
        matches += page
        if len(page) < depth.page:
            return matches, True
    return matches if newest else [], False


def _batches(rows: Iterator[tuple[Any, ...]], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    while taken := list(islice(rows, _ROWS_PER_BATCH)):
        yield pa.RecordBatch.from_arrays(
            [pa.array(column, kind) for column, kind in zip(zip(*taken, strict=True), schema.types, strict=True)],
            schema=schema,
        )


def _uid(element: _Texts) -> str:
    uid = (element.values[0] or "").strip(" \0") if element.values else ""
    if not uid:
        raise ProtocolError("the search sent a match without its UIDs")
    return uid


def _count(element: _Numbers) -> int:
    try:
        return int(element.values[0])  # type: ignore[arg-type]  # None is one of the errors
    except (IndexError, TypeError, ValueError):
        raise ProtocolError("the search sent a study without its number of instances") from None
