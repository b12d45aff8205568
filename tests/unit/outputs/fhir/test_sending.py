"""Sending to a FHIR server: nothing lost or blocked, bounds kept, and failures told from refusals."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from threading import Barrier
from types import SimpleNamespace
from typing import Any, cast

import httpx
import pytest

from dicom_emulator.fhir.faults import EntryFault
from dicom_emulator.fhir.serve import FhirEmulator
from dicom_emulator.testing.faults import Fault
from dicom_etl.core.errors import AccessDenied, DataError, DicomEtlError, ServiceUnavailable
from dicom_etl.outputs.fhir import sending
from dicom_etl.outputs.fhir.bundle import Entry, Outcome
from dicom_etl.outputs.fhir.sending import sent
from dicom_etl.outputs.fhir.server import FhirServer
from dicom_etl.remote.http.retry import RetryPolicy
from support.broken import Mutant, assert_caught
from support.fhir_double import CANARY, TOKEN, Clock, deletion, fhir_double, fhir_settings, put, put_all, study


@pytest.fixture(autouse=True)
def _nothing_is_quoted(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """No log has the name that the server quotes."""
    caplog.set_level(logging.DEBUG)
    yield
    assert CANARY not in caplog.text


@pytest.fixture
def double() -> Iterator[FhirEmulator]:
    with fhir_double() as running:
        yield running


def send(
    double: FhirEmulator,
    entries: Iterable[Entry],
    *more: str,
    results: list[tuple[Entry, Outcome]] | None = None,
    **options: Any,
) -> dict[str, tuple[int, str | None]]:
    """Status and issue by id, of bundles of ten over two connections; ``results`` gets them as they come."""
    clock = Clock()
    fhir = fhir_settings(double.base_url, "fhir.bundle_entries=10", *more)
    given = {"sleep": clock.sleep, "monotonic": clock.monotonic} | options
    results = [] if results is None else results
    with FhirServer(fhir, given.pop("token", None), **given) as server:
        results.extend(sent(server, entries, fhir))
    ids = [entry.id for entry, _ in results]
    assert len(ids) == len(set(ids))
    return {entry.id: (outcome.status, outcome.issue) for entry, outcome in results}


def studies(count: int, **more: Any) -> list[Entry]:
    return [put(study(f"s{number:03}", **more)) for number in range(count)]


def names(count: int) -> list[str]:
    return [f"s{number:03}" for number in range(count)]


def sizes(double: FhirEmulator) -> list[int | None]:
    """How many entries each request had."""
    return [one.entries for one in double.service.requests if one.method == "POST"]


# --- all entries, once


def test_every_entry_has_one_outcome(double: FhirEmulator) -> None:
    """123 studies in 13 requests, over several connections; sent again, none of them gets a new version."""
    first = send(double, studies(123))
    assert first == dict.fromkeys(names(123), (201, None))
    assert sorted(double.service.resources("ImagingStudy")) == names(123)
    assert sorted(map(int, map(str, sizes(double)))) == [3] + [10] * 12
    assert send(double, studies(123)) == dict.fromkeys(names(123), (200, None))
    assert {double.service.store.version("ImagingStudy", name) for name in names(123)} == {1}


def test_nothing_to_send_is_no_request(double: FhirEmulator) -> None:
    """No entries: no result, and the server hears nothing."""
    assert send(double, []) == {}
    assert double.service.requests == []


def test_a_deletion_of_what_is_gone_is_done(double: FhirEmulator) -> None:
    """Whatever a server says of it: 204, 404 or 410."""
    put_all(double, study("a"))
    double.service.entry_faults += [EntryFault(404, path="ImagingStudy/b"), EntryFault(410, path="ImagingStudy/c")]
    results: list[tuple[Entry, Outcome]] = []
    assert send(double, [deletion("ImagingStudy", one) for one in "abc"], results=results) == {
        "a": (204, None), "b": (404, "exception"), "c": (410, "exception"),
    }  # fmt: skip
    assert all(outcome.accepted(entry) for entry, outcome in results)


# --- refusals


def test_a_refused_entry_blocks_no_other(double: FhirEmulator) -> None:
    """Modality system DCM (422), a Patient that is not there (400), another version (412): each alone."""
    bad = [
        put(study("a", modality=[{"system": "DCM", "code": "CT"}])),
        put(study("b", subject={"reference": "Patient/unknown"})),
        put(study("c"), 'W/"7"'),
    ]
    assert send(double, [*bad, *studies(20)]) == dict.fromkeys(names(20), (201, None)) | {
        "a": (422, "value"), "b": (400, "not-found"), "c": (412, "conflict"),
    }  # fmt: skip
    assert len(sizes(double)) == 3


@pytest.mark.parametrize("status", [400, 404, 409, 412, 413, 422, 403, 401])
def test_refusals_are_outcomes(double: FhirEmulator, status: int) -> None:
    """Of a server that takes the others, also a denied one: a policy about this resource. None is sent again."""
    double.service.entry_faults.append(EntryFault(status, "processing", path="ImagingStudy/s003"))
    assert send(double, studies(20)) == dict.fromkeys(names(20), (201, None)) | {"s003": (status, "processing")}
    assert sizes(double) == [10, 10]


def test_a_server_that_refuses_all_for_one_is_asked_in_halves() -> None:
    """422 for a whole bundle: the bad entry ends alone, the 39 others are taken, the requests stay few."""
    with fhir_double(refuse_whole=True) as double:
        bad = put(study("s017", status="fine"))
        entries = [bad if entry.id == bad.id else entry for entry in studies(40)]
        expected = dict.fromkeys(names(40), (201, None)) | {"s017": (422, "code-invalid")}
        assert send(double, entries, "fhir.bundle_entries=40") == expected
        assert sorted(double.service.resources("ImagingStudy")) == sorted(set(names(40)) - {"s017"})
        assert len(sizes(double)) <= 2 * 6 + 1


def test_a_bundle_that_is_too_large_is_sent_in_halves() -> None:
    """413 until the parts fit; what is too large by itself is an outcome."""
    with fhir_double(max_body_bytes=2500) as double:
        large = put(study("large", description="x" * 3000))
        assert send(double, [*studies(20), large]) == dict.fromkeys(names(20), (201, None)) | {
            "large": (413, "too-long"),
        }  # fmt: skip
        assert {one.status for one in double.service.requests} == {200, 413}
        assert max(one.bytes for one in double.service.requests if one.status == 200) <= 2500


# --- what passes


def test_only_entries_that_failed_are_sent_again(double: FhirEmulator) -> None:
    """429 of one (with Retry-After) and 503 of another: ten entries, then these two."""
    double.service.entry_faults += [
        EntryFault(429, "throttled", path="ImagingStudy/s002", times=1, retry_after=17),
        EntryFault(503, "transient", path="ImagingStudy/s005", times=1),
    ]
    clock = Clock()
    answered = send(double, studies(10), sleep=clock.sleep, monotonic=clock.monotonic)
    assert answered == dict.fromkeys(names(10), (201, None))
    assert sizes(double) == [10, 2]
    assert 17 <= sum(clock.sleeps) < 20


def test_an_answer_that_was_lost_is_asked_for_again(double: FhirEmulator) -> None:
    """The server had done it: the same bundle changes nothing, and every entry is accepted."""
    double.service.faults.add(Fault(cut_body=50, times=1))
    assert send(double, studies(10)) == dict.fromkeys(names(10), (200, None))
    assert {double.service.store.version("ImagingStudy", name) for name in names(10)} == {1}


def test_an_entry_that_keeps_failing_is_an_outcome(double: FhirEmulator) -> None:
    """500 each time, of one that the server stumbles over: five tries, and the others are not held up."""
    fault = EntryFault(500, path="ImagingStudy/s004")
    double.service.entry_faults.append(fault)
    assert send(double, studies(20)) == dict.fromkeys(names(20), (201, None)) | {"s004": (500, "exception")}
    assert fault.hits == 5


class Poisoned(httpx.BaseTransport):
    """Answers 500 for every bundle that has a certain resource in it."""

    def __init__(self, resource_id: str) -> None:
        self.poison = f'"url":"ImagingStudy/{resource_id}"'.encode()
        self.real = httpx.HTTPTransport()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        if self.poison in request.read():
            return httpx.Response(500, text=CANARY)
        return self.real.handle_request(request)

    def close(self) -> None:
        self.real.close()


def test_an_entry_that_breaks_its_bundle_is_found(double: FhirEmulator) -> None:
    """500 for the whole bundle each time, while the server is well: the entry is named, the others are taken."""
    answered = send(double, studies(30), transport=Poisoned("s013"))
    assert answered == dict.fromkeys(names(30), (201, None)) | {"s013": (0, None)}


# --- a server that stops


def failing(
    double: FhirEmulator, kind: type[DicomEtlError], entries: Iterable[Entry], *more: str, **options: Any
) -> tuple[str, dict[str, int]]:
    """The message of the error with which sending ends, and the statuses that came before it, by id."""
    results: list[tuple[Entry, Outcome]] = []
    with pytest.raises(kind) as caught:
        send(double, entries, *more, results=results, **options)
    assert type(caught.value) is kind
    assert CANARY not in str(caught.value)
    return str(caught.value), {entry.id: outcome.status for entry, outcome in results}


def test_what_was_taken_before_a_server_stops_is_known(double: FhirEmulator) -> None:
    """After three good bundles the server is down: nothing that it has is without a result, then 75."""
    double.service.faults.add(Fault(503, method="POST", skip=3, body=CANARY))
    message, results = failing(double, ServiceUnavailable, studies(200), "fhir.retry_seconds=30")
    taken = double.service.resources("ImagingStudy")
    assert len(taken) == 30
    assert results == dict.fromkeys(taken, 201)
    assert "status 503; run again later" in message
    assert len(sizes(double)) < 100


class Overtaken:
    """A server whose first bundle is denied at once, and whose second is answered after the sending has heard of it."""

    client = SimpleNamespace(host="the host", monotonic=lambda: 0.0)

    def __init__(self) -> None:
        self.both = Barrier(2, timeout=20)

    def batch(self, entries: Sequence[Entry], retry_policy: RetryPolicy) -> list[Outcome]:
        self.both.wait()
        if entries[0].id == "s000":
            raise AccessDenied("no")
        while not retry_policy.cancelled():
            time.sleep(0.001)
        return [Outcome(201, None)] * len(entries)


def check_results_before_errors() -> None:
    """One bundle ends with an error while another is on its way: that one's results come before the error."""
    results: list[tuple[Entry, Outcome]] = []
    with pytest.raises(AccessDenied):
        results.extend(sent(cast(FhirServer, Overtaken()), studies(20), fhir_settings("", "fhir.bundle_entries=10")))
    assert [entry.id for entry, _ in results] == names(20)[10:], "results of taken entries are lost"


