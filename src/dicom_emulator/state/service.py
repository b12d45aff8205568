"""The state of the service and its transactions: what each event writes, behind one lock.

design/service-protocol.md: Rows that change.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dicom_emulator.http.errors import InstanceExists, InstancePending
from dicom_emulator.http.jsontext import loads
from dicom_emulator.http.tokens import Tokens
from dicom_emulator.options import EmulatorOptions
from dicom_emulator.state.clock import Clock
from dicom_emulator.state.history import FeedRow, History
from dicom_emulator.state.instances import Holdings, Instance, LiveInstance, Study
from dicom_emulator.state.lake import open_lake, service_prefix
from dicom_emulator.state.operations import Operations
from dicom_emulator.state.querytags import QueryTags
from dicom_emulator.state.uids import DEFAULT_PARTITION, InstanceKey
from dicom_emulator.state.versions import Version, Versions
from dicom_emulator.testing.faults import Faults
from dicom_emulator.testing.requestlog import RequestLog

Key = tuple[str, str, str, str]
"""Partition, study, series and SOP instance UID: an InstanceKey or a plain tuple."""

Metadata = Mapping[str, Any] | bytes
"""DICOM JSON: a dict, or ready-made bytes for speed."""


@dataclass(frozen=True)
class Partition:
    """A data partition (design/service-protocol.md: Partitions)."""

    key: int
    name: str
    created_ticks: int


class DicomService:
    """Everything the emulator holds; every method is atomic and thread-safe.

    Events take `at_ticks` (100 ns since 1970 UTC) and `sequence`; by default the clock's time and the next
    number. A sequence that is taken is a ValueError, a lake that fails an OSError; then nothing is changed.
    """

    def __init__(self, options: EmulatorOptions | None = None) -> None:
        self.options = options or EmulatorOptions()
        self.lock = threading.RLock()
        self.clock = Clock()
        self.faults = Faults()
        self.tokens = Tokens(self.options.tokens)
        self.requests = RequestLog(self.options.remembered_requests)
        self.operations = Operations()
        self.query_tags = QueryTags()
        self.history = History()
        self.lake = open_lake(self.options.lake)
        self.prefix = service_prefix(self.options.workspace, self.options.service)
        self._holdings = Holdings()
        self._versions = Versions(self.options, self.lake, self.prefix)
        self._pending: dict[InstanceKey, int] = {}
        self._partitions: dict[str, Partition] = {}
        self._next_sequence = 1
        self.add_partition(DEFAULT_PARTITION)

    def create(
        self,
        key: Key,
        metadata: Metadata,
        file: bytes | None = None,
        *,
        at_ticks: int | None = None,
        sequence: int | None = None,
        uids: tuple[str, str, str] | None = None,
    ) -> FeedRow:
        """Stores an instance and returns its Create row; `uids` are as the feed shows them, when padded.

        Raises InstanceExists and InstancePending.
        """
        with self.lock:
            key = InstanceKey(*key)
            self._require_free(key)
            sequence = self._free_sequence(sequence)
            version = self._versions.add(key.partition, self._versions.take_watermark(), metadata, file)
            return self._commit_create(key, uids or key[1:], version, self._event_ticks(at_ticks), sequence)

    def reserve(self, key: Key) -> None:
        """Begins a store that does not finish: the key is taken, no row is written.

        Raises InstanceExists and InstancePending.
        """
        with self.lock:
            key = InstanceKey(*key)
            self._require_free(key)
            self._pending[key] = self._versions.take_watermark()

    def commit(
        self,
        key: Key,
        metadata: Metadata,
        file: bytes | None = None,
        *,
        at_ticks: int | None = None,
        sequence: int | None = None,
    ) -> FeedRow:
        """Finishes a reserved store; with an earlier `at_ticks` its row becomes visible late.

        design/service-protocol.md: Late rows.

        Raises KeyError when the key is not reserved.
        """
        with self.lock:
            key = InstanceKey(*key)
            sequence = self._free_sequence(sequence)
            version = self._versions.add(key.partition, self._pending[key], metadata, file)
            del self._pending[key]
            return self._commit_create(key, key[1:], version, self._event_ticks(at_ticks), sequence)

    def update(
        self,
        key: Key,
        metadata: Metadata,
        file: bytes | None = None,
        *,
        at_ticks: int | None = None,
        sequence: int | None = None,
    ) -> FeedRow:
        """Replaces one live instance's version and returns its Update row. Raises KeyError when not live."""
        changed = [(InstanceKey(*key), metadata, file)]
        sequences = None if sequence is None else [sequence]
        return self.update_together(changed, at_ticks=at_ticks, sequences=sequences)[0]

    def update_together(
        self,
        changed: Sequence[tuple[InstanceKey, Metadata, bytes | None]],
        *,
        at_ticks: int | None = None,
        sequences: Sequence[int] | None = None,
    ) -> list[FeedRow]:
        """Replaces several live instances' versions in one transaction, all rows with one timestamp.

        Raises KeyError when one is not live.
        """
        with self.lock:
            instances = [self._live(key) for key, _, _ in changed]
            numbers = self._free_sequences(sequences, len(changed))
            versions = self._new_versions(changed)
            ticks = self._event_ticks(at_ticks)
            return [
                self._commit_update(instance, version, ticks, number)
                for instance, version, number in zip(instances, versions, numbers, strict=True)
            ]

    def change_uids(
        self,
        moved: Sequence[tuple[InstanceKey, InstanceKey, Metadata, bytes | None]],
        *,
        at_ticks: int | None = None,
        sequences: Sequence[int] | None = None,
    ) -> list[FeedRow]:
        """Gives live instances new keys (old, new, ...) in one transaction: Update rows for the new keys only.

        The rows of the old keys stay as they are, Current and with the old metadata
        (design/service-protocol.md: Change of UIDs).
        Raises KeyError when an old one is not live, InstanceExists or InstancePending when a new one is taken.
        """
        with self.lock:
            instances = [self._live(old) for old, _, _, _ in moved]
            for _, new, _, _ in moved:
                self._require_free(new)
            if len({new for _, new, _, _ in moved}) < len(moved):
                raise InstanceExists
            numbers = self._free_sequences(sequences, len(moved))
            versions = self._new_versions([(new, metadata, file) for _, new, metadata, file in moved])
            ticks = self._event_ticks(at_ticks)
            return [
                self._commit_move(instance, new, version, ticks, number)
                for instance, (_, new, _, _), version, number in zip(instances, moved, versions, numbers, strict=True)
            ]

    def delete(
        self,
        partition: str,
        study: str,
        series: str | None = None,
        sop: str | None = None,
        *,
        at_ticks: int | None = None,
        sequences: Sequence[int] | None = None,
    ) -> list[FeedRow]:
        """Deletes an instance, a series or a study and returns its Delete rows, all with one timestamp.

        Pending instances vanish without a row. Raises KeyError when nothing is there.
        """
        with self.lock:
            doomed = self.instances(partition, study, series, sop)
            pending = [key for key in self._pending if _within(key, partition, study, series, sop)]
            if not doomed and not pending:
                raise KeyError(study)
            numbers = self._free_sequences(sequences, len(doomed))
            for key in pending:
                del self._pending[key]
            if not doomed:
                return []
            ticks = self._event_ticks(at_ticks)
            return [
                self._commit_delete(instance, ticks, number) for instance, number in zip(doomed, numbers, strict=True)
            ]

    def reindex(self, operation: str) -> None:
        """Ends the reindex of extended query tags over what is live now, whatever its partition."""
        with self.lock:
            live = ((one.key, _dataset(one.current)) for one in self._holdings)
            self.query_tags.finish(operation, live, self.clock.now_ticks())

    def hold(self, sequence: int, until: int | None = None) -> None:
        """Keeps a row out of feed and `latest` until `release`, or until the clock's `until` (ticks).

        It may have happened already or be yet to come. Only the row itself is held back: what the event did
        to older rows and to the store shows at once. (A whole transaction that commits late is an event
        with an earlier `at_ticks`, and `sequence` if need be.)
        """
        with self.lock:
            self.history.hide(sequence, until)

    def release(self, sequence: int | None = None) -> None:
        """Serves a held row; None: all of them."""
        with self.lock:
            self.history.show(sequence)

    @property
    def next_sequence(self) -> int:
        """The number that the next event gets."""
        with self.lock:
            return self._next_sequence

    def skip_sequences(self, count: int) -> None:
        """Leaves a gap of `count` numbers, as rolled-back transactions do."""
        with self.lock:
            self._next_sequence += count

    def skip_watermarks(self, count: int) -> None:
        """Uses up `count` watermarks, as failed stores do."""
        with self.lock:
            self._versions.skip(count)

    def add_partition(self, name: str) -> Partition:
        """The partition of that name, made when new."""
        with self.lock:
            if name not in self._partitions:
                number = len(self._partitions) + 1
                self._partitions[name] = Partition(number, name, self.clock.now_ticks())
            return self._partitions[name]

    def partitions(self) -> list[Partition]:
        """All partitions in the order they were made."""
        with self.lock:
            return list(self._partitions.values())

    def instances(
        self, partition: str, study: str, series: str | None = None, sop: str | None = None
    ) -> list[Instance]:
        """The live instances of a study, of a series of it, or one of that; empty when there are none."""
        with self.lock:
            return self._holdings.within(partition, study, series, sop)

    def studies(self, partition: str) -> list[tuple[str, Study]]:
        """UID and study of every study of a partition, the one begun last first."""
        with self.lock:
            return self._holdings.studies(partition)

    def version(self, watermark: int | None) -> Version | None:
        """A version by its watermark; None for None and for what is gone."""
        return None if watermark is None else self._versions.get(watermark)

    def live_instances(self) -> list[LiveInstance]:
        """The oracle: what a consumer of the whole feed must end with, sorted by key."""
        with self.lock:
            live = [
                LiveInstance(one.key, one.sequence, one.ticks, one.current.file_path, one.current.metadata)
                for one in self._holdings
            ]
        return sorted(live, key=lambda one: one.key)

    # Below, the lock is held.

    def _require_free(self, key: InstanceKey) -> None:
        if self._holdings.find(key) is not None:
            raise InstanceExists
        if key in self._pending:
            raise InstancePending

    def _live(self, key: InstanceKey) -> Instance:
        instance = self._holdings.find(key)
        if instance is None:
            raise KeyError(key)
        return instance

    def _event_ticks(self, at_ticks: int | None) -> int:
        return self.clock.event_ticks() if at_ticks is None else at_ticks

    def _free_sequences(self, wanted: Sequence[int] | None, count: int) -> list[int]:
        if wanted is not None and len(wanted) != count:
            raise ValueError(f"{len(wanted)} sequences for {count} rows")
        return [self._free_sequence(None if wanted is None else wanted[place]) for place in range(count)]

    def _free_sequence(self, wanted: int | None) -> int:
        sequence = self._next_sequence if wanted is None else wanted
        if sequence in self.history:
            raise ValueError(f"sequence {sequence} is taken")
        self._next_sequence = max(self._next_sequence, sequence + 1)
        return sequence

    def _new_versions(self, changed: Iterable[tuple[InstanceKey, Metadata, bytes | None]]) -> list[Version]:
        """All of them or, when the lake fails, none."""
        versions: list[Version] = []
        try:
            for key, metadata, file in changed:
                watermark = self._versions.take_watermark()
                versions.append(self._versions.add(key.partition, watermark, metadata, file))
        except OSError:
            for version in versions:
                self._versions.drop(version)
            raise
        return versions

    def _commit_create(
        self, key: InstanceKey, uids: tuple[str, str, str], version: Version, ticks: int, sequence: int
    ) -> FeedRow:
        self.add_partition(key.partition)
        self._holdings.add(Instance(key, uids, version, None, sequence, ticks))
        watermark = version.watermark
        row = FeedRow(sequence, ticks, "Create", key, uids, watermark, watermark, version.file_path)
        self.history.created(row)
        return row

    def _commit_update(self, instance: Instance, version: Version, ticks: int, sequence: int) -> FeedRow:
        """The first update keeps the original, later ones drop the version between."""
        if instance.original is None:
            instance.original = instance.current
        else:
            self._versions.drop(instance.current)
        instance.current, instance.sequence, instance.ticks = version, sequence, ticks
        self._index_again(instance.key, instance.key, version)
        key, uids, watermark = instance.key, instance.uids, version.watermark
        row = FeedRow(sequence, ticks, "Update", key, uids, watermark, watermark, version.file_path)
        self.history.updated(row)
        return row

    def _commit_move(
        self, instance: Instance, key: InstanceKey, version: Version, ticks: int, sequence: int
    ) -> FeedRow:
        """The old version is kept for good: the old key's rows go on showing it."""
        self._versions.keep(instance.current)
        self._holdings.remove(instance.key)
        self._index_again(instance.key, key, version)
        uids, watermark = key[1:], version.watermark
        self._holdings.add(Instance(key, uids, version, instance.original or instance.current, sequence, ticks))
        row = FeedRow(sequence, ticks, "Update", key, uids, watermark, watermark, version.file_path)
        self.history.updated(row)
        return row

    def _commit_delete(self, instance: Instance, ticks: int, sequence: int) -> FeedRow:
        """Both the current and the original version go."""
        self._holdings.remove(instance.key)
        self.query_tags.follow(instance.key)
        for version in (instance.current, instance.original):
            if version is not None:
                self._versions.drop(version)
        key, uids, watermark = instance.key, instance.uids, instance.current.watermark
        row = FeedRow(sequence, ticks, "Delete", key, uids, watermark, None, None)
        self.history.deleted(row, self.options.clear_file_path_on_delete)
        return row

    def _index_again(self, old: InstanceKey, new: InstanceKey, version: Version) -> None:
        """Metadata are parsed only where a tag could have an error of it."""
        if any(tag.errors for tag in self.query_tags.all()):
            self.query_tags.follow(old, new, _dataset(version))


def _dataset(version: Version) -> Mapping[str, Any]:
    """The version's DICOM JSON; empty for what an event gave as metadata and is none."""
    try:
        document = loads(version.metadata)
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}


def _within(key: InstanceKey, partition: str, study: str, series: str | None, sop: str | None) -> bool:
    return (key.partition, key.study) == (partition, study) and series in (None, key.series) and sop in (None, key.sop)
