"""The change feed over HTTP: parameters, windows, order, paging and the shape of a row.

design/service-protocol.md: Feed parameters, Feed entries.
"""

from __future__ import annotations

import re

import pytest

ISO = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{0,6}[1-9])?\+00:00")


@pytest.fixture
def three(api, dicom, uid):
    """Three instances of one study, stored one after the other, and their rows."""
    study = uid()
    files = [dicom(study=study) for _ in range(3)]
    for file in files:
        assert api.store(file).status_code == 200
    rows = api.rows(study)
    assert [row["sopInstanceUid"] for row in rows] == [file.sop for file in files]
    return rows


def z(timestamp):
    """The timestamp in a form whose `+` cannot be lost in a query."""
    return timestamp.replace("+00:00", "Z")


def test_a_row_has_its_members_in_the_services_order(three):
    """A Create row lists sequence to metadata in the documented order, with a trimmed +00:00 timestamp."""
    row = three[0]
    names = [name for name in row if name != "filePath"]
    assert names == [
        "sequence", "partitionName", "studyInstanceUid", "seriesInstanceUid", "sopInstanceUid", "action",
        "timestamp", "state", "metadata",
    ]  # fmt: skip
    assert (row["partitionName"], row["action"], row["state"]) == ("Microsoft.Default", "Create", "Current")
    assert ISO.fullmatch(row["timestamp"])
    assert row["metadata"]["00100010"] == {"vr": "PN", "Value": [{"Alphabetic": "Doe^Jane"}]}


def test_the_feed_is_json_and_carries_the_supported_versions(api):
    """A page is application/json in UTF-8 and names the API versions."""
    answer = api.feed(limit=1)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json; charset=utf-8"
    assert "2" in answer.headers["api-supported-versions"]
    assert answer.headers["date"].endswith(" GMT")


def test_v1_reads_a_range_of_sequences(api, three):
    """v1 returns the rows of [offset+1, offset+limit], with metadata."""
    first, last = three[0]["sequence"], three[2]["sequence"]
    page = api.feed(version=1, offset=first - 1, limit=last - first + 1).json()
    wanted = [row for row in page if row["studyInstanceUid"] == three[0]["studyInstanceUid"]]
    assert [row["sequence"] for row in wanted] == [row["sequence"] for row in three]
    assert all("metadata" in row for row in wanted)


def test_v1_ignores_the_window(api, three):
    """v1 does not bind startTime and endTime, not even bad ones."""
    page = api.feed(version=1, offset=three[0]["sequence"] - 1, limit=1, startTime="foo", endTime="bar")
    assert page.status_code == 200
    assert [row["sequence"] for row in page.json()] == [three[0]["sequence"]]


@pytest.mark.parametrize(("version", "limit"), [(1, 101), (2, 201)])
def test_a_limit_above_the_versions_maximum_is_refused(api, version, limit):
    """v1 takes up to 100 rows, v2 up to 200; there is no clamping."""
    answer = api.feed(version=version, limit=limit)
    assert answer.status_code == 400
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"


@pytest.mark.parametrize(("version", "limit"), [(1, 100), (2, 200)])
def test_the_maximum_limit_is_taken(api, version, limit):
    """The largest limit of each version is valid."""
    assert api.feed(version=version, limit=limit).status_code == 200


def test_a_window_includes_its_start_and_excludes_its_end(api, three):
    """[first, ...) has all three rows, [..., first) none of them, [first, third) the first two."""
    study = three[0]["studyInstanceUid"]
    first, third = z(three[0]["timestamp"]), z(three[2]["timestamp"])
    assert [row["sequence"] for row in api.rows(study, startTime=first)] == [r["sequence"] for r in three]
    assert api.rows(study, endTime=first) == []
    between = api.rows(study, startTime=first, endTime=third)
    assert [row["sequence"] for row in between] == [row["sequence"] for row in three[:2]]


