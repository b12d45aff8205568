"""Faults, the request log, and histories and the oracle over HTTP."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import pytest

from dicom_emulator.state.uids import instance_key
from dicom_emulator.testing.faults import Fault

FEED = "GET /v2/changefeed"


@pytest.fixture
def ten(make_emulator):
    """A service whose feed has ten entries, sequences 1 to 10."""
    emulator, api = make_emulator()
    for number in range(1, 11):
        emulator.service.create(instance_key("1.2", "1.2.3", f"1.2.3.{number}"), b'{"00080060":{"vr":"CS"}}')
    return emulator.service, api


def test_latest_of_an_empty_feed_has_no_content(make_emulator):
    """204 without a body in both versions; the feed itself is an empty array."""
    _, api = make_emulator()
    for version in (1, 2):
        answer = api.latest(version=version)
        assert (answer.status_code, answer.content) == (204, b"")
        assert api.feed(version=version).text == "[]"


def test_v1_pages_are_ranges_of_sequences_with_gaps(make_emulator):
    """The default page is ten numbers; gaps make pages short or empty though there are later rows."""
    emulator, api = make_emulator()
    service = emulator.service
    for number in range(12):
        service.create(instance_key("1.2", "1.2.3", f"1.2.3.{number}"), b"{}")
    service.skip_sequences(30)
    service.create(instance_key("1.2", "1.2.3", "1.2.3.99"), b"{}")
    pages = [[row["sequence"] for row in api.feed(version=1, offset=offset).json()] for offset in (0, 10, 20, 35)]
    assert pages == [list(range(1, 11)), [11, 12], [], [43]]


def test_latest_of_v1_is_by_sequence_and_of_v2_in_time(make_emulator):
    """With crossed orders the two versions name different rows."""
    emulator, api = make_emulator()
    emulator.service.create(instance_key("1.2", "1.2.3", "1"), b"{}", at_ticks=200, sequence=1)
    emulator.service.create(instance_key("1.2", "1.2.3", "2"), b"{}", at_ticks=100, sequence=2)
    assert [api.latest(version=version).json()["sequence"] for version in (1, 2)] == [2, 1]


def test_windows_meet_at_the_seventh_digit(make_emulator):
    """Adjacent windows cut at a 100 ns boundary share no row and lose none."""
    emulator, api = make_emulator()
    for number, text in enumerate(("10:00:00.3524895", "10:00:00.3524896", "10:00:00.3524897")):
        at = f"2024-05-01T{text}Z"
        emulator.service.clock.freeze(at)
        emulator.service.create(instance_key("1.2", "1.2.3", str(number)), b"{}")
    cut = "2024-05-01T10:00:00.3524896Z"
    before, after = api.feed(endTime=cut).json(), api.feed(startTime=cut).json()
    assert [row["sequence"] for row in before] == [1]
    assert [row["sequence"] for row in after] == [2, 3]
    assert after[0]["timestamp"] == "2024-05-01T10:00:00.3524896+00:00"


def test_a_poison_entry_fails_every_page_that_carries_its_metadata(ten):
    """503 for pages with the entry and metadata, for good; other pages and no metadata pass; hits are counted."""
    service, api = ten
    poison = service.faults.add(Fault(sequences=(4,)))
    statuses = [
        api.feed().status_code,
        api.feed(limit=3).status_code,
        api.feed(offset=3, limit=1).status_code,
        api.feed(offset=4).status_code,
        api.feed(includeMetadata="false").status_code,
        api.feed(version=1).status_code,
    ]
    assert statuses == [503, 200, 503, 200, 200, 503]
    assert (poison.met, poison.hits) == (3, 3)


def test_a_poison_entry_may_heal(ten):
    """With `times` it fails so often and then never again."""
    service, api = ten
    poison = service.faults.add(Fault(sequences=(10,), status=500, times=2))
    assert [api.latest().status_code for _ in range(4)] == [500, 500, 200, 200]
    assert poison.hits == 2


def test_an_entry_may_fail_without_metadata_too(ten):
    """`without_metadata` makes the slim page fail as well."""
    service, api = ten
    service.faults.add(Fault(sequences=(4,), without_metadata=True))
    assert api.feed(includeMetadata="false").status_code == 503


def test_a_route_fails_as_it_is_told(ten):
    """Status, body, headers and Retry-After as switched on, after those that pass first, so often."""
    service, api = ten
    fault = Fault(
        status=429, path="/v2/changefeed", skip=1, times=2, retry_after=7, body="slow down", headers={"x-a": "b"}
    )
    busy = service.faults.add(fault)
    answers = [api.feed() for _ in range(5)]
    assert [answer.status_code for answer in answers] == [200, 429, 429, 200, 200]
    assert (answers[1].text, answers[1].headers["retry-after"], answers[1].headers["x-a"]) == ("slow down", "7", "b")
    assert (busy.met, busy.hits) == (5, 2)
    assert api.latest().status_code == 200


def test_retry_after_may_be_a_date_by_the_services_clock(ten):
    """An HTTP date so many seconds ahead of the emulator's own time."""
    service, api = ten
    service.clock.freeze("2024-05-01T10:00:00Z")
    service.faults.add(Fault(path="/v2/changefeed", retry_after=90, retry_after_as_date=True))
    retry_after = parsedate_to_datetime(api.feed().headers["retry-after"])
    assert retry_after == datetime(2024, 5, 1, 10, 1, 30, tzinfo=UTC)


