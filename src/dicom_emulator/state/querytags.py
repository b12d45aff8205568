"""The extended query tags of the service: their states, and which instances could not be indexed by them.

A tag is Adding while its reindex runs and Ready after; errors of the reindex disable it until somebody enables it. An
error goes with its instance, or with the version of it that could not be indexed
(design/service-protocol.md: Extended query tags).
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from dicom_emulator.dicom.indexing import Attribute, Json
from dicom_emulator.state.uids import InstanceKey

MOST_TAGS = 128
ADDING, READY = "Adding", "Ready"
ENABLED, DISABLED = "Enabled", "Disabled"


class TagExists(Exception):
    """One of the tags is there already."""


class TooManyTags(Exception):
    """There would be more than MOST_TAGS."""


class ReindexRuns(Exception):
    """A reindex has not ended; its operation's id is the argument."""


@dataclass(frozen=True, slots=True)
class TagError:
    """An instance that a reindex could not index; `message` says why, without the value."""

    key: InstanceKey
    ticks: int
    message: str


@dataclass(frozen=True, slots=True)
class QueryTag:
    """One tag as it is now; `level` is Study, Series or Instance, `operation` the id of the reindex that runs."""

    attribute: Attribute
    level: str
    status: str = ADDING
    query_status: str = ENABLED
    operation: str | None = None
    errors: tuple[TagError, ...] = ()


class QueryTags:
    """All of them by their path, in the order they were added. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._tags: dict[str, QueryTag] = {}

    def add(self, attributes: Sequence[tuple[Attribute, str]], operation: str) -> None:
        """Adds tags, each with its level, all or none. Raises ReindexRuns, TagExists, TooManyTags."""
        with self._lock:
            running = next((tag.operation for tag in self._tags.values() if tag.status == ADDING), None)
            if running is not None:
                raise ReindexRuns(running)
            if any(attribute.path in self._tags for attribute, _ in attributes):
                raise TagExists
            if len(self._tags) + len(attributes) > MOST_TAGS:
                raise TooManyTags
            for attribute, level in attributes:
                self._tags[attribute.path] = QueryTag(attribute, level, operation=operation)

    def all(self) -> list[QueryTag]:
        """All of them, the oldest first."""
        with self._lock:
            return list(self._tags.values())

    def find(self, path: str) -> QueryTag:
        """The tag of a path. Raises KeyError."""
        with self._lock:
            return self._tags[path]

    def delete(self, path: str) -> None:
        """Removes a tag with its errors. Raises KeyError, and ReindexRuns while it is being added."""
        with self._lock:
            tag = self._tags[path]
            if tag.status == ADDING:
                raise ReindexRuns(tag.operation)
            del self._tags[path]

    def set_query_status(self, path: str, status: str) -> QueryTag:
        """Enables or disables the search by a tag, and returns it. Raises KeyError."""
        with self._lock:
            self._tags[path] = replace(self._tags[path], query_status=status)
            return self._tags[path]

    def standard_vrs(self) -> Mapping[int, str]:
        """The VRs of the tags that are not private, by tag: a store checks these attributes."""
        attributes = (tag.attribute for tag in self.all())
        return {int(one.path, 16): one.vr for one in attributes if one.private_creator is None}

    def finish(self, operation: str, live: Iterable[tuple[InstanceKey, Json]], ticks: int) -> None:
        """Ends a reindex of live instances and their DICOM JSON: its tags are Ready, those with errors disabled."""
        datasets = list(live)
        with self._lock:
            for path, tag in self._tags.items():
                if tag.operation == operation:
                    errors = tuple(_errors(tag.attribute, datasets, ticks))
                    status = DISABLED if errors else tag.query_status
                    self._tags[path] = replace(tag, status=READY, query_status=status, operation=None, errors=errors)

    def follow(self, old: InstanceKey, new: InstanceKey | None = None, dataset: Json | None = None) -> None:
        """An instance was deleted, or has a new version: errors that no longer hold go, the others go with its key."""
        with self._lock:
            for path, tag in self._tags.items():
                if any(error.key == old for error in tag.errors):
                    moved = (_moved(tag.attribute, error, old, new, dataset) for error in tag.errors)
                    self._tags[path] = replace(tag, errors=tuple(error for error in moved if error is not None))


def _errors(attribute: Attribute, live: Iterable[tuple[InstanceKey, Json]], ticks: int) -> Iterable[TagError]:
    for key, dataset in live:
        if (message := attribute.violation(dataset)) is not None:
            yield TagError(key, ticks, message)


def _moved(
    attribute: Attribute, error: TagError, old: InstanceKey, new: InstanceKey | None, dataset: Json | None
) -> TagError | None:
    if error.key != old:
        return error
    message = None if dataset is None else attribute.violation(dataset)
    return None if new is None or message is None else TagError(new, error.ticks, message)
