"""Voids: recorded, read back by key, and lifted."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from dicom_etl.lake.delta.table import create_table, open_table
from dicom_etl.lake.rejected import Reject, append_rejects, closed_rejects, read_open, rejected_schema
from dicom_etl.lake.voids import new_voids, read_voids, void_until

NOW = datetime(2024, 5, 1, 12, tzinfo=UTC)
KEY, OTHER = ("p", "1", "2", "3"), ("p", "1", "2", "4")


def test_the_newest_row_of_a_sequence_counts(tmp_path: Path) -> None:
    """Gaps that are void by themselves have no key and are none of these; a lifted void holds no more."""
    path = str(tmp_path / "rejected")
    create_table(path, rejected_schema(), name="rejected", properties={})

    def record(run_id: int, rejects: list[Reject]) -> None:
        table = open_table(path)
        assert table is not None
        append_rejects(table, rejects, app_id="u/rejected", run_id=run_id, details={})

    def voids() -> list[Reject]:
        table = open_table(path)
        assert table is not None
        assert read_open(table) == []
        return read_voids(table)

    gap = Reject(1, 9, NOW, "p", None, None, None, "gap", "void", NOW)
    record(1, [*new_voids([(KEY, 5, 17), (OTHER, 6, 27), (KEY, 7, 37)], run_id=1, recorded_at=NOW), gap])
    assert void_until(voids()) == {KEY: 7, OTHER: 6}
    assert [v.timestamp.microsecond for v in voids()] == [1, 2, 3]
    record(2, closed_rejects([v for v in voids() if v.sop == "4"], run_id=2, recorded_at=NOW))
    assert void_until(voids()) == {KEY: 7}
