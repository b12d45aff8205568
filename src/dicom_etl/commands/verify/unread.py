"""What no run has read and no `sync` will read: stretches before `feed.start`, after the earliest coverage.

design/architecture.md: Comparison and repair.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from dicom_etl.core.timerange import Window, format_instant, subtract


@dataclass(frozen=True, slots=True)
class Unread:
    """The stretches, oldest first, and how many instances of the service the lake lacks because of them."""

    windows: tuple[Window, ...] = ()
    instances: int = 0

    @property
    def text(self) -> str | None:
        """The stretches as a command and a job print them; None where there is none."""
        return ", ".join(f"{format_instant(w.start)} to {format_instant(w.end)}" for w in self.windows) or None

    @property
    def line(self) -> str | None:
        """What a person is told of it; None where the lake lacks nothing."""
        if not self.instances:
            return None
        return (
            f"not read: {self.text}; {self.instances} instances of there are not in the lake, and no sync reads them, "
            "as feed.start is later: set it earlier and sync, or read that range by sync --start and --end"
        )


def unread_windows(start: int, since: int, covered: Collection[Window]) -> tuple[Window, ...]:
    """What of the time from the comparison's ``start`` to ``since`` (`feed.start`) no run covers; all in ticks."""
    return tuple(subtract(Window(start, since), covered)) if start < since else ()
