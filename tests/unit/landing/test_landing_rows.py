"""Entries of the feed as rows of ``change``: every column, and which entries are unusable."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import msgspec
import pyarrow as pa
import pytest

from dicom_etl.core import reasons
from dicom_etl.core.entry import Entry, InvalidEntry
from dicom_etl.core.timerange import parse_instant
from dicom_etl.lake.change_schema import CHANGE_PROPERTIES, STATISTICS_COLUMNS, change_schema
from dicom_etl.landing.rows import rows_of

READ_AT = datetime(2026, 3, 1, 13, 0, 0, 123456, tzinfo=timezone(timedelta(hours=5)))
TIMESTAMP = "2022-11-25T08:44:13.0243471+00:00"
METADATA = (
    '{ "00080016":{"vr":"UI","Value":["1.2.840.10008.5.1.4.1.1.2"]},"00080020":{"vr":"DA","Value":["20200922"]},'
    '"00080060":{"vr":"CS","Value":["CT"]},"00081030":{"vr":"LO","Value":["Thorax \\u0026 neck"]},'
    '"00100010":{"vr":"PN","Value":[{"Alphabetic":"Doe^John"}]},"00100020":{"vr":"LO","Value":["42"]},'
    '"00100021":{"vr":"LO","Value":["HOSP"]},"00180050":{"vr":"DS","Value":[1.0]} }'
)


def entry(metadata: str | bytes | None = METADATA, **changes: Any) -> Entry:
    fields: dict[str, Any] = {
        "sequence": 7,
        "timestamp": TIMESTAMP,
        "partition_name": "Microsoft.Default",
        "study_instance_uid": "1.2.3",
        "series_instance_uid": "1.2.3.4",
        "sop_instance_uid": "1.2.3.4.5",
        "action": "Create",
        "state": "Current",
        "file_path": "AHDS/ws/dicom/svc/Microsoft.Default/542_10.dcm",
    }
    fields |= changes
    fields.setdefault("ticks", parse_instant(fields["timestamp"]))
    if metadata is not None:
        fields["metadata"] = msgspec.Raw(metadata.encode() if isinstance(metadata, str) else metadata)
    return Entry(**fields)


def land(*entries: Entry, keep_metadata: bool = True) -> tuple[list[dict[str, Any]], tuple[InvalidEntry, ...]]:
    landed = rows_of(entries, run_id=3, read_at=READ_AT, keep_metadata=keep_metadata)
    landed.batch.validate(full=True)
    assert landed.batch.schema == change_schema()
    return landed.batch.to_pylist(), landed.unusable


def test_every_column_of_an_entry() -> None:
    """An entry becomes one row: typed columns, time in two precisions, the metadata as it came."""
    found, unusable = land(entry())
    assert found == [
        {
            "runId": 3,
            "readAt": datetime(2026, 3, 1, 8, 0, 0, 123456, tzinfo=UTC),
            "sequence": 7,
            "timestamp": datetime(2022, 11, 25, 8, 44, 13, 24347, tzinfo=UTC),
            "timestampTicks": 16693658530243471,
            "partitionName": "Microsoft.Default",
            "studyInstanceUid": "1.2.3",
            "seriesInstanceUid": "1.2.3.4",
            "sopInstanceUid": "1.2.3.4.5",
            "action": "Create",
            "state": "Current",
            "filePath": "AHDS/ws/dicom/svc/Microsoft.Default/542_10.dcm",
            "studyDate": date(2020, 9, 22),
            "studyDescription": "Thorax & neck",
            "issuerOfPatientId": "HOSP",
            "patientId": "42",
            "patientName": "Doe^John",
            "modality": "CT",
            "sopClassUid": "1.2.840.10008.5.1.4.1.1.2",
            "metadata": METADATA,
        }
    ]
    assert unusable == ()


def test_schema_of_change() -> None:
    """The columns of docs/tables.md, in their order, in types that every reader knows."""
    names = [
        "runId",
        "readAt",
        "sequence",
        "timestamp",
        "timestampTicks",
        "partitionName",
        "studyInstanceUid",
        "seriesInstanceUid",
        "sopInstanceUid",
        "action",
        "state",
        "filePath",
        "studyDate",
        "studyDescription",
        "issuerOfPatientId",
        "patientId",
        "patientName",
        "modality",
        "sopClassUid",
        "metadata",
    ]
    assert change_schema().names == names
    types = {"runId": pa.int64(), "sequence": pa.int64(), "timestampTicks": pa.int64(), "studyDate": pa.date32()}
    types |= dict.fromkeys(("readAt", "timestamp"), pa.timestamp("us", tz="UTC"))
    assert change_schema().types == [types.get(name, pa.string()) for name in names]
    assert CHANGE_PROPERTIES == {"delta.dataSkippingStatsColumns": "runId,sequence"}
    assert STATISTICS_COLUMNS == ("runId", "sequence")


@pytest.mark.parametrize(
    ("timestamp", "micros", "ticks"),
    [
        ("2022-11-25T08:44:13+00:00", 0, 16693658530000000),
        ("2022-11-25T08:44:13.1+00:00", 100000, 16693658531000000),
        ("2022-11-25T08:44:13.02+00:00", 20000, 16693658530200000),
        ("2022-11-25T08:44:13.024+00:00", 24000, 16693658530240000),
        ("2022-11-25T08:44:13.0243+00:00", 24300, 16693658530243000),
        ("2022-11-25T08:44:13.02434+00:00", 24340, 16693658530243400),
        ("2022-11-25T08:44:13.024347+00:00", 24347, 16693658530243470),
        ("2022-11-25T08:44:13.0243479+00:00", 24347, 16693658530243479),
        ("2022-11-25T08:44:13.9999999Z", 999999, 16693658539999999),
    ],
)
def test_timestamps_of_0_to_7_digits(timestamp: str, micros: int, ticks: int) -> None:
    """100 ns are cut to microseconds, never rounded up, and kept whole in timestampTicks."""
    [row], _ = land(entry(timestamp=timestamp))
    assert row["timestamp"] == datetime(2022, 11, 25, 8, 44, 13, micros, tzinfo=UTC)
    assert row["timestampTicks"] == ticks


def test_time_before_1970_is_cut_downwards() -> None:
    """A time before 1970 is cut towards the past too."""
    [row], _ = land(entry(timestamp="1969-12-31T23:59:59.9999999+00:00"))
    assert row["timestampTicks"] == -1
    assert row["timestamp"] == datetime(1969, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)


def test_uids_are_stripped_and_a_missing_partition_is_the_default() -> None:
    """Padding of UIDs goes; partition names and file paths stay as they came; an absent partition is named."""
    [row], unusable = land(
        entry(
            study_instance_uid="1.2.3 ",
            series_instance_uid=" 1.2.3.4\0",
            sop_instance_uid="1.2.3.4.5\0\0",
            partition_name=None,
            file_path=" a/b.dcm ",
        )
    )
    assert [row[name] for name in ("studyInstanceUid", "seriesInstanceUid", "sopInstanceUid")] == [
        "1.2.3",
        "1.2.3.4",
        "1.2.3.4.5",
    ]
    assert row["partitionName"] == "Microsoft.Default"
    assert row["filePath"] == " a/b.dcm "
    assert unusable == ()


@pytest.mark.parametrize(
    ("action", "state", "spelled"),
    [
        ("create", "current", ("Create", "Current")),
        ("UPDATE", "REPLACED", ("Update", "Replaced")),
        ("dElEtE", "deleted", ("Delete", "Deleted")),
    ],
)
def test_action_and_state_get_the_services_spelling(action: str, state: str, spelled: tuple[str, str]) -> None:
    """Enums are read without regard to case."""
    [row], unusable = land(entry(action=action, state=state))
    assert (row["action"], row["state"]) == spelled
    assert unusable == ()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"study_instance_uid": None}, "uid-missing"),
        ({"series_instance_uid": ""}, "uid-missing"),
        ({"sop_instance_uid": " \0"}, "uid-missing"),
        ({"action": "Purge"}, "action-unknown"),
        ({"action": None}, "action-unknown"),
        ({"state": "Archived"}, "state-unknown"),
        ({"state": None}, "state-unknown"),
        ({"metadata": None}, "metadata-missing"),
        ({"metadata": "null"}, "metadata-missing"),
        ({"metadata": "[]"}, "metadata-not-object"),
        ({"metadata": '"text"'}, "metadata-not-object"),
        ({"metadata": "17"}, "metadata-not-object"),
        ({"metadata": '{"00080020":{"vr":"DA","Value":[NaN]}}'}, "metadata-invalid"),
        ({"metadata": '{"00080020":'}, "metadata-invalid"),
        ({"metadata": '{"00091001":' + "[" * 50_000 + "]" * 50_000 + "}"}, "metadata-invalid"),
        ({"metadata": b'{"00080020":{"vr":"DA","Value":["\xff"]}}'}, "metadata-not-utf8"),
        ({"metadata": None, "unreadable": "metadata-unavailable"}, "metadata-unavailable"),
        ({"metadata": None, "unreadable": "field-not-text"}, "field-not-text"),
        ({"metadata": "{}", "action": "Update"}, None),
        ({"metadata": "{}"}, None),
    ],
)
def test_unusable_entries(changes: dict[str, Any], reason: str | None) -> None:
    """An entry that cannot be used says why, by one code, and has its row all the same."""
    [row], unusable = land(entry(**({"metadata": METADATA} | changes)))
    assert row["sequence"] == 7
    assert [u.reason for u in unusable] == ([reason] if reason else [])


def test_an_unusable_entry_carries_what_a_reject_needs() -> None:
    """Sequence, time and key, the missing parts null."""
    _, unusable = land(entry(series_instance_uid=None, study_instance_uid="1.2 ", partition_name=None, state="x"))
    assert unusable == (
        InvalidEntry(
            sequence=7,
            ticks=16693658530243471,
            partition="Microsoft.Default",
            study="1.2",
            series=None,
            sop="1.2.3.4.5",
            reason="uid-missing",
        ),
    )


@pytest.mark.parametrize(
    ("action", "state"),
    [
        ("Create", "Deleted"), ("Update", "Replaced"), ("Delete", "Deleted"), ("Delete", "Replaced"),
        ("Expire", "Deleted"), ("Move", "Replaced"), (None, "Deleted"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("metadata", [None, "[]", "{", b'{"a":"\xff"}'])
def test_deleted_and_replaced_entries_need_no_metadata(action: str, state: str, metadata: Any) -> None:
    """What is wrong with metadata that nobody needs is no reason to reject, nor is an action.

    design/architecture.md: Rejects.
    """
    _, unusable = land(entry(metadata, action=action, state=state))
    assert unusable == ()
    _, unusable = land(entry(None, action=action, state=state, unreadable="metadata-unavailable"))
    assert unusable == ()


@pytest.mark.parametrize(
    "changes", [{"sop_instance_uid": None}, {"state": "Gone"}, {"unreadable": reasons.FIELD_NOT_TEXT}]
)
@pytest.mark.parametrize("action", ["Delete", "Purge"])
def test_a_deleted_entry_without_a_certain_key_is_unusable(action: str, changes: dict[str, Any]) -> None:
    """A Deleted entry removes a row, so its key and its state must be certain, whatever its action is called."""
    _, unusable = land(entry(None, **({"action": action, "state": "Deleted"} | changes)))
    assert len(unusable) == 1
    assert unusable[0].reason in reasons.BEFORE_FOLD


@pytest.mark.parametrize("metadata", [METADATA, None, "[]"])
def test_what_is_current_by_an_unknown_action_is_judged_by_the_fold(metadata: Any) -> None:
    """Its key and its state are certain, so that a later entry of the key can make it harmless."""
    _, unusable = land(entry(metadata, action="Purge"))
    assert [u.reason for u in unusable] == ["action-unknown"]
    assert unusable[0].reason not in reasons.BEFORE_FOLD


@pytest.mark.parametrize(
    ("metadata", "kept"),
    [
        (METADATA, METADATA),
        ('{"x":1.0,"y":1E5,"z":"\\u00e4"}', '{"x":1.0,"y":1E5,"z":"\\u00e4"}'),
        ('{"z":"ä"}', '{"z":"ä"}'),
        ("[1]", "[1]"),
        ('{"x":NaN}', '{"x":NaN}'),
        ("null", None),
        (None, None),
        (b'{"z":"\xff"}', None),
    ],
)
def test_metadata_is_kept_verbatim(metadata: Any, kept: str | None) -> None:
    """The bytes as they came, odd ones too, as long as a string column can hold them."""
    [row], _ = land(entry(metadata))
    assert row["metadata"] == kept


def test_without_keep_metadata_only_the_columns_are_kept() -> None:
    """``keep_metadata = false`` keeps the attributes and drops the header, and nothing becomes unusable by it."""
    [row], unusable = land(entry(), keep_metadata=False)
    assert row["metadata"] is None
    assert row["patientName"] == "Doe^John"
    assert unusable == ()


def test_one_odd_attribute_spoils_only_itself() -> None:
    """An element of a wrong shape leaves its own column null and the others as they are."""
    document = json.loads(METADATA)
    document["00100020"] = "no element"
    document["00080060"] = {"vr": "CS", "Value": "no list"}
    document["00081030"] = {"vr": "SQ", "Value": [{"00080100": {"vr": "SH", "Value": ["x"]}}]}
    [row], unusable = land(entry(json.dumps(document)))
    assert (row["patientId"], row["modality"], row["studyDescription"]) == (None, None, None)
    assert (row["patientName"], row["studyDate"]) == ("Doe^John", date(2020, 9, 22))
    assert unusable == ()


def test_nesting_of_60_levels_is_read() -> None:
    """The service nests up to 64 levels; attributes beside it are found, and those inside it are not."""
    nested = '{"00100020":{"vr":"LO","Value":["inner"]}}'
    for _ in range(29):
        nested = f'{{"00400275":{{"vr":"SQ","Value":[{nested}]}},"00100020":{{"vr":"LO","Value":["inner"]}}}}'
    metadata = f'{{"00400275":{{"vr":"SQ","Value":[{nested}]}},"00100020":{{"vr":"LO","Value":["outer"]}}}}'
    [row], unusable = land(entry(metadata))
    assert row["patientId"] == "outer"
    assert row["metadata"] == metadata
    assert unusable == ()


def test_rows_keep_the_order_of_the_entries() -> None:
    """One row per entry, in the order of the page; metadata of one is not given to another."""
    deleted = entry(None, sequence=1, action="Delete", state="Deleted")
    found, unusable = land(entry(sequence=3), deleted, entry(sequence=2))
    assert [(row["sequence"], row["metadata"] is not None, row["patientId"]) for row in found] == [
        (3, True, "42"),
        (1, False, None),
        (2, True, "42"),
    ]
    assert unusable == ()


def test_no_entries_give_no_rows() -> None:
    """An empty page is an empty batch of the same schema."""
    assert land() == ([], ())
