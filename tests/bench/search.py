"""The search and the metadata of the benchmark's service: what it holds now, answered by arithmetic."""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import islice
from typing import TypeVar

from bench.feed import (
    IMAGES,
    LANES,
    PER_STUDY,
    Feed,
    instances_of_study,
    series_and_image,
    study_day,
    study_uid,
    uids,
)

T = TypeVar("T")
Answer = tuple[int, bytes]
_PAGING = frozenset({"limit", "offset", "includefield"})


class Search:
    """The searches that our client asks, newest first, and the metadata of an instance; KeyError for any other."""

    def __init__(self, feed: Feed) -> None:
        events = [feed.event(place) for place in range(feed.entries, len(feed))]
        self._created = feed.entries + sum(event.action == "Create" for event in events)
        self._deleted = frozenset(event.instance for event in events if event.action == "Delete")

    def answer(self, path: str, query: Mapping[str, str]) -> Answer:
        """What a path below /v2 answers, and a query with names in small letters."""
        match path.strip("/").split("/"):
            case ["studies"]:
                return _page(self._studies(query), _study, query)
            case ["instances"]:
                return _page(self._newest_first(range(self._created)), _instance, query)
            case ["studies", study, "series"]:
                return _page(self._series_of(study), _series, query)
            case ["studies", study, "instances"]:
                return _page(self._newest_first(self._instances_of(study)), _instance, query)
            case ["studies", study, "series", series, "instances"]:
                return _page(self._newest_first(self._instances_of(study, series)), _instance, query)
            case ["studies", study, "series", series, "instances", sop, "metadata"]:
                found = [one for one in map(_instance, self._instances_of(study, series)) if _uid_of(one) == sop]
                return (200, json.dumps(found).encode()) if found else (404, b"")
        raise KeyError(path)

    def _studies(self, query: Mapping[str, str]) -> Iterator[tuple[int, int]]:
        if unknown := query.keys() - _PAGING - {"studydate", "patientbirthdate"}:
            raise ValueError(unknown)
        # None of the benchmark's patients has a date of birth.
        if "patientbirthdate" in query:
            return
        known = range(-(-self._created // (PER_STUDY * LANES)) * LANES)
        first, last = query.get("studydate", "-").split("-")
        low, high = (bisect_left(known, day, key=study_day) for day in (first, f"{last}~"))
        for study in reversed(known[low:high]):
            if count := len(self._held(instances_of_study(study))):
                yield study, count

    def _series_of(self, study: str) -> list[int]:
        return sorted({series_and_image(instance)[0] for instance in self._instances_of(study)}, reverse=True)

    def _instances_of(self, study: str, series: str | None = None) -> list[int]:
        number = self._numbers.get(study)
        held = [] if number is None else self._held(instances_of_study(number))
        return [one for one in held if series in (None, uids(series_and_image(one)[0]).series)]

    def _held(self, instances: range) -> Sequence[int]:
        held = instances[: bisect_left(instances, self._created)]
        return [one for one in held if one not in self._deleted] if self._deleted else held

    def _newest_first(self, instances: Sequence[int]) -> Iterable[int]:
        # A range is left as it is: a page far down is then found at once.
        newest = instances[::-1]
        return [one for one in newest if one not in self._deleted] if self._deleted else newest

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {study_uid(number): number for number in range(self._created // PER_STUDY + LANES)}


def _page(found: Iterable[T], make: Callable[[T], object], query: Mapping[str, str]) -> Answer:
    offset, limit = int(query.get("offset", "0")), int(query.get("limit", "100"))
    if offset < 0 or not 1 <= limit <= 200:
        raise ValueError(query)
    some = found[offset : offset + limit] if isinstance(found, Sequence) else islice(found, offset, offset + limit)
    page = [make(one) for one in some]
    return (200, json.dumps(page).encode()) if page else (204, b"")


def _values(**elements: tuple[str, object]) -> dict[str, object]:
    return {tag[1:]: {"vr": vr, "Value": [value]} for tag, (vr, value) in elements.items()}


def _study(counted: tuple[int, int]) -> dict[str, object]:
    number, count = counted
    return _values(
        _00080020=("DA", study_day(number)), _00081030=("LO", f"Study {number}"),
        _00100010=("PN", {"Alphabetic": f"Bench^{number}"}), _00100020=("LO", f"{number:08d}"),
        _0020000D=("UI", study_uid(number)), _00201208=("IS", count),
    )  # fmt: skip


def _series(number: int) -> dict[str, object]:
    known = uids(number)
    return _values(_0020000D=("UI", known.study), _0020000E=("UI", known.series), _00201209=("IS", IMAGES))


def _instance(instance: int) -> dict[str, object]:
    number, image = series_and_image(instance)
    known = uids(number)
    return _values(
        _00080018=("UI", f"{known.series}.{image}"), _0020000D=("UI", known.study), _0020000E=("UI", known.series)
    )


def _uid_of(instance: dict[str, object]) -> str:
    element = instance["00080018"]
    assert isinstance(element, dict)
    return str(element["Value"][0])
