"""Tags by the dozen: what the headers have, and what the service searches."""

from __future__ import annotations

import json

import httpx
import pyarrow as pa
import pytest

from dicom_etl.commands.columns.mirrored import mirrored_text
from dicom_etl.core.errors import ConfigurationError, ProtocolError, UsageError
from dicom_etl.core.settings.model import Dicom
from dicom_etl.dicomweb.connect import connect
from dicom_etl.dicomweb.query_tags import QueryTag, extended_query_tags
from dicom_etl.outputs.columns.design import column_of
from dicom_etl.outputs.columns.seen import tags_of_headers


def tags_served(*pages: object, status: int = 200) -> tuple[list[QueryTag], list[str]]:
    """What becomes of these answers, one a page, and which pages were asked for."""
    asked: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(f"{request.url.path}?{request.url.query.decode()}")
        page = pages[min(len(asked), len(pages)) - 1]
        return httpx.Response(status, headers={"content-type": "application/json"}, content=json.dumps(page).encode())

    dicom = Dicom("http://svc.example", 2, "none", "T", 4, 100.0, 300.0)
    with connect(dicom, sleep=lambda _: None, transport=httpx.MockTransport(answer)) as client:
        return extended_query_tags(client), asked


SERVED = {"path": "00180050", "vr": "DS", "level": "Instance", "status": "Ready", "queryStatus": "Enabled"}


def test_the_tags_are_listed_page_by_page_at_the_root_of_the_service() -> None:
    full = [SERVED] * 100
    tags, asked = tags_served(full, [{**SERVED, "path": "00191001", "privateCreator": "ACME", "level": "Study"}])
    assert (len(tags), tags[0]) == (101, QueryTag("00180050", "DS", "Instance"))
    assert tags[-1] == QueryTag("00191001", "DS", "Study", "ACME")
    assert asked == [
        "/v2/extendedquerytags?limit=100&offset=0",
        "/v2/extendedquerytags?limit=100&offset=100",
    ]


def test_a_service_without_the_list_or_with_another_is_named() -> None:
    assert tags_served([])[0] == []
    with pytest.raises(ConfigurationError, match="no extended query tags"):
        tags_served([], status=404)
    with pytest.raises(ProtocolError, match="without its path, VR or level"):
        tags_served([{"path": "00180050"}])
    with pytest.raises(ProtocolError, match="more extended query tags"):
        tags_served([SERVED] * 100)


@pytest.mark.parametrize(
    ("tag", "name", "kind", "level"),
    [
        (QueryTag("00180050", "DS", "Instance"), "sliceThickness", "double", "instance"),
        (QueryTag("SliceThickness", "DS", "Series"), "sliceThickness", "double", "series"),
        (QueryTag("00080021", "DA", "Study"), "seriesDate", "date", "study"),
        (QueryTag("12051003", "IS", "Series", "ACME 1.0"), "acme10_1205_03", "long", "series"),
        (QueryTag("12051004", "FD", "Study", "ACME 1.0"), "acme10_1205_04", "double", "study"),
        (QueryTag("12051005", "LO", "Study", "ACME 1.0"), "acme10_1205_05", "string", "study"),
        (QueryTag("0018FFF0", "UL", "Instance"), "tag_0018fff0", "long", "instance"),
    ],
)
def test_a_tag_of_the_service_is_a_column_of_its_type_at_its_level(
    tag: QueryTag, name: str, kind: str, level: str
) -> None:
    """By the dictionary where it has the tag, else by the service's VR."""
    column = column_of(mirrored_text(tag))
    assert (column.name, column.type, column.level) == (name, kind, level)


def test_a_vr_without_values_is_no_column() -> None:
    with pytest.raises(UsageError, match="VR OB"):
        mirrored_text(QueryTag("12051003", "OB", "Series", "ACME"))


def test_the_tags_of_a_header_are_its_standard_ones_outside_sequences() -> None:
    """A header that cannot be read has none; private tags are not counted."""
    headers = [
        '{"00180050":{"vr":"DS"},"00080060":{"vr":"CS"},"00191001":{"vr":"LO"},"0008":{},"00400275":{"vr":"SQ","Value":[{"00401001":{}}]}}',
        "{",
        None,
    ]
    columns = {"runId": [3, 3, 4], "sequence": [7, 8, 9], "metadata": headers}
    batches = list(tags_of_headers(iter([pa.RecordBatch.from_pydict(columns)])))
    assert [batch.to_pylist() for batch in batches] == [
        [
            {"runId": 3, "sequence": 7, "tags": "00080060 00180050 00400275"},
            {"runId": 3, "sequence": 8, "tags": ""},
            {"runId": 4, "sequence": 9, "tags": ""},
        ]
    ]