def test_a_page_fails_by_its_query(ten):
    """Only the request with that offset fails, whatever the case of the name."""
    service, api = ten
    service.faults.add(Fault(status=504, path="/v2/changefeed", query={"Offset": "5"}))
    assert [api.feed(offset=offset).status_code for offset in (0, 5, 6)] == [200, 504, 200]


def test_a_method_fails_alone(ten, dicom):
    """A fault of POST lets GET pass."""
    service, api = ten
    service.faults.add(Fault(status=502, method="POST"))
    assert api.store(dicom()).status_code == 502
    assert api.feed().status_code == 200


def test_faults_are_switched_over_http(ten):
    """POST a fault, read its hits, switch it off."""
    _, api = ten
    faults = f"{api.root}/_emulator/faults"
    made = api.http.post(faults, json={"status": 500, "path": "/v2/changefeed.*", "times": 1})
    assert made.status_code == 201
    number = made.json()["id"]
    assert [api.feed().status_code for _ in range(2)] == [500, 200]
    assert api.http.get(f"{faults}/{number}").json()["hits"] == 1
    assert len(api.http.get(faults).json()) == 1
    assert api.http.delete(f"{faults}/{number}").status_code == 204
    assert api.http.delete(f"{faults}/{number}").status_code == 404
    assert api.http.post(faults, json={"staus": 500}).status_code == 400
    assert api.http.post(faults, json={"sequences": [1]}).status_code == 201
    assert api.feed().status_code == 503
    assert api.http.delete(faults).status_code == 204
    assert api.feed().status_code == 200


def test_a_fault_of_everything_spares_the_control_routes(ten):
    """Control routes answer while all else fails, and do not count."""
    service, api = ten
    service.faults.add(Fault(status=503))
    assert api.feed().status_code == 503
    assert api.http.get(f"{api.root}/_emulator/requests").json()["total"] == 1


def test_requests_are_counted_by_route_and_status(ten, uid):
    """Counts by route, UIDs as `*`; failures of faults count; values of searches are not kept."""
    service, api = ten
    service.faults.add(Fault(path="/v2/changefeed", times=1))
    for _ in range(3):
        api.feed(limit=5, includeMetadata="false")
    api.get("/studies", params={"PatientName": "Secret"}, headers={"accept": "*/*"})
    api.get(f"/studies/{uid()}/metadata", headers={"accept": "*/*"})
    assert (service.requests.count(FEED), service.requests.count(FEED, 503)) == (3, 1)
    log = api.http.get(f"{api.root}/_emulator/requests").json()
    assert log["counts"] == {
        FEED: {"503": 1, "200": 2},
        "GET /v2/studies": {"204": 1},
        "GET /v2/studies/*/metadata": {"404": 1},
    }
    assert log["requests"][0]["query"] == {"limit": "5", "includeMetadata": "false"}
    assert log["requests"][3]["query"] == {"PatientName": None}
    assert api.http.delete(f"{api.root}/_emulator/requests").status_code == 204
    assert service.requests.count() == 0


