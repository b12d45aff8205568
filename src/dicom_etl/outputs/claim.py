"""One execution of an output at a time: a claim of its own, so that a slow output never holds up `sync`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime

from dicom_etl.lake.claims.claim import claim
from dicom_etl.lake.snapshot import Lake


@contextmanager
def claimed(
    lake: Lake,
    output: str,
    last_id: int,
    *,
    clock: Callable[[], datetime],
    sleep: Callable[[float], None],
    pulse: Callable[[], int],
) -> Iterator[int]:
    """The id of the next execution of the output, fenced by it; ids grow, from ``last_id`` at least.

    ``pulse`` grows as long as the work moves. Raises as ``lake.claims.claim`` does: AnotherWriter when an execution of
    this output is under way.
    """
    filesystem, folder = lake.storage.filesystem(lake.paths.claims)
    with claim(
        filesystem,
        f"{folder}/{output}",
        verb=output,
        last_known_run_id=last_id,
        clock=clock,
        sleep=sleep,
        progress=lambda: (int(time.process_time()), pulse()),
    ) as own_claim:
        yield own_claim.run_id
