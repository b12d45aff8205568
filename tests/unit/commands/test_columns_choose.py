"""Tags are added, listed and removed by the lake's tables alone; what cannot be a column is refused in one line."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from dicom_etl.commands.columns.choose import add, listed, remove
from dicom_etl.commands.columns.wanted import keep_added
from dicom_etl.core.errors import AnotherWriter, ConfigurationError, UsageError
from dicom_etl.core.settings.load import load_settings
from dicom_etl.core.settings.model import Settings
from dicom_etl.lake.open import existing_lake, init_lake
from dicom_etl.lake.paths import lake_paths
from dicom_etl.outputs.execution import Execution, made_executions, open_executions, record
from support.results import NOW

ENDED = Execution(
    output="columns", execution_id=1, mode="full", status="succeeded", from_run=0, to_run=1, started_at=NOW,
    finished_at=NOW,
)  # fmt: skip


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    init_lake(lake_paths(settings(tmp_path)), "localhost")
    return tmp_path


def settings(folder: Path, *more: str) -> Settings:
    return load_settings(None, [f"lake.root={folder / 'lake'}", *more], {}, folder)


def added(given: Settings) -> list[tuple[str, str, str]]:
    """Name, source and state of the columns that do not belong to the set `imaging`."""
    return [(one.column.name, str(one.source), one.state) for one in listed(given) if one.source != "imaging"]


def test_a_new_lake_has_the_set_imaging_to_fill(lake: Path) -> None:
    rows = listed(settings(lake))
    assert len(rows) > 40
    assert {(one.source, one.state) for one in rows} == {("imaging", "pending")}
    assert {"sliceThickness", "frameOfReferenceUid", "instanceNumber"} <= {one.column.name for one in rows}


def test_tags_of_the_settings_and_of_the_command_are_listed_once(lake: Path) -> None:
    """SliceThickness belongs to the set: it is wanted already, and not added a second time."""
    given = settings(lake, 'columns.tags=["KVP"]')
    private = "0019,xx0C@SIEMENS MR HEADER:double"
    with pytest.raises(UsageError, match=r"0019,xx0C@SIEMENS MR HEADER.*--identifying"):
        add(given, ["SliceThickness", private])
    rows = add(given, ["SliceThickness", "0018,1151", "KVP", private], identifying=True)
    assert [(one.column.name, one.source) for one in rows] == [
        ("sliceThickness", "imaging"), ("kvp", "settings"), ("xRayTubeCurrent", "added"),
        ("siemensMrHeader_0019_0c", "added"),
    ]  # fmt: skip
    add(given, ["XRayTubeCurrent"])
    assert added(given) == [
        ("kvp", "settings", "pending"), ("xRayTubeCurrent", "added", "pending"),
        ("siemensMrHeader_0019_0c", "added", "pending"),
    ]  # fmt: skip


def test_what_was_added_can_be_removed_and_nothing_else(lake: Path) -> None:
    given = settings(lake, 'columns.tags=["KVP"]')
    add(given, ["XRayTubeCurrent", "ExposureTime"])
    assert remove(given, "xRayTubeCurrent").state == "leaving"
    assert added(given) == [("kvp", "settings", "pending"), ("exposureTime", "added", "pending")]
    for name, why in (("kvp", "columns.tags"), ("rows", "imaging"), ("xRayTubeCurrent", "no such column")):
        with pytest.raises(UsageError, match=why):
            remove(given, name)


@pytest.mark.parametrize(
    ("tags", "why"),
    [
        (["SliceThicknes"], "SliceThickness"),
        (["ExposureTime", "PatientAddress"], "--identifying"),
        (["ExposureTime", "KVP name=exposureTime"], "exposureTime"),
    ],
)
def test_a_text_that_cannot_be_a_column_adds_nothing(lake: Path, tags: list[str], why: str) -> None:
    with pytest.raises((UsageError, ConfigurationError), match=why):
        add(settings(lake), tags)
    assert added(settings(lake)) == []


def test_a_tag_that_identifies_a_patient_is_added_when_asked_for(lake: Path) -> None:
    add(settings(lake), ["PatientAddress"], identifying=True)
    assert added(settings(lake)) == [("patientAddress", "added", "pending")]


def test_of_two_lists_that_were_made_of_the_same_one_the_second_is_refused(lake: Path) -> None:
    """Also where the first has only made the table that keeps them. What outputs append to it is no other list."""
    made_of = existing_lake(settings(lake), private=False).lake
    assert open_executions(made_of) is None
    add(settings(lake), ["KVP"])
    with pytest.raises(AnotherWriter, match="nothing was changed; run again"):
        keep_added(made_executions(made_of), (), ["ExposureTime"])
    first, second, third = (made_executions(made_of) for _ in range(3))
    keep_added(first, ["KVP"], ["KVP", "ExposureTime"])
    with pytest.raises(AnotherWriter, match="nothing was changed; run again"):
        keep_added(second, ["KVP"], [])
    keep_added(third, ["KVP"], ["KVP", "ExposureTime"])  # both add the same
    held = made_executions(made_of)
    record(made_of, ENDED)
    keep_added(held, ["KVP", "ExposureTime"], ["ExposureTime"])
    assert [name for name, _, _ in added(settings(lake))] == ["exposureTime"]


def test_of_those_that_add_at_the_same_time_each_is_kept_or_told(lake: Path) -> None:
    given = settings(lake)
    wanted = {"kvp": "KVP", "exposureTime": "ExposureTime", "xRayTubeCurrent": "XRayTubeCurrent"}
    start = Barrier(len(wanted))

    def adding(name: str) -> str | None:
        start.wait()
        try:
            add(given, [wanted[name]])
        except AnotherWriter:
            return None
        return name

    with ThreadPoolExecutor(len(wanted)) as pool:
        kept = set(pool.map(adding, wanted)) - {None}
    assert len(kept) >= 1
    assert {name for name, _, _ in added(given)} == kept


def test_a_wrong_tag_of_the_settings_names_its_setting(lake: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"columns\.tags: .*KVP"):
        listed(settings(lake, 'columns.tags=["KVPP"]'))
    with pytest.raises(ConfigurationError, match=r'columns\.tags: expected a list of texts, such as \["KVP"\]'):
        settings(lake, "columns.tags=KVP")
