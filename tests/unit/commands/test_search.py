"""`dicom-etl search`: rows of what the service holds, in pages, and one line for what it does not take."""

from __future__ import annotations

import csv
import io
import json
import logging
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import httpx
import pytest

from dicom_emulator.options import EmulatorOptions
from dicom_emulator.serve import Emulator, serve_in_thread
from dicom_emulator.state.uids import instance_key
from dicom_etl.cli.main import cli
from dicom_etl.commands.search import search, search_request
from dicom_etl.core.errors import UsageError
from dicom_etl.core.settings.load import load_settings
from dicom_etl.core.settings.model import Settings


def header(number: int, **more: Any) -> dict[str, Any]:
    """DICOM JSON of the patient with this number."""
    return {
        "00080020": {"vr": "DA", "Value": [f"202405{number % 28 + 1:02}"]},
        "00080060": {"vr": "CS", "Value": ["CT" if number % 2 else "MR"]},
        "00100010": {"vr": "PN", "Value": [{"Alphabetic": f"Doe^{number}"}]},
        "00100020": {"vr": "LO", "Value": [f"P{number}"]},
        "00200013": {"vr": "IS", "Value": [number]},
    } | more


@pytest.fixture(scope="module")
def service() -> Iterator[Emulator]:
    """250 studies of one instance each; the first has a second series."""
    with serve_in_thread() as running:
        for number in range(250):
            key = instance_key(f"1.2.{number + 1}", f"1.2.{number + 1}.1", f"1.2.{number + 1}.1.1")
            running.service.create(key, header(number))
        running.service.create(instance_key("1.2.1", "1.2.1.2", "1.2.1.2.1"), header(1))
        yield running


def settings_of(running: Emulator) -> Settings:
    return load_settings(None, [f"dicom.base_url={running.base_url}", "dicom.retry_seconds=1"])


def rows_of(running: Emulator, *words: Any, **how: Any) -> list[dict[str, Any]]:
    request = search_request(*words, **how)
    return [dict(zip(request.columns, row, strict=True)) for row in search(settings_of(running), request)]


def said(running: Emulator, *words: str) -> int:
    """The command in this process; its exit code."""
    address = f"dicom.base_url={running.base_url}"
    return int(cli.main(["search", *words, "--set", address], prog_name="dicom-etl", standalone_mode=False) or 0)


def test_all_matches_come_page_by_page(service: Emulator) -> None:
    """250 studies by two requests, each once, newest first."""
    service.service.requests.clear()
    rows = rows_of(service, "studies")
    assert [row["StudyInstanceUID"] for row in rows] == [f"1.2.{number}" for number in range(250, 0, -1)]
    assert service.service.requests.count("GET /v2/studies") == 2


def test_a_study_has_its_usual_columns(service: Emulator) -> None:
    """Single values as they are, lists where there may be several, null where there is none."""
    (row,) = rows_of(service, "studies", ["StudyInstanceUID=1.2.1"])
    assert row == {
        "StudyInstanceUID": "1.2.1", "PatientID": "P1", "PatientName": "Doe^1", "PatientBirthDate": None,
        "StudyDate": "20240502", "AccessionNumber": None, "StudyDescription": None, "ReferringPhysicianName": None,
        "ModalitiesInStudy": ["CT", "MR"], "NumberOfStudyRelatedInstances": 2,
    }  # fmt: skip


@pytest.mark.parametrize("key", ["StudyInstanceUID", "0020000D", "0020000d", "0020,000D", "(0020,000d)"])
def test_a_key_is_a_keyword_or_a_tag(service: Emulator, key: str) -> None:
    rows = rows_of(service, "series", [f"{key}=1.2.1"], fields=["SeriesInstanceUID,00080060"])
    assert rows == [
        {"SeriesInstanceUID": "1.2.1.2", "Modality": "CT"}, {"SeriesInstanceUID": "1.2.1.1", "Modality": "MR"},
    ]  # fmt: skip


def test_keys_must_all_match_and_dates_take_ranges(service: Emulator) -> None:
    words = ["StudyDate=20240501-20240502", "Modality=CT"]
    rows = rows_of(service, "instances", words, fields=["SOPInstanceUID"], limit=3)
    assert rows == [{"SOPInstanceUID": uid} for uid in ("1.2.1.2.1", "1.2.226.1.1", "1.2.198.1.1")]


@pytest.mark.parametrize(("limit", "asked"), [(1, "1"), (150, "150"), (220, "200")])
def test_a_limit_bounds_rows_and_requests(service: Emulator, limit: int, asked: str) -> None:
    """No more is asked for than that, or a page."""
    service.service.requests.clear()
    assert len(rows_of(service, "studies", limit=limit)) == limit
    assert {one.query["limit"] for one in service.service.requests.all()} == {asked}


def test_a_match_that_moves_to_the_next_page_is_given_once() -> None:
    """While the first page is read, a newer study comes in: the last match of the page is the first of the next."""
    with serve_in_thread() as running:
        for number in range(201):
            running.service.create(instance_key(f"1.2.{number + 1}", "1.3", f"1.4.{number}"), header(number))
        request = search_request("studies", fields=["StudyInstanceUID"])
        rows = search(settings_of(running), request)
        first = next(rows)
        running.service.create(instance_key("1.2.999", "1.3", "1.4.999"), header(0))
        uids = [row[0] for row in (first, *rows)]
        assert len(uids) == len(set(uids)) == 201