def test_results_under_way_come_before_an_error() -> None:
    """So that the caller can record them."""
    check_results_before_errors()


def test_results_that_an_error_overtakes_are_noticed() -> None:
    """The broken twin: the first error is raised as soon as it is seen."""
    original = sending._Ahead.finished

    def hasty(self: Any) -> Iterator[Any]:
        for done in original(self):
            if done.errors:
                raise done.errors[0]
            yield done

    mutant = Mutant("results before errors", check_results_before_errors, sending._Ahead, "finished", hasty,
                    "results of taken entries are lost")  # fmt: skip
    assert_caught(mutant)


def test_a_server_that_is_gone_is_75(double: FhirEmulator) -> None:
    """Refused connections: no results, one line about the address."""
    with double.refusing():
        message, results = failing(double, ServiceUnavailable, studies(30))
    assert results == {}
    assert "check fhir.base_url and the network" in message


def test_a_server_that_comes_back_is_waited_for(double: FhirEmulator) -> None:
    """503 for a while, within its bounds: all entries are accepted, be it in smaller bundles."""
    fault = double.service.faults.add(Fault(503, times=12))
    assert send(double, studies(40), "fhir.connections=1") == dict.fromkeys(names(40), (201, None))
    assert fault.hits == 12


def test_throttling_without_end_is_75_after_the_other_results(double: FhirEmulator) -> None:
    """429 of one entry for ever: the nine others are told first; the line names the setting."""
    double.service.entry_faults.append(EntryFault(429, "throttled", path="ImagingStudy/s004", retry_after=20))
    message, results = failing(double, ServiceUnavailable, studies(10))
    assert set(results) == set(names(10)) - {"s004"}
    assert message.endswith("run again later or raise fhir.retry_seconds")


