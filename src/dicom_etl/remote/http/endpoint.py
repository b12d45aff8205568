"""A service as the client calls it: its address, its bounds, and what its statuses mean."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from dicom_etl.remote.http.request import HttpRequest
from dicom_etl.remote.http.response import HttpResponse
from dicom_etl.remote.http.retry import RETRYABLE_STATUSES

if TYPE_CHECKING:  # it loads azure-identity's core
    from dicom_etl.remote.identity import TokenSource

RaiseForStatus = Callable[[HttpRequest, HttpResponse, str], NoReturn]
"""Raises the error that an unexpected status means: RetryableError where another attempt may help. Takes the host."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One service. Each room that talks to a service makes its own.

    ``name``, ``address_key`` and ``retry_key`` are how messages call the service, the setting of its address and the
    setting to raise when it asks for a longer wait. One answer may take ``timeout_seconds``. A request is tried for
    ``retry_seconds``, but only ``first_answer_seconds`` before the first answer: a wrong address should be said soon.
    ``gateway_statuses`` are no such answer: what stands before the service may give them.
    """

    name: str
    base_url: str
    address_key: str
    raise_for_status: RaiseForStatus
    token: TokenSource | None = None
    connections: int = 1
    timeout_seconds: float = 60.0
    retry_seconds: float = 300.0
    first_answer_seconds: float = 30.0
    gateway_statuses: frozenset[int] = RETRYABLE_STATUSES
    retry_key: str | None = None