def test_a_history_is_made_over_http(make_emulator):
    """Events with their own times and sequences make rows; the oracle tells what is live."""
    _, api = make_emulator(file_paths=True)
    uids = {"studyInstanceUid": "1.2", "seriesInstanceUid": "1.2.3"}
    metadata = {"00080060": {"vr": "CS", "Value": ["CT"]}}
    history = [
        {"action": "Create", **uids, "sopInstanceUid": "1", "timestamp": "2024-05-01T10:00:02Z", "sequence": 1},
        {"action": "Create", **uids, "sopInstanceUid": "2", "timestamp": "2024-05-01T10:00:01Z", "sequence": 5},
        {
            "action": "Update",
            **uids,
            "sopInstanceUid": "2",
            "metadata": metadata,
            "timestamp": "2024-05-01T10:00:03.5Z",
        },
        {"action": "Delete", **uids, "sopInstanceUid": "1", "timestamp": "2024-05-01T10:00:04Z"},
        {"action": "Reserve", **uids, "sopInstanceUid": "3"},
        {"action": "Commit", **uids, "sopInstanceUid": "3", "timestamp": "2024-05-01T10:00:00Z"},
    ]
    made = api.http.post(f"{api.root}/_emulator/events", json=history)
    assert made.status_code == 201
    assert [row["sequence"] for row in made.json()] == [1, 5, 6, 7, 8]
    assert [(row["sequence"], row["state"]) for row in api.feed().json()] == [
        (8, "Current"), (5, "Replaced"), (1, "Deleted"), (6, "Current"), (7, "Deleted"),
    ]  # fmt: skip
    live = api.http.get(f"{api.root}/_emulator/instances", params={"metadata": "true"}).json()
    assert [(one["sopInstanceUid"], one["sequence"], one["timestamp"]) for one in live] == [
        ("2", 6, "2024-05-01T10:00:03.5+00:00"), ("3", 8, "2024-05-01T10:00:00+00:00"),
    ]  # fmt: skip
    assert live[0]["metadata"] == metadata
    assert live[0]["filePath"] == "AHDS/emulator/dicom/dicom/Microsoft.Default/274_3.dcm"
    assert "metadata" not in api.http.get(f"{api.root}/_emulator/instances").json()[0]


def test_a_made_up_history_can_be_searched(ten):
    """Instances without UIDs in their metadata are found by their keys, newest first."""
    _, api = ten
    found = api.get("/instances", params={"StudyInstanceUID": "1.2", "limit": 3}, headers={"accept": "*/*"}).json()
    assert [one["00080018"]["Value"][0] for one in found] == ["1.2.3.10", "1.2.3.9", "1.2.3.8"]
    assert {(one["0020000D"]["Value"][0], one["0020000E"]["Value"][0]) for one in found} == {("1.2", "1.2.3")}


@pytest.mark.parametrize(
    "event",
    [
        {"action": "Vanish", "studyInstanceUid": "1"}, {"studyInstanceUid": "1"},
        {"action": "Delete", "studyInstanceUid": "9"}, {"action": "Update", "studyInstanceUid": "9"},
        {"action": "Create", "studyInstanceUid": "1", "timestamp": "noon"},
    ],
)  # fmt: skip
def test_an_event_that_cannot_happen_is_refused(make_emulator, event):
    """400, and no row."""
    emulator, api = make_emulator()
    assert api.http.post(f"{api.root}/_emulator/events", json=event).status_code == 400
    assert len(emulator.service.history) == 0


def test_gaps_are_left_over_http(make_emulator):
    """The next event's sequence follows the gap."""
    emulator, api = make_emulator()
    assert api.http.post(f"{api.root}/_emulator/sequence", json={"skip": 5}).status_code == 204
    assert emulator.service.create(instance_key("1", "2", "3"), b"{}").sequence == 6
