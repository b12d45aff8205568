"""The resources of a server by kind and id, with their versions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from dicom_emulator.fhir.answers import Answer, Refusal
from dicom_emulator.fhir.options import FhirOptions
from dicom_emulator.state.clock import Clock

Json = dict[str, Any]
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Version:
    """The newest version of a resource, without what the server adds to its meta; `content` is None when deleted."""

    number: int
    updated: str
    content: Json | None

    @property
    def etag(self) -> str:
        return f'W/"{self.number}"'

    @property
    def resource(self) -> Json:
        """The resource as it is read. Raises Refusal when it is deleted."""
        if self.content is None:
            raise Refusal(410, "deleted")
        own = {"versionId": str(self.number), "lastUpdated": self.updated}
        return {**self.content, "meta": {**self.content.get("meta", {}), **own}}


class ResourceStore:
    """What the server keeps; used by the one thread that answers, read by tests."""

    def __init__(self, options: FhirOptions, clock: Clock) -> None:
        self._options = options
        self._clock = clock
        self._newest: dict[tuple[str, str], Version] = {}

    def exists(self, kind: str, resource_id: str) -> bool:
        version = self._newest.get((kind, resource_id))
        return version is not None and version.content is not None

    def version(self, kind: str, resource_id: str) -> int:
        """The number of the newest version; 0 when there never was one."""
        newest = self._newest.get((kind, resource_id))
        return newest.number if newest is not None else 0

    def living(self, kind: str) -> Iterator[Json]:
        """The resources of a kind that are not deleted, by id."""
        for (one, _), version in sorted(self._newest.items()):
            if one == kind and version.content is not None:
                yield version.resource

    def snapshot(self) -> dict[tuple[str, str], Version]:
        """What there is now, for `restore`."""
        return dict(self._newest)

    def restore(self, before: dict[tuple[str, str], Version]) -> None:
        self._newest = before

    def kinds(self) -> set[str]:
        return {kind for (kind, _), version in self._newest.items() if version.content is not None}

    def read(self, kind: str, resource_id: str) -> Answer:
        """200; raises Refusal with 404 for what never was there and 410 for what is deleted."""
        version = self._newest.get((kind, resource_id))
        if version is None:
            raise Refusal(404, "not-found", kind, resource_id)
        return Answer(200, version.resource, {"etag": version.etag})

    def put(self, kind: str, resource_id: str, resource: Json, if_match: str | None) -> Answer:
        """201 for what was not there, 200 otherwise; what is put unchanged keeps its version."""
        before = self._newest.get((kind, resource_id))
        self._check_match(before, if_match)
        content = _without_server_meta(resource)
        if before is not None and before.content == content:
            return Answer(200, before.resource, {"etag": before.etag})
        number = before.number + 1 if before is not None else 1
        now = self._newest[kind, resource_id] = Version(number, self._now(), content)
        created = before is None or before.content is None
        return Answer(201 if created else 200, now.resource, {"etag": now.etag})

    def delete(self, kind: str, resource_id: str, if_match: str | None) -> Answer:
        """204, also for what is not there (any more)."""
        before = self._newest.get((kind, resource_id))
        self._check_match(before, if_match)
        if before is None or before.content is None:
            return Answer(204)
        if self._options.keep_referenced and self._is_referenced(f"{kind}/{resource_id}"):
            raise Refusal(409, "conflict", kind, resource_id)
        gone = self._newest[kind, resource_id] = Version(before.number + 1, self._now(), None)
        return Answer(204, None, {"etag": gone.etag})

    def _check_match(self, before: Version | None, if_match: str | None) -> None:
        if if_match is not None and (before is None or before.etag != if_match):
            raise Refusal(self._options.mismatch_status, "conflict")

    def _is_referenced(self, reference: str) -> bool:
        return any(reference in references(version.content) for version in self._newest.values())

    def _now(self) -> str:
        moment = _EPOCH + timedelta(microseconds=self._clock.event_ticks() // 10)
        return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _without_server_meta(resource: Json) -> Json:
    meta = resource.get("meta")
    if not isinstance(meta, dict):
        return resource
    kept = {name: value for name, value in meta.items() if name not in ("versionId", "lastUpdated")}
    rest = {name: value for name, value in resource.items() if name != "meta"}
    return {**rest, "meta": kept} if kept else rest


def references(value: Any) -> Iterator[str]:
    """The literal references of a resource, at any depth."""
    if isinstance(value, dict):
        if isinstance(reference := value.get("reference"), str):
            yield reference
        value = list(value.values())
    if isinstance(value, list):
        for inner in value:
            yield from references(inner)