def test_offset_and_limit_page_through_a_window(api, three):
    """Limit 1 with offset i returns row i of the window; an offset at its size returns an empty page."""
    first = z(three[0]["timestamp"])
    whole = api.feed(startTime=first, limit=200).json()
    assert len(whole) >= 3
    paged = [api.feed(startTime=first, limit=1, offset=place).json() for place in range(3)]
    assert [page[0]["sequence"] for page in paged] == [row["sequence"] for row in whole[:3]]
    empty = api.feed(startTime=first, offset=10_000_000)
    assert (empty.status_code, empty.text) == (200, "[]")


def test_includemetadata_false_leaves_metadata_out(api, three):
    """Without metadata the rows and their states stay; the parameter's name has no case."""
    first = z(three[0]["timestamp"])
    rows = api.rows(three[0]["studyInstanceUid"], startTime=first, INCLUDEMETADATA="False")
    assert [row["state"] for row in rows] == ["Current"] * 3
    assert all("metadata" not in row for row in rows)


def test_latest_without_metadata(api, three):
    """latest has the shape of a row, with metadata unless told otherwise."""
    latest = api.latest()
    assert latest.status_code == 200
    assert latest.json()["sequence"] >= three[2]["sequence"]
    assert "metadata" not in api.latest(includeMetadata="false").json()


@pytest.mark.parametrize(
    ("parameter", "value", "bound"),
    [
        ("limit", "0", "Limit"), ("limit", "-1", "Limit"), ("limit", "blah", "Limit"), ("limit", "1.5", "Limit"),
        ("limit", "99999999999", "Limit"), ("limit", "", "Limit"), ("offset", "-1", "Offset"),
        ("offset", "blah", "Offset"), ("offset", "9223372036854775808", "Offset"), ("startTime", "foo", "StartTime"),
        ("endTime", "2024-01-01T00:00:00", "EndTime"), ("includeMetadata", "0", "includeMetadata"),
        ("includeMetadata", "1", "includeMetadata"), ("includeMetadata", "yes", "includeMetadata"),
    ],
)  # fmt: skip
def test_a_bad_value_is_refused_and_named(api, parameter, value, bound):
    """v2 answers 400 with the bound property's name in plain text."""
    answer = api.feed(**{parameter: value})
    assert answer.status_code == 400
    assert answer.text.startswith(f"The query parameter '{bound}' is invalid. ")


@pytest.mark.parametrize(("parameter", "value"), [("limit", "0"), ("offset", "-1"), ("includeMetadata", "1")])
def test_v1_names_its_action_parameters(api, parameter, value):
    """v1 spells the parameter as it was declared: lower camel case."""
    answer = api.feed(version=1, **{parameter: value})
    assert answer.status_code == 400
    assert answer.text.startswith(f"The query parameter '{parameter}' is invalid. ")


@pytest.mark.parametrize("version", [1, 2])
def test_latest_refuses_a_bad_flag(api, version):
    """latest takes true or false only."""
    assert api.latest(version=version, includeMetadata="0").status_code == 400


@pytest.mark.parametrize(
    ("start", "end"),
    [("2024-01-01T00:00:00Z", "2024-01-01T00:00:00Z"), ("2024-01-02T00:00:00Z", "2024-01-01T00:00:00Z")],
)
def test_an_empty_or_reversed_window_is_refused_without_a_name(api, start, end):
    """endTime must be later than startTime; the error names no parameter."""
    answer = api.feed(startTime=start, endTime=end)
    assert answer.status_code == 400
    assert answer.text.startswith("The query parameter '' is invalid. ")


@pytest.mark.parametrize(
    "text",
    [
        "2024-05-01T10:00:00Z", "2024-05-01T10:00:00.1Z", "2024-05-01T10:00:00.1234567Z", "2024-05-01T10:00:00+7",
        "2024-05-01T10:00:00+7:0", "2024-05-01T10:00:00-07", "2024-05-01T10:00:00-07:00",
        "Wed, 01 May 2024 10:00:00 GMT",
    ],
)  # fmt: skip
def test_times_with_a_zone_are_taken(api, text):
    """ISO with any fraction and zone, and RFC 1123, are valid times."""
    assert api.feed(startTime=text).status_code == 200


