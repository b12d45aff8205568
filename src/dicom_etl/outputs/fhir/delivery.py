"""Brings one bundle to the server: in parts when it is refused as a whole, and again what may pass later."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from dicom_etl.core.errors import ServiceUnavailable
from dicom_etl.outputs.fhir.bundle import Entry, Outcome
from dicom_etl.outputs.fhir.responses import BundleRefused
from dicom_etl.outputs.fhir.server import FhirServer
from dicom_etl.remote.http.client import KeepsFailing
from dicom_etl.remote.http.retry import RETRYABLE_STATUSES, FailureKind, RetryableError, RetryPolicy, wait_seconds

Result = tuple[Entry, Outcome]

# How often a bundle that the server fails with is sent before its halves are: one entry may be the reason.
_FAILURES_OF_SEVERAL = 4
_FAILURES_OF_ONE = 8
# How often an entry that the server itself fails with is sent.
_TRIES_OF_AN_ENTRY = 5


def deliver(server: FhirServer, bundle: Sequence[Entry], cancelled: Callable[[], bool]) -> Iterator[Result]:
    """Each entry of a bundle with its last outcome, as soon as that is known.

    Entries with 408, 429 or a 5xx are sent again, and no others. A 429 is waited for as long as
    ``fhir.retry_seconds``; what the server keeps failing with (408, 5xx) is an outcome after some tries. Raises
    ServiceUnavailable when the server stops answering or goes on throttling, and Cancelled.
    """
    delivery = _Delivery(server, server.client.monotonic(), cancelled)
    pending: Sequence[Entry] = bundle
    for attempt in range(1, 1000):
        again: list[Result] = []
        for entry, outcome in delivery.outcomes(pending):
            if outcome.status in RETRYABLE_STATUSES and (outcome.status == 429 or attempt < _TRIES_OF_AN_ENTRY):
                again.append((entry, outcome))
            else:
                yield entry, outcome
        if not again:
            return
        delivery.wait([outcome for _, outcome in again], attempt)
        pending = [entry for entry, _ in again]


@dataclass(frozen=True, slots=True)
class _Delivery:
    """A bundle on its way, since a moment of the client's clock."""

    server: FhirServer
    since: float
    cancelled: Callable[[], bool]

    def outcomes(self, entries: Sequence[Entry]) -> Iterator[Result]:
        """The outcome of each entry; those of a bundle that is not taken as a whole come from its halves."""
        parts = [entries]
        while parts:
            part = parts.pop()
            answered = self._whole(part)
            if answered is None:
                middle = len(part) // 2
                parts += [part[middle:], part[:middle]]
            else:
                yield from zip(part, answered, strict=True)

    def _whole(self, part: Sequence[Entry]) -> list[Outcome] | None:
        """The outcomes of a bundle; None when the server takes it for too large, or all of it for one entry's fault."""
        try:
            return self._batch(part)
        except BundleRefused as refused:
            return [Outcome(refused.status, refused.issue)] if len(part) == 1 else None
        except KeepsFailing:
            return [self._alone(part[0])] if len(part) == 1 else None

    def _batch(self, part: Sequence[Entry]) -> list[Outcome]:
        attempts = _FAILURES_OF_ONE if len(part) == 1 else _FAILURES_OF_SEVERAL
        return self.server.batch(part, RetryPolicy(self.since, attempts, self.cancelled))

    def _alone(self, entry: Entry) -> Outcome:
        """The outcome of an entry that the server keeps failing with: asked once more when the server is well.

        Else an outage would be taken for the entry's fault. Raises ServiceUnavailable when the server answers nothing.
        """
        self.server.get("/metadata", RetryPolicy(cancelled=self.cancelled))
        try:
            return self.server.batch([entry], RetryPolicy(None, _FAILURES_OF_ONE, self.cancelled))[0]
        except KeepsFailing:
            return Outcome(0, None)
        except BundleRefused as refused:
            return Outcome(refused.status, refused.issue)

    def wait(self, outcomes: Sequence[Outcome], attempt: int) -> None:
        """Until these entries may be sent again. Raises ServiceUnavailable when that would be too late."""
        throttled = any(outcome.status == 429 for outcome in outcomes)
        kind = FailureKind.THROTTLED if throttled else FailureKind.FAILING
        asked = max((outcome.retry_after or 0.0 for outcome in outcomes), default=0.0)
        client = self.server.client
        seconds = wait_seconds(RetryableError("an entry", kind, asked), attempt)
        if client.monotonic() + seconds > client.deadline(self.since):
            raise ServiceUnavailable(
                f"the FHIR server at {client.host} {kind.value}: single resources have been answered status "
                f"{outcomes[0].status} for too long; run again later or raise fhir.retry_seconds"
            )
        client.pause(seconds, self.cancelled)