def test_a_role_that_does_not_write_is_77_and_soon() -> None:
    """Azure answers 403 to each entry then: no result, and not all 500 entries are tried."""
    with fhir_double(tokens={TOKEN: "reader"}) as double:
        message, results = failing(double, AccessDenied, studies(500), token=lambda _renew: TOKEN)
        assert results == {}
        assert "assign the role FHIR Data Contributor on the FHIR service" in message
        assert 2 <= len(sizes(double)) <= 6


def test_a_token_that_is_refused_is_77() -> None:
    """401 for the whole request, after it was renewed once."""
    with fhir_double(tokens={"another": "owner"}) as double:
        message, results = failing(double, AccessDenied, studies(5), token=lambda _renew: TOKEN)
        assert (results, TOKEN in message) == ({}, False)
        assert [one.status for one in double.service.requests] == [401, 401]


def test_a_server_that_fails_with_all_is_75(double: FhirEmulator) -> None:
    """500 for every entry is no refusal of resources: nothing is recorded as refused."""
    double.service.entry_faults.append(EntryFault(500))
    message, results = failing(double, ServiceUnavailable, studies(200))
    assert results == {}
    assert "keeps failing" in message
    assert len(sizes(double)) <= 6 * 5


def test_one_entry_alone_that_fails_is_75(double: FhirEmulator) -> None:
    """With nothing beside it, it cannot be told from a server that is ill."""
    double.service.entry_faults.append(EntryFault(500))
    assert failing(double, ServiceUnavailable, studies(1))[1] == {}


