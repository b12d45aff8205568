"""Rows that later events change, with histories made by hand: state, metadata and filePath of each.

design/service-protocol.md: Rows that change.
"""

from __future__ import annotations

import json

import pytest

from dicom_emulator.options import EmulatorOptions
from dicom_emulator.routes.feed import page
from dicom_emulator.state.service import DicomService
from dicom_emulator.state.uids import instance_key

KEY = instance_key("1.2", "1.2.3", "1.2.3.4")
PATHS = {1: "132_1.dcm", 2: "692_2.dcm", 3: "274_3.dcm"}
PREFIX = "AHDS/emulator/dicom/dicom/Microsoft.Default/"


def played(events, **options):
    """(action, state, metadata's marker, file name) of each row after a history such as `CDC`."""
    service = DicomService(EmulatorOptions(**({"file_paths": True} | options)))
    for number, event in enumerate(events, 1):
        if event == "D":
            service.delete(*KEY)
        else:
            act = {"C": service.create, "U": service.update}[event]
            act(KEY, {"00081030": {"vr": "LO", "Value": [f"m{number}"]}})
    rows = json.loads(page(service, service.history.window(-(10**18), 10**19, 0, 200), with_metadata=True))
    return [
        (
            row["action"][0],
            row["state"],
            row["metadata"]["00081030"]["Value"][0] if "metadata" in row else None,
            row["filePath"].removeprefix(PREFIX) if "filePath" in row else None,
        )
        for row in rows
    ]


TABLE = {
    "C": [("C", "Current", "m1", PATHS[1])],
    "CD": [("C", "Deleted", None, PATHS[1]), ("D", "Deleted", None, None)],
    "CDC": [
        ("C", "Replaced", "m3", PATHS[1]),
        ("D", "Replaced", "m3", None),
        ("C", "Current", "m3", PATHS[2]),
    ],
    "CU": [("C", "Replaced", "m2", PATHS[2]), ("U", "Current", "m2", PATHS[2])],
    "CUU": [
        ("C", "Replaced", "m3", PATHS[3]),
        ("U", "Replaced", "m3", PATHS[3]),
        ("U", "Current", "m3", PATHS[3]),
    ],
    "CUD": [
        ("C", "Deleted", None, PATHS[2]),
        ("U", "Deleted", None, PATHS[2]),
        ("D", "Deleted", None, None),
    ],
    "CDCU": [
        ("C", "Replaced", "m4", PATHS[3]),
        ("D", "Replaced", "m4", PATHS[3]),
        ("C", "Replaced", "m4", PATHS[3]),
        ("U", "Current", "m4", PATHS[3]),
    ],
}


@pytest.mark.parametrize("events", TABLE)
def test_a_history_reads_as_the_table_says(events):
    """Every row of the table of histories, read after its history (design/service-protocol.md: Rows that change)."""
    assert played(events) == TABLE[events]


def test_without_a_lake_no_row_has_a_path():
    """Rows of a service without data lake have no filePath, also after an update."""
    assert [row[3] for row in played("CDCU", file_paths=False)] == [None] * 4


def test_a_deletion_clears_older_paths_when_told_so():
    """The option for the other behaviour takes filePath off the key's older rows."""
    assert [row[3] for row in played("CUD", clear_file_path_on_delete=True)] == [None] * 3


def test_an_unfinished_store_leaves_no_row_when_it_is_deleted():
    """A reserved instance can be deleted, writes no row, and is free again."""
    service = DicomService()
    service.reserve(KEY)
    assert service.delete(*KEY) == []
    assert len(service.history) == 0
    assert service.create(KEY, b"{}").sequence == 1


def test_the_same_sop_uid_in_another_series_is_another_instance():
    """Deleting one of two instances with one SOP UID leaves the other's row alone."""
    service = DicomService()
    other = instance_key("1.2", "1.2.99", "1.2.3.4")
    service.create(KEY, b"{}")
    service.create(other, b"{}")
    service.delete(*KEY)
    rows = service.history.sequence_range(1, 10)
    assert [(row.action, row.state) for row in rows] == [
        ("Create", "Deleted"), ("Create", "Current"), ("Delete", "Deleted"),
    ]  # fmt: skip
    assert [one.key for one in service.live_instances()] == [other]


