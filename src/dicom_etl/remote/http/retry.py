"""When a request is tried again, and how long to wait first (design/service-protocol.md: Addresses and errors)."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import Enum

import tenacity

RETRYABLE_STATUSES = frozenset({408, 429, 500, 502, 503, 504})
MAX_ATTEMPTS = 20
FIRST_WAIT_SECONDS = 0.25
LONGEST_WAIT_SECONDS = 30.0


class FailureKind(Enum):
    """Why an attempt failed, as far as it decides what to do next."""

    UNREACHABLE = "cannot be reached"
    THROTTLED = "asks for fewer requests"
    FAILING = "keeps failing"
    """An error of its own, or half an answer: may lie in what was asked for.

    design/service-protocol.md: Pages that fail.
    """


class RetryableError(Exception):
    """One attempt failed in a way that another attempt may not.

    ``reason`` is a constant text without values. ``retry_after`` is what the service asked for, in seconds.
    ``weight`` says how many quick failures this one counts for: an attempt that took the whole
    timeout is not tried as often as one that failed at once.
    """

    def __init__(self, reason: str, kind: FailureKind, retry_after: float | None = None, weight: int = 1) -> None:
        super().__init__(reason)
        self.reason = reason
        self.kind = kind
        self.retry_after = retry_after
        self.weight = weight


def never() -> bool:
    return False


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How long one request is tried.

    ``since`` is when the trying began, on the client's monotonic clock; None for now. After
    ``failing_attempts`` failures of kind FAILING the caller wants to look for the reason itself.
    ``cancelled`` ends the waiting early.
    """

    since: float | None = None
    failing_attempts: int | None = None
    cancelled: Callable[[], bool] = never


DEFAULT_RETRY = RetryPolicy()


def failure_of(state: tenacity.RetryCallState) -> RetryableError:
    """The failure with which the last attempt ended, which is about to be tried again."""
    error = state.outcome.exception() if state.outcome is not None else None
    if not isinstance(error, RetryableError):
        raise TypeError("only a RetryableError is tried again")
    return error


def wait_seconds(failure: RetryableError, attempt: int) -> float:
    """Seconds before the next attempt: exponential, but not less than the service asked for; jittered.

    ``attempt`` is the number of the one that failed, from 1.
    """
    # Never earlier than asked; the spread keeps many connections from coming back at one moment.
    asked = (failure.retry_after or 0.0) * random.uniform(1.0, 1.05)  # noqa: S311
    longest = min(LONGEST_WAIT_SECONDS, FIRST_WAIT_SECONDS * 2.0 ** (attempt - 1))
    # The longer of the two: a service that always asks for one second would use the attempts up in no time.
    return max(asked, longest * random.uniform(0.5, 1.0))  # noqa: S311


def retry_after_seconds(value: str | None, now: datetime) -> float | None:
    """Seconds of a ``Retry-After`` header, given in seconds or as a date; None when absent or unreadable.

    ``now`` is the service's own time where known: a date means its clock. A date in the past is 0.
    """
    if value is None:
        return None
    text = value.strip()
    if text.isascii() and text.isdigit():
        # More than a day is never waited for; the cut also keeps absurd numbers out of float arithmetic.
        return float(min(int(text[:9]), 10**8))
    date = http_date(text)
    return None if date is None else max(0.0, (date - now).total_seconds())


def http_date(value: str | None) -> datetime | None:
    """The instant of an HTTP date header, aware UTC; None when absent or unreadable."""
    if not value:
        return None
    try:
        date = parsedate_to_datetime(value)
        return date.replace(tzinfo=UTC) if date.tzinfo is None else date.astimezone(UTC)
    except (ValueError, OverflowError):
        return None