@pytest.mark.parametrize(
    ("words", "how", "line"),
    [
        (["PatientNme=Doe"], {}, "search: PatientNme: no DICOM keyword; did you mean PatientName?"),
        (["patientid=P1"], {}, "search: patientid: no DICOM keyword; did you mean PatientID?"),
        (["Xyzzy=1"], {}, "search: Xyzzy: no DICOM keyword; see PS3.6 of the standard, or give its tag"),
        (["Doe^Jane"], {}, "search: expected KEY=VALUE, such as PatientID=1CT1"),
        (["Doe^Jane=1"], {}, "search: expected a DICOM keyword such as PatientID, or a tag such as 00100020"),
        (["PatientID="], {}, "search: PatientID: has no value; the service finds nothing by an empty one"),
        (["PatientID=<b>"], {}, "search: PatientID: the service takes no value with <"),
        (["PatientID=1", "00100020=2"], {}, "search: PatientID: is given twice"),
        (["limit=5"], {}, "search: limit: is no attribute; use --limit"),
        ([], {"fields": ["PatientNme"]}, "--fields: PatientNme: no DICOM keyword; did you mean PatientName?"),
    ],
)
def test_a_wrong_word_is_one_line_without_a_value(words: list[str], how: dict[str, Any], line: str) -> None:
    with pytest.raises(UsageError) as error:
        search_request("studies", words, **how)
    assert str(error.value) == line


def test_what_the_service_does_not_search_by_is_named(service: Emulator) -> None:
    """Its own text may quote a value: it is not printed."""
    with pytest.raises(UsageError, match="does not search studies by PatientSex: make it an extended query tag"):
        rows_of(service, "studies", ["PatientSex=O"])
    with pytest.raises(UsageError, match="does not take one of the values; a date is YYYYMMDD") as error:
        rows_of(service, "studies", ["StudyDate=May"])
    assert "May" not in str(error.value)
    with pytest.raises(UsageError, match="has no data partitions; leave it out"):
        rows_of(service, "studies", partition="a")


def test_an_extended_query_tag_is_searched_by(make_service: Any) -> None:
    """The service decides what is searchable: no list of ours is in the way."""
    running = make_service()
    running.service.create(
        instance_key("1.2", "1.3", "1.4"), header(1, **{"00101010": {"vr": "AS", "Value": ["035Y"]}})
    )
    added = httpx.post(
        f"{running.base_url}/v2/extendedquerytags", json=[{"path": "PatientAge", "level": "Study"}], timeout=60
    )
    assert added.status_code == 202
    assert rows_of(running, "studies", ["PatientAge=035Y"], fields=["PatientAge"]) == [{"PatientAge": "035Y"}]


def test_partitions_are_named(make_service: Any) -> None:
    """Where a service has them, one must be given."""
    running = make_service(partitions=True)
    running.service.create(("clinic-a", "1.2", "1.3", "1.4"), header(1))
    assert len(rows_of(running, "studies", partition="clinic-a")) == 1
    with pytest.raises(UsageError, match=r"name one by --partition: .*, clinic-a$"):
        rows_of(running, "studies")
    with pytest.raises(UsageError, match=r"no such data partition; there are: .*, clinic-a$"):
        rows_of(running, "studies", partition="clinic-b")


@pytest.fixture
def make_service() -> Iterator[Any]:
    with ExitStack() as stack:
        yield lambda **options: stack.enter_context(serve_in_thread(EmulatorOptions(**options)))


def test_json_is_an_object_a_line_with_the_same_names(service: Emulator, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        said(service, "studies", "PatientID=P2", "--fields", "PatientName,ModalitiesInStudy", "--format", "json") == 0
    )
    out, err = capsys.readouterr()
    assert ([json.loads(line) for line in out.splitlines()], err) == (
        [{"PatientName": "Doe^2", "ModalitiesInStudy": ["MR"]}], "",
    )  # fmt: skip


def test_csv_has_a_header_also_without_a_match(service: Emulator, capsys: pytest.CaptureFixture[str]) -> None:
    """Several values have DICOM's backslash between them."""
    fields = ["--fields", "PatientName", "--fields", "ModalitiesInStudy,AccessionNumber", "--format", "csv"]
    assert said(service, "studies", "StudyInstanceUID=1.2.1", *fields) == 0
    assert list(csv.reader(io.StringIO(capsys.readouterr().out))) == [
        ["PatientName", "ModalitiesInStudy", "AccessionNumber"], ["Doe^1", "CT\\MR", ""],
    ]  # fmt: skip
    assert said(service, "studies", "PatientID=nobody", *fields) == 0
    assert capsys.readouterr().out == "PatientName,ModalitiesInStudy,AccessionNumber\n"


def test_a_table_says_when_nothing_matches(service: Emulator, capsys: pytest.CaptureFixture[str]) -> None:
    assert said(service, "instances", "PatientID=P2", "--fields", "SOPInstanceUID") == 0
    assert capsys.readouterr().out.split() == ["SOPInstanceUID", "─" * 14, "1.2.3.1.1"]
    assert said(service, "instances", "PatientID=nobody") == 0
    assert "Nothing matches." in capsys.readouterr().err


def test_no_value_of_a_patient_is_logged(
    service: Emulator, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the level of whoever listens; our own lines and those of the HTTP library."""
    monkeypatch.setattr(logging.getLogger("dicom_etl"), "propagate", True)
    with caplog.at_level(logging.DEBUG, "dicom_etl"):
        assert len(rows_of(service, "studies", ["PatientID=P77", "PatientName=Doe^77"])) == 1
    texts = [
        record.getMessage() + str(vars(record)) for record in caplog.records if record.name.startswith("dicom_etl")
    ]
    assert not [text for text in texts if "P77" in text or "Doe" in text]
