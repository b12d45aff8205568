"""How many examples a slow property test tries: a fifth in `make test`, all of them in `make soak`."""

from __future__ import annotations

import os


def examples(number: int) -> int:
    """A fifth of ``number``, or all where DICOM_ETL_TEST_TIER is soak."""
    return number if os.environ.get("DICOM_ETL_TEST_TIER") == "soak" else number // 5