def test_one_deletion_of_a_study_gives_all_its_rows_one_timestamp():
    """Delete rows of one request share their time and differ in sequence."""
    service = DicomService()
    service.clock.freeze("2024-05-01T10:00:00Z", step=10)
    for number in range(3):
        service.create(instance_key("1.2", "1.2.3", f"1.2.3.{number}"), b"{}")
    rows = service.delete("Microsoft.Default", "1.2")
    assert [row.sequence for row in rows] == [4, 5, 6]
    assert len({row.ticks for row in rows}) == 1


def test_rows_are_ordered_by_time_then_sequence():
    """Crossed orders: v2 follows (timestamp, sequence), v1 and its latest follow the sequence."""
    service = DicomService()
    keys = [instance_key("1.2", "1.2.3", f"1.2.3.{number}") for number in range(4)]
    service.create(keys[0], b"{}", at_ticks=300, sequence=1)
    service.create(keys[1], b"{}", at_ticks=100, sequence=5)
    service.create(keys[2], b"{}", at_ticks=100, sequence=2)
    service.create(keys[3], b"{}", at_ticks=200, sequence=9)
    assert [row.sequence for row in service.history.window(0, 1000, 0, 200)] == [2, 5, 9, 1]
    assert [row.sequence for row in service.history.sequence_range(1, 9)] == [1, 2, 5, 9]
    assert service.history.latest_in_time().sequence == 1
    assert service.history.latest_by_sequence().sequence == 9
    assert service.create(instance_key("1.2", "1.2.3", "1.2.3.9"), b"{}").sequence == 10


def test_a_taken_sequence_is_refused_and_changes_nothing():
    """An event with a used sequence raises and leaves the instance as it was."""
    service = DicomService()
    service.create(KEY, b"{}", sequence=7)
    with pytest.raises(ValueError, match="sequence 7 is taken"):
        service.delete(*KEY, sequences=[7])
    assert len(service.live_instances()) == 1
    assert len(service.history) == 1


def test_a_late_row_appears_before_newer_ones():
    """A store that commits late has the time of its beginning and a later sequence."""
    service = DicomService()
    service.reserve(KEY)
    service.create(instance_key("1.2", "1.2.3", "1.2.3.5"), b"{}", at_ticks=200)
    assert [row.sequence for row in service.history.window(0, 1000, 0, 200)] == [1]
    service.commit(KEY, b"{}", at_ticks=100)
    assert [(row.ticks, row.sequence) for row in service.history.window(0, 1000, 0, 200)] == [(100, 2), (200, 1)]


def test_the_oracle_tells_the_last_create_or_update_of_each_live_key():
    """live_instances has the version that is live, with its row's sequence, time and path."""
    service = DicomService(EmulatorOptions(file_paths=True))
    other = instance_key("1.2", "1.2.3", "1.2.3.5")
    service.create(KEY, {"00081030": {"vr": "LO", "Value": ["a"]}}, at_ticks=0)
    service.create(other, b"{}", at_ticks=10)
    service.update(KEY, {"00081030": {"vr": "LO", "Value": ["b"]}}, at_ticks=25)
    service.delete(*other)
    (live,) = service.live_instances()
    assert (live.key, live.sequence, live.ticks, live.timestamp) == (KEY, 3, 25, "1970-01-01T00:00:00.0000025+00:00")
    assert live.file_path == PREFIX + PATHS[3]
    assert live.metadata == b'{"00081030":{"vr":"LO","Value":["b"]}}'


def test_a_hundred_thousand_rows_are_made_in_seconds():
    """A large history is made and paged from its end quickly enough for tests."""
    service = DicomService()
    metadata = b'{"00080060":{"vr":"CS","Value":["CT"]}}'
    for number in range(100_000):
        service.create(instance_key("1.2", f"1.2.{number // 500}", f"1.3.{number}"), metadata)
    rows = service.history.window(0, 10**19, 99_990, 200)
    assert [row.sequence for row in rows] == list(range(99_991, 100_001))
