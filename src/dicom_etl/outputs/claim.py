"""One execution of an output at a time: a claim of its own, so that a slow output never holds up `sync`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime

from fsspec import AbstractFileSystem

from dicom_etl.lake.claims.claim import claim
from dicom_etl.lake.claims.file import ClaimFolder
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
    verb: str | None = None,
) -> Iterator[int]:
    """The id of the next execution of the output, fenced by it; ids grow, from ``last_id`` at least.

    ``pulse`` grows as long as the work moves; ``verb`` is what works, where that is no execution. Raises as
    ``lake.claims.claim`` does: AnotherWriter when an execution of this output is under way.
    """
    with claim(
        *_folder(lake, output),
        verb=verb or output,
        last_known_run_id=last_id,
        clock=clock,
        sleep=sleep,
        progress=lambda: (int(time.process_time()), pulse()),
    ) as own_claim:
        yield own_claim.run_id


def last_between(lake: Lake, output: str, after: int, before: int) -> int | None:
    """The highest id between these two that an execution of the output may have had, which so may have left work half
    done; None where there was none.

    A claim whose file is gone counts as one.
    """
    claims = ClaimFolder(*_folder(lake, output))
    for one in reversed(range(after + 1, before)):
        snapshot = claims.read(one)
        if snapshot is None or snapshot.file is None or (snapshot.file.verb == output and not snapshot.file.withdrawn):
            return one
    return None


def _folder(lake: Lake, output: str) -> tuple[AbstractFileSystem, str]:
    filesystem, folder = lake.storage.filesystem(lake.paths.claims)
    return filesystem, f"{folder}/{output}"