@pytest.mark.parametrize("status", [403, 500])
def test_a_bundle_of_one_that_is_answered_so_at_the_end_is_an_outcome(double: FhirEmulator, status: int) -> None:
    """The server took all others before: it is about this resource, denied by a policy or stumbled over."""
    double.service.entry_faults.append(EntryFault(status, "processing", path="ImagingStudy/s020"))
    results: list[tuple[Entry, Outcome]] = []
    answered = send(double, studies(21), "fhir.connections=1", results=results)
    assert answered == dict.fromkeys(names(21), (201, None)) | {"s020": (status, "processing")}
    assert [outcome.may_pass for entry, outcome in results if entry.id == "s020"] == [status == 500]


def test_a_role_that_is_lost_on_the_way_is_77(double: FhirEmulator) -> None:
    """Bundles are taken, then all are denied: no resource is recorded as refused."""
    double.service.entry_faults += [EntryFault(403, path=f"ImagingStudy/{name}") for name in names(200)[50:]]
    message, results = failing(double, AccessDenied, studies(200))
    assert results == dict.fromkeys(names(50), 201)
    assert "FHIR Data Contributor" in message


def test_an_error_of_the_entries_is_raised(double: FhirEmulator) -> None:
    """What reading the tables raises reaches the caller, and nothing more is sent."""

    def entries() -> Iterator[Entry]:
        yield from studies(25)
        raise DataError("the tables")

    message, _ = failing(double, DataError, entries())
    assert message == "the tables"
    assert len(sizes(double)) <= 2


# --- bounds


def check_distinct(patience_seconds: float) -> None:
    """The same study in five bundles: never two at once, and the last one stands."""
    with fhir_double(meet=2, patience_seconds=patience_seconds) as double:
        entries = []
        for number in range(5):
            entries += [put(study("same", description=f"d{number}")), put(study(f"other{number}"))]
        fhir = fhir_settings(double.base_url, "fhir.bundle_entries=2", "fhir.connections=4")
        with FhirServer(fhir) as server:
            assert len(list(sent(server, entries, fhir))) == 10
        assert double.service.collisions == [], "a resource was in two bundles at once"
        assert double.service.resources("ImagingStudy")["same"]["description"] == "d4"


def test_no_resource_is_in_two_bundles_at_once() -> None:
    """Bundles that share a resource go one after the other, each time waiting in vain for a second one."""
    check_distinct(0.02)


def test_two_bundles_with_one_resource_are_noticed() -> None:
    """The broken twin: what is under way is not looked at."""
    mutant = Mutant("distinct resources in flight", check_distinct, sending._Ahead, "_held", lambda _self: set(),
                    "a resource was in two bundles at once")  # fmt: skip
    assert_caught(mutant, 20.0)


def test_other_bundles_go_side_by_side() -> None:
    """Four connections: four bundles at once, and never a fifth."""
    with fhir_double(meet=4, patience_seconds=20.0) as double:
        assert len(send(double, studies(80), "fhir.connections=4")) == 80
        assert double.service.most_in_flight == 4


def check_read_ahead(double: FhirEmulator) -> None:
    """Of 400 entries no more are taken ahead of the results than two bundles a connection, and one to look at."""
    taken = told = most = 0

    def entries() -> Iterator[Entry]:
        nonlocal taken, most
        for entry in studies(400):
            taken += 1
            most = max(most, taken - told)
            yield entry

    fhir = fhir_settings(double.base_url, "fhir.bundle_entries=5")
    with FhirServer(fhir) as server:
        for _ in sent(server, entries(), fhir):
            told += 1
    assert (taken, told) == (400, 400)
    # Results of the bundles that are done wait while their places are taken again.
    assert most <= (2 * 2 + 1) * 5 + 5, "entries are read far ahead"


def test_entries_are_not_read_far_ahead(double: FhirEmulator) -> None:
    """Memory stays bounded whatever the number of studies."""
    check_read_ahead(double)


def test_reading_far_ahead_is_noticed(double: FhirEmulator) -> None:
    """The broken twin: every bundle is taken at once."""
    original = sending._Ahead.take

    def greedy(self: Any) -> Any:
        self._most = 10_000
        return original(self)

    assert_caught(
        Mutant("bounded read-ahead", check_read_ahead, sending._Ahead, "take", greedy, "entries are read far ahead"),
        double,
    )


def test_a_caller_that_stops_ends_the_sending(double: FhirEmulator) -> None:
    """After the first result no further bundle goes out than those under way."""
    fhir = fhir_settings(double.base_url, "fhir.bundle_entries=5")
    with FhirServer(fhir) as server:
        results = sent(server, studies(400), fhir)
        next(results)
        results.close()
    assert 1 <= len(sizes(double)) <= 2 * 2 + 2
