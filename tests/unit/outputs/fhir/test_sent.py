"""What the server has of us, by our own record."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from dicom_emulator.state.service import DicomService
from dicom_etl.core.errors import Superseded
from dicom_etl.outputs.fhir.sent import Recorder, Sent, last_execution, open_sent, record_of
from support.handmade import HandmadeLake

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)
SERVER = "fhir.example.org"


def row(key: str, state: str = "sent", digest: str | None = "d1") -> Sent:
    return Sent("ImagingStudy", key, key, state, NOON, None, digest, 200, None)  # type: ignore[arg-type]


def recorder(lake: HandmadeLake, execution_id: int, now: list[float], server: str = SERVER) -> Recorder:
    return Recorder(lake.lake, server, execution_id, record_of(open_sent(lake.lake), server), lambda: now[0])


def test_of_a_resource_the_newest_row_counts_and_only_of_this_server(tmp_path: Path) -> None:
    lake, now = HandmadeLake(tmp_path, DicomService()), [0.0]
    first = recorder(lake, 1, now)
    first.add([row("a"), row("b")])
    first.flush()
    first.add([row("a", digest="d2")])
    first.flush()
    second = recorder(lake, 2, now)
    second.add([row("b", "deleted", None)])
    second.flush()
    elsewhere = recorder(lake, 3, now, "other.example.org")
    elsewhere.add([row("a", digest="d9")])
    elsewhere.flush()
    found = record_of(open_sent(lake.lake), SERVER)
    assert {key: (one.state, one.digest, one.stands) for (_, key), one in found.items()} == {
        "a": ("sent", "d2", True),
        "b": ("deleted", None, False),
    }
    assert last_execution(lake.lake, open_sent(lake.lake)) == 3


def test_rows_are_committed_half_a_minute_after_the_first_at_the_latest(tmp_path: Path) -> None:
    lake, now = HandmadeLake(tmp_path, DicomService()), [100.0]
    waiting = recorder(lake, 1, now)
    waiting.add([row("a")])
    assert open_sent(lake.lake) is None
    now[0] = 131.0
    waiting.add([row("b")])
    assert set(record_of(open_sent(lake.lake), SERVER)) == {("ImagingStudy", "a"), ("ImagingStudy", "b")}


def test_an_execution_that_was_overtaken_writes_no_row(tmp_path: Path) -> None:
    lake, now = HandmadeLake(tmp_path, DicomService()), [0.0]
    slow, quick = recorder(lake, 1, now), recorder(lake, 2, now)
    quick.add([row("a")])
    quick.flush()
    slow.add([row("a", "deleted", None)])
    with pytest.raises(Superseded):
        slow.flush()
    assert [one.state for one in record_of(open_sent(lake.lake), SERVER).values()] == ["sent"]


def test_the_table_is_for_this_user_only(tmp_path: Path) -> None:
    lake = HandmadeLake(tmp_path, DicomService())
    made = recorder(lake, 1, [0.0])
    made.add([row("a")])
    made.flush()
    folder = Path(lake.lake.path("fhir_sent"))
    assert folder.stat().st_mode & 0o077 == 0
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert len(files) >= 3
    assert {path.stat().st_mode & 0o077 for path in files} == {0}
