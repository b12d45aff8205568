"""Headers that are asked for at the service: parsed as those of `change` are, gone ones and failing ones told apart."""

from __future__ import annotations

import json
from collections import Counter

import httpx
import pytest

from dicom_etl.commands.columns.served import HeaderService, Key, Served
from dicom_etl.core.errors import AccessDenied, ServiceUnavailable
from dicom_etl.core.settings.model import Dicom
from dicom_etl.dicomweb.connect import connect
from dicom_etl.outputs.columns.design import design_of

DESIGN = design_of(["SliceThickness", "KVP", "StudyDate", "Manufacturer"], imaging=False, identifying=True)
HEADER = {
    "00180050": {"vr": "DS", "Value": [1.5]},
    "00180060": {"vr": "DS"},
    "00080020": {"vr": "DA", "Value": ["20240501"]},
    "00080070": {"vr": "LO", "Value": ["ACME\u00e9"]},
}
DEFAULT = "Microsoft.Default"


def asked(keys: list[Key], *, named: bool = False, denied: bool = False) -> tuple[Served, Counter[str]]:
    """What becomes of the keys, and how often which path was asked for.

    The series says how the service answers: 1 has the header, 2 is gone, 3 fails each time, 4 is no header.
    """
    paths: Counter[str] = Counter()

    def answer(request: httpx.Request) -> httpx.Response:
        path = request.url.path
        paths[path] += 1
        if path == "/v2/partitions":
            return of(200, [{"partitionName": "p"}]) if named else httpx.Response(400)
        if denied:
            return httpx.Response(403)
        series = path.split("/series/")[1].split("/")[0]
        return {"1": of(200, [HEADER]), "2": httpx.Response(404), "3": httpx.Response(500), "4": of(200, [None])}[
            series
        ]

    dicom = Dicom("http://svc.example", 2, "none", "T", 4, 100.0, 300.0)
    with connect(dicom, sleep=lambda _: None, transport=httpx.MockTransport(answer)) as client:
        return HeaderService(client, DESIGN, 4).ask(keys), paths


def of(status: int, body: object) -> httpx.Response:
    headers = {"content-type": "application/dicom+json"}
    return httpx.Response(status, headers=headers, stream=httpx.ByteStream(json.dumps(body).encode()))


def test_a_header_becomes_the_row_that_change_would_have_given() -> None:
    served, paths = asked([(DEFAULT, "9", "1", "7")])
    (row,) = served.rows.to_pylist()
    assert (served.gone, served.failing) == ((), ())
    assert list(row) == [
        "partitionName", "studyInstanceUid", "seriesInstanceUid", "sopInstanceUid", "headerState", "headerQuality",
        *(column.name for column in DESIGN.columns),
    ]  # fmt: skip
    assert (row["partitionName"], row["sopInstanceUid"]) == (DEFAULT, "7")
    assert (row["headerState"], row["headerQuality"]) == ("ok", "1411")
    assert [str(row[name]) for name in ("sliceThickness", "kvp", "studyDate", "manufacturer")] == [
        "1.5", "None", "2024-05-01", "ACME\u00e9",
    ]  # fmt: skip
    assert paths == {"/v2/partitions": 1, "/v2/studies/9/series/1/instances/7/metadata": 1}


def test_every_key_is_a_row_or_gone_or_failing() -> None:
    """A header that fails each time holds up no other; more keys than are parsed at once lose none."""
    keys = [(DEFAULT, "9", series, str(number)) for series in "1234" for number in range(50)]
    served, paths = asked([*keys, (DEFAULT, "9", "no UID", "7"), ("elsewhere", "9", "1", "7")])
    assert served.rows.num_rows == 50
    assert Counter(key[2] for key in served.gone) == {"2": 50, "1": 1}
    assert Counter(key[2] for key in served.failing) == {"3": 50, "4": 50, "no UID": 1}
    assert {paths[path] for path in paths if "/series/3/" in path} == {4}


def test_partitions_are_named_where_the_service_has_them() -> None:
    served, paths = asked([("p", "9", "1", "7"), (DEFAULT, "9", "2", "8")], named=True)
    assert (served.rows.num_rows, served.gone) == (1, ((DEFAULT, "9", "2", "8"),))
    assert set(paths) == {
        "/v2/partitions",
        "/v2/partitions/p/studies/9/series/1/instances/7/metadata",
        "/v2/partitions/Microsoft.Default/studies/9/series/2/instances/8/metadata",
    }


def test_no_keys_give_no_rows_in_the_same_columns() -> None:
    served, _ = asked([])
    assert (served.rows.num_rows, served.rows.column_names[4:6]) == (0, ["headerState", "headerQuality"])


def test_a_service_that_denies_access_ends_it() -> None:
    with pytest.raises(AccessDenied, match="DICOM Data Reader"):
        asked([(DEFAULT, "9", "1", "7")], denied=True)


def test_a_service_that_fails_to_give_any_header_is_not_taken_for_bad_instances() -> None:
    """75, to be tried again; of 19 failures nothing is concluded."""
    keys = [(DEFAULT, "9", "3", str(number)) for number in range(20)]
    with pytest.raises(ServiceUnavailable, match="none of 20 headers"):
        asked(keys)
    assert len(asked(keys[:19])[0].failing) == 19
