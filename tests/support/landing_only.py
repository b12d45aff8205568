"""Real syncs without their MERGEs: what is read, landed, covered and recorded, and no Spark."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from dicom_emulator.options import EmulatorOptions
from dicom_emulator.serve import serve_in_thread
from dicom_etl.commands import sync
from dicom_etl.run import pipeline
from dicom_etl.run.merge import RunResult
from dicom_etl.tables.engine.session import Engine
from dicom_etl.tables.merge import MergeResult
from support.site import SECOND, Site, at


def outcome(*rejected: int) -> RunResult:
    """What MERGEs of nothing say, with these sequences rejected by the fold."""
    return RunResult(MergeResult(0, 0, 0, None), 0, 0, frozenset(rejected), 0.0, 0.0)


@contextmanager
def landing_only(folder: Path, *overrides: str, merge: Any = None) -> Iterator[Site]:
    """A service and an empty lake, whose runs land and then call ``merge`` in the place of the three MERGEs."""
    with (
        pytest.MonkeyPatch.context() as patched,
        serve_in_thread(EmulatorOptions()) as emulator,
    ):
        patched.setattr(Engine, "session", lambda *_: None)
        patched.setattr(Engine, "begin", lambda *_: None)
        patched.setattr(pipeline, "make_shared_tables", lambda *_: None)
        patched.setattr(pipeline, "merge_landed", merge or (lambda *_: outcome()))
        # No table series, no marker in it: every landing would seem to be left behind.
        patched.setattr(sync, "rollups_outstanding", lambda _lake: False)
        emulator.service.clock.freeze(at(8), step=SECOND)
        yield Site(emulator, folder, overrides, None)


def landed(site: Site) -> set[int]:
    """The sequences in ``change``."""
    return {row["sequence"] for row in site.rows("change")}


def served(site: Site, end: float) -> set[int]:
    """Those of the whole feed up to an hour of the day, visible or not yet."""
    return {row.sequence for row in site.feed(0, end)}
