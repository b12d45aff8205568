"""What a sync is asked to read."""

from __future__ import annotations

from dataclasses import dataclass

from dicom_etl.core.errors import UsageError
from dicom_etl.core.timerange import Window, parse_instant


@dataclass(frozen=True, slots=True)
class SyncRequest:
    """What to read: nothing given means every due window.

    ``exactly`` is one range, covered or not (--start/--end): one run when it is no longer than `feed.window`, else cut
    like every catching up. ``until`` is every uncovered stretch before it, once (--until, ticks). ``max_runs`` bounds
    the number of runs. ``adopt``: tables of the Data Factory template are taken over first. ``init``: the lake is made
    if there is none.
    """

    exactly: Window | None = None
    until: int | None = None
    max_runs: int | None = None
    adopt: bool = False
    init: bool = False


def request(
    start: str | None,
    end: str | None,
    until: str | None,
    max_runs: int | None,
    *,
    adopt: bool = False,
    init: bool = False,
) -> SyncRequest:
    """The request of a command line, instants as RFC 3339. Raises UsageError when they make no sense."""
    begin, stop, last = (
        _instant(name, text) for name, text in (("--start", start), ("--end", end), ("--until", until))
    )
    if max_runs is not None and max_runs < 1:
        raise UsageError("--max-runs: expected a number of at least 1")
    if last is not None and (begin is not None or stop is not None):
        raise UsageError("--until does not go with --start and --end")
    if begin is None and stop is None:
        return SyncRequest(until=last, max_runs=max_runs, adopt=adopt, init=init)
    if begin is None or stop is None:
        raise UsageError("--start and --end go together")
    if stop <= begin:
        raise UsageError("--end must be after --start")
    return SyncRequest(exactly=Window(begin, stop), max_runs=max_runs, adopt=adopt, init=init)


def _instant(option: str, text: str | None) -> int | None:
    try:
        # The template's parameter StartTime begins with the year 1; no feed is older than 1970.
        return None if text is None else max(0, parse_instant(text))
    except ValueError as error:
        raise UsageError(f"{option}: {error}") from error
