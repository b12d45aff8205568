"""The live instances, by partition, study, series and SOP instance UID; not locked (the service does)."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field

from dicom_emulator.state.timestamps import timestamp_text
from dicom_emulator.state.uids import InstanceKey
from dicom_emulator.state.versions import Version


@dataclass(slots=True)
class Instance:
    """A live instance; `original` is its version before the first update, None when it had none.

    `uids` are as the file has them, padding included; `sequence` and `ticks` of the last Create or Update.
    """

    key: InstanceKey
    uids: tuple[str, str, str]
    current: Version
    original: Version | None
    sequence: int
    ticks: int


@dataclass(slots=True)
class Series:
    """A series with at least one instance; `order` tells which came first."""

    order: int
    instances: dict[str, Instance] = field(default_factory=dict)


@dataclass(slots=True)
class Study:
    """A study with at least one series; `order` tells which came first."""

    order: int
    series: dict[str, Series] = field(default_factory=dict)


@dataclass(frozen=True)
class LiveInstance:
    """What the service holds for one key: its last Create or Update, and the version that is live."""

    key: InstanceKey
    sequence: int
    ticks: int
    file_path: str | None
    metadata: bytes

    @property
    def timestamp(self) -> str:
        """The event's timestamp as the feed writes it."""
        return timestamp_text(self.ticks)


class Holdings:
    """All live instances; studies and series without instances vanish."""

    def __init__(self) -> None:
        self._orders = itertools.count(1)
        self._studies: dict[tuple[str, str], Study] = {}

    def __iter__(self) -> Iterator[Instance]:
        for study in self._studies.values():
            for series in study.series.values():
                yield from series.instances.values()

    def add(self, instance: Instance) -> None:
        """Adds an instance whose key is not held."""
        partition, study_uid, series_uid, sop_uid = instance.key
        study = self._studies.get((partition, study_uid))
        if study is None:
            study = self._studies[partition, study_uid] = Study(next(self._orders))
        series = study.series.get(series_uid)
        if series is None:
            series = study.series[series_uid] = Series(next(self._orders))
        series.instances[sop_uid] = instance

    def remove(self, key: InstanceKey) -> None:
        """Removes an instance, and its series and study when they are empty then."""
        study = self._studies[key.partition, key.study]
        series = study.series[key.series]
        del series.instances[key.sop]
        if not series.instances:
            del study.series[key.series]
        if not study.series:
            del self._studies[key.partition, key.study]

    def find(self, key: InstanceKey) -> Instance | None:
        """The instance of a key, None when it is not live."""
        study = self._studies.get((key.partition, key.study))
        series = study.series.get(key.series) if study else None
        return series.instances.get(key.sop) if series else None

    def within(self, partition: str, study: str, series: str | None = None, sop: str | None = None) -> list[Instance]:
        """The instances of a study, of a series of it, or one of that; empty when there are none."""
        stored = self._studies.get((partition, study))
        if stored is None:
            return []
        if series is None:
            chosen = list(stored.series.values())
        else:
            chosen = [stored.series[series]] if series in stored.series else []
        if sop is None:
            return [instance for one in chosen for instance in one.instances.values()]
        return [one.instances[sop] for one in chosen if sop in one.instances]

    def studies(self, partition: str) -> list[tuple[str, Study]]:
        """UID and study of every study of a partition, the one begun last first."""
        matching = [(uid, study) for (name, uid), study in self._studies.items() if name == partition]
        return sorted(matching, key=lambda item: -item[1].order)
