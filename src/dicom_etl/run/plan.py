"""What one run is to do."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from dicom_etl.core.timerange import Window


@dataclass(frozen=True, slots=True)
class RunPlan:
    """What one run is to do: read ``stretch``, with ``now`` (ticks) deciding what of it counts as covered.

    ``exact``: read all of it, however many entries it holds. ``started_at`` is aware UTC.
    """

    stretch: Window
    exact: bool
    now: int
    started_at: datetime
