"""One HTTP response; which statuses are retried, and as which kind of failure."""

from __future__ import annotations

from dataclasses import dataclass

import httpx

from dicom_etl.remote.http.retry import RETRYABLE_STATUSES, FailureKind, RetryableError

NOT_JSON = "an answer that is not JSON"


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """One answer with its whole body; ``retry_after`` in seconds."""

    status: int
    headers: httpx.Headers
    body: bytes
    retry_after: float | None = None

    @property
    def is_json(self) -> bool:
        """Whether its Content-Type is application/json or one that ends with +json, such as application/dicom+json."""
        content_type: str = self.headers.get("content-type", "")
        media_type = content_type.partition(";")[0].strip().lower()
        return media_type == "application/json" or media_type.endswith("+json")


def raise_if_retryable(response: HttpResponse, status_text: str) -> None:
    """Raises RetryableError for a status that another attempt may solve; ``status_text`` has no values in it.

    A 5xx may lie in what was asked for even when it says when to come back: its wait is honoured, and it counts as
    failing (design/service-protocol.md: Pages that fail).
    """
    if response.status in RETRYABLE_STATUSES:
        kind = FailureKind.THROTTLED if response.status == 429 else FailureKind.FAILING
        raise RetryableError(f"status {status_text}", kind, response.retry_after)
