"""Entries of a bundle that fail as a test says, beside the faults of whole requests (testing/faults.py)."""

from __future__ import annotations

from dataclasses import dataclass

from dicom_emulator.fhir.answers import Ask


@dataclass
class EntryFault:
    """Entries that are answered with `status`: those of a method, and of a path such as `ImagingStudy/1`; None: any.

    `times` of them, or all when None; `late` does what was asked first. `retry_after`, in seconds, is sent with the
    answer to the whole bundle, as Azure does. `hits` counts.
    """

    status: int
    code: str = "exception"
    path: str | None = None
    method: str | None = None
    times: int | None = None
    late: bool = False
    retry_after: int | None = None
    hits: int = 0

    def strikes(self, ask: Ask) -> bool:
        """Counts one entry that must fail."""
        if self.times is not None and self.hits >= self.times:
            return False
        if self.path not in (None, ask.path) or self.method not in (None, ask.method):
            return False
        self.hits += 1
        return True