@pytest.mark.parametrize(
    "text",
    [
        "2024-05-01T10:00:00", "2024-05-01", "2024-05-01T10:00:00+101:00", "2024-05-01T10:00:00X", "10:00:00Z",
        "2024-13-01T10:00:00Z", "2024-05-01T25:00:00Z", "0001-01-01T00:00:00+01:00", "",
    ],
)  # fmt: skip
def test_other_times_are_refused(api, text):
    """No zone, a date alone, an impossible zone, month or hour: 400."""
    assert api.feed(startTime=text).status_code == 400


def test_a_raw_plus_in_a_time_is_a_space_and_refused(api):
    """A feed timestamp echoed without escaping its plus is refused."""
    answer = api.http.get(f"{api.root}/v2/changefeed?startTime=2024-05-01T10:00:00+00:00")
    assert answer.status_code == 400
    escaped = api.http.get(f"{api.root}/v2/changefeed?startTime=2024-05-01T10:00:00%2B00:00")
    assert escaped.status_code == 200


@pytest.mark.parametrize("text", ["<", "%3c", "%3Cscript"])
def test_a_tag_in_the_query_is_refused(api, text):
    """`<` in a query string is 400, escaped too."""
    assert api.http.get(f"{api.root}/v2/changefeed?x={text}").status_code == 400


def test_unknown_parameters_are_ignored(api):
    """A parameter that the feed does not know changes nothing."""
    assert api.feed(limit=1, colour="red").status_code == 200


def test_an_unversioned_path_has_no_route(api):
    """The version segment is mandatory."""
    assert api.http.get(f"{api.root}/changefeed").status_code == 404


def test_an_unknown_version_is_refused(api):
    """An API version that is not served gives 400 or 404."""
    assert api.http.get(f"{api.root}/v3/changefeed").status_code in (400, 404)


def test_an_unknown_route_is_not_found(api):
    """404 for a path that the service does not have, 405 for a method that a path does not have."""
    assert api.http.get(f"{api.root}/v2/nonsense").status_code == 404
    assert api.http.post(f"{api.root}/v2/changefeed").status_code == 405


def test_the_prerelease_version_is_v1(api):
    """`v1.0-prerelease` answers as v1: its limit ends at 100."""
    assert api.http.get(f"{api.root}/v1.0-prerelease/changefeed?limit=100").status_code == 200
    assert api.http.get(f"{api.root}/v1.0-prerelease/changefeed?limit=101").status_code == 400


def test_store_delete_store_rewrites_the_older_rows(api, dicom):
    """After a re-create the first Create and the Delete are Replaced and show the new metadata."""
    old = dicom({"00081030": "first"})
    new = dicom({"00081030": "second"}, study=old.study, series=old.series, sop=old.sop)
    assert api.store(old).status_code == 200
    assert api.rows(old.study)[0]["state"] == "Current"
    assert api.delete(old.path).status_code == 204
    rows = api.rows(old.study)
    assert [(row["action"], row["state"]) for row in rows] == [("Create", "Deleted"), ("Delete", "Deleted")]
    assert all("metadata" not in row for row in rows)
    assert api.store(new).status_code == 200
    rows = api.rows(old.study)
    assert [(row["action"], row["state"]) for row in rows] == [
        ("Create", "Replaced"), ("Delete", "Replaced"), ("Create", "Current"),
    ]  # fmt: skip
    assert [row["metadata"]["00081030"]["Value"] for row in rows] == [["second"]] * 3


def test_padded_uids_are_in_the_row_as_in_the_file(api, dicom, uid):
    """A UID that is padded with a space in the file comes with it in the feed, and is found without."""
    padded = uid() + " "
    file = dicom(study=padded)
    assert api.store(file).status_code in (200, 202)
    rows = api.rows(file.study)
    assert [row["studyInstanceUid"].strip() for row in rows] == [file.study]
    assert api.get(f"/studies/{file.study}/metadata", headers={"accept": "*/*"}).status_code == 200


def test_the_feed_is_read_at_the_root_only(api):
    """There is no feed below a partition."""
    assert api.http.get(f"{api.root}/v2/partitions/x/changefeed").status_code in (400, 404)
