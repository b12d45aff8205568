"""The bounded search, against the local service: each study with its count, instances of studies, proofs of absence."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from datetime import date, timedelta
from threading import get_ident
from typing import Any

import pyarrow as pa
import pytest

from dicom_emulator.options import EmulatorOptions
from dicom_emulator.serve import Emulator, serve_in_thread
from dicom_emulator.state.uids import instance_key
from dicom_emulator.testing.faults import Fault
from dicom_etl.core.errors import AccessDenied, ConfigurationError, ProtocolError, ServiceUnavailable
from dicom_etl.core.settings.model import Dicom
from dicom_etl.dicomweb import study_search
from dicom_etl.dicomweb.connect import connect
from dicom_etl.dicomweb.retrieve import gone_instances, instance_exists
from dicom_etl.dicomweb.side_by_side import side_by_side
from dicom_etl.dicomweb.study_dates import Part
from dicom_etl.dicomweb.study_search import Depth, StudyCounts, instances_of_studies, study_counts
from dicom_etl.remote.http.client import HttpClient
from dicom_etl.remote.http.retry import RetryPolicy
from support.broken import Mutant, assert_caught

P = "Microsoft.Default"
# As 200 and 2 000 are for the service.
SMALL = Depth(page=4, deepest=20)
DAY = date(2024, 5, 1)
NO_COUNT = b'[{"0020000D":{"vr":"UI","Value":["1.1"]},"00201208":{"vr":"IS","Value":[null]}}]'


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    with serve_in_thread(EmulatorOptions()) as running:
        yield running


@pytest.fixture
def client(emulator: Emulator) -> Iterator[HttpClient]:
    with connect(Dicom(emulator.base_url, 2, "none", "T", 4, 20.0, 20.0), sleep=lambda _: None) as connected:
        yield connected


def header(day: date | None = None, birth: date | None = None) -> dict[str, Any]:
    days = {"00080020": day, "00100030": birth}
    return {tag: {"vr": "DA", "Value": [f"{d:%Y%m%d}"]} for tag, d in days.items() if d is not None}


def fill(emulator: Emulator, study: str, instances: int = 1, series: int = 1, **header_: Any) -> tuple[str, int]:
    """Creates a study; its UID and its number of instances."""
    for number in range(instances):
        key = instance_key(study, f"{study}.{number % series}", f"{study}.{number % series}.{number}")
        emulator.service.create(key, header(**header_))
    return study, instances


def counted(client: HttpClient, partition: str | None = None, depth: Depth = SMALL) -> tuple[StudyCounts, pa.Table]:
    batches: list[pa.RecordBatch] = []
    counts = study_counts(client, partition, connections=4, sink=batches.append, depth=depth)
    return counts, pa.Table.from_batches(batches, study_search.STUDY_COUNTS)


def pairs(table: pa.Table) -> list[tuple[str, int]]:
    """Study and number of instances, each pair once."""
    return sorted(set(zip(table["studyInstanceUid"].to_pylist(), table["instances"].to_pylist(), strict=True)))


def listed(client: HttpClient, studies: Iterable[str], depth: Depth = SMALL) -> list[tuple[str, ...]]:
    batches = list(instances_of_studies(client, None, studies, connections=4, depth=depth))
    return sorted(tuple(row.values()) for row in pa.Table.from_batches(batches, study_search.INSTANCE_KEYS).to_pylist())


def offsets(emulator: Emulator, path: str = "/v2/studies") -> list[int]:
    return [int(one.query["offset"] or 0) for one in emulator.service.requests.all() if one.path == path]


def test_one_search_lists_what_fits_into_it(emulator: Emulator, client: HttpClient) -> None:
    """All studies with their counts, those without a date too, and nothing is said to be missing."""
    filled = [fill(emulator, f"1.{n}", instances=n % 3 + 1, day=None if n % 2 else DAY) for n in range(23)]
    counts, table = counted(client)
    assert len(filled) == 23
    assert pairs(table) == sorted(filled)
    assert table.num_rows == 23
    assert set(table["partitionName"].to_pylist()) == {P}
    assert counts == StudyCounts(complete=True, incomplete_dates=())
    assert offsets(emulator) == [0, 4, 8, 12, 16, 20]


def _check_ranges(emulator: Emulator, client: HttpClient) -> None:
    days = [DAY + timedelta(days=number // 5) for number in range(100)]
    days += [date(1, 1, 1), date(1582, 10, 4), date(1899, 12, 31), date(1900, 1, 1), date(9999, 12, 31)]
    filled = [fill(emulator, f"1.{number}", day=day) for number, day in enumerate(days)]
    counts, table = counted(client)
    assert len(filled) == 105
    assert max(offsets(emulator)) == 20, "no deep offset"
    assert pairs(table) == sorted(filled), "each study"
    assert counts == StudyCounts(complete=False, incomplete_dates=()), "what is known"


def test_more_studies_are_asked_by_ranges_of_their_date(emulator: Emulator, client: HttpClient) -> None:
    """Any date that a study can have; no page stands deeper than the bound; studies without a date may be missing."""
    _check_ranges(emulator, client)


def test_a_study_without_a_date_is_listed_while_it_is_among_the_newest(emulator: Emulator, client: HttpClient) -> None:
    """An older one is found by no search; the result says so."""
    fill(emulator, "1.1")
    dated = [fill(emulator, f"2.{number}", day=DAY + timedelta(days=number)) for number in range(50)]
    new = fill(emulator, "1.2")
    counts, table = counted(client)
    assert pairs(table) == sorted([*dated, new])
    assert not counts.complete


def _check_one_day(emulator: Emulator, client: HttpClient) -> None:
    births = [date(1950, 1, 1) + timedelta(days=400 * number) for number in range(40)]
    filled = [fill(emulator, f"1.{number}", day=DAY, birth=birth) for number, birth in enumerate(births)]
    filled += [fill(emulator, f"2.{number}", day=DAY + timedelta(days=1)) for number in range(10)]
    counts, table = counted(client)
    assert len(filled) == 50
    assert pairs(table) == sorted(filled), "each study"
    assert counts == StudyCounts(complete=False, incomplete_dates=(DAY,)), "what is known"
    assert max(offsets(emulator)) == 20, "no deep offset"


def test_a_day_with_too_many_studies_is_asked_by_birth_dates(emulator: Emulator, client: HttpClient) -> None:
    """And stays incomplete: a patient may have no date of birth. A day that fits does not."""
    _check_one_day(emulator, client)


def test_one_date_for_all_gives_the_newest_and_says_which_day(emulator: Emulator, client: HttpClient) -> None:
    """As in a de-identified archive: one StudyDate and one PatientBirthDate; the search ends, with bounded offsets."""
    filled = [fill(emulator, f"1.{number}", day=DAY, birth=date(1900, 1, 1)) for number in range(60)]
    counts, table = counted(client)
    assert pairs(table) == sorted(filled[-24:])
    assert counts == StudyCounts(complete=False, incomplete_dates=(DAY,))
    assert max(offsets(emulator)) == 20


@pytest.mark.parametrize(
    "mutant",
    [
        Mutant("no page stands deep", _check_ranges, study_search, "_as_far",
               lambda asked, *_, **__: ([m for p in asked.pages() for m in p], True), "no deep offset"),
        Mutant("what is too large is divided", _check_ranges, Part, "divided", lambda _: (), "each study"),
        Mutant("all that is too large is said", _check_one_day, Part, "exceeds_its_parts", False, "what is known"),
    ],
    ids=lambda mutant: mutant.rule,
)  # fmt: skip
def test_a_broken_search_is_caught(emulator: Emulator, client: HttpClient, mutant: Mutant) -> None:
    """Broken twins of the rules above."""
    assert_caught(mutant, emulator, client)


def test_each_partition_is_searched_by_its_name() -> None:
    """The counts carry the partition's name."""
    with (
        serve_in_thread(EmulatorOptions(partitions=True)) as emulator,
        connect(Dicom(emulator.base_url, 2, "none", "T", 4, 20.0, 20.0)) as client,
    ):
        for partition, sops in (("a", 1), ("b-c", 2)):
            for sop in range(sops):
                emulator.service.create(instance_key("1.1", "1.1.1", f"1.1.1.{sop}", partition), header(DAY))
        _, table = counted(client, "b-c")
        batches = list(instances_of_studies(client, "b-c", ["1.1"], connections=2))
        key = ("1.1", "1.1.1", "1.1.1.1")
        assert list(gone_instances(client, "a", [key], connections=2)) == [key]
        assert list(gone_instances(client, "b-c", [key], connections=2)) == []
    assert table.to_pylist() == [{"partitionName": "b-c", "studyInstanceUid": "1.1", "instances": 2}]
    assert [batch.num_rows for batch in batches] == [2]
    assert set(batches[0]["partitionName"].to_pylist()) == {"b-c"}


def test_the_instances_of_studies_are_listed(emulator: Emulator, client: HttpClient) -> None:
    """All of the studies that are asked for; a study that is not there, or can be none, has none."""
    for number in range(12):
        fill(emulator, f"1.{number}", instances=number, series=2)
    found = listed(client, ["1.1", "1.2", "1.11", "1.99", "no UID", ""])
    assert len(found) == 14
    assert found[0] == (P, "1.1", "1.1.0", "1.1.0.0")
    assert {row[1] for row in found} == {"1.1", "1.2", "1.11"}
    assert len({row[3] for row in found}) == 14


def test_a_large_study_is_asked_series_by_series(emulator: Emulator, client: HttpClient) -> None:
    """No page of the whole study stands deeper than the bound; a series is read to its end."""
    fill(emulator, "1.1", instances=80, series=2)
    fill(emulator, "1.2", instances=3)
    found = listed(client, ["1.1", "1.2"])
    assert len(found) == 83
    assert len(set(found)) == 83
    assert max(offsets(emulator, "/v2/studies/1.1/instances")) == 20
    assert offsets(emulator, "/v2/studies/1.1/series/1.1.0/instances") == list(range(0, 44, 4))
    assert offsets(emulator, "/v2/studies/1.2/instances") == [0]


def test_a_service_that_passes_over_the_offset_ends_the_list(emulator: Emulator, client: HttpClient) -> None:
    """Of a series with more instances than a page: the first page again, and so on without end."""
    fill(emulator, "1.1", instances=80, series=2)
    first = json.dumps([{
        "0020000E": {"vr": "UI", "Value": ["1.1.0"]}, "00080018": {"vr": "UI", "Value": [f"1.1.0.{number}"]},
    } for number in range(4)]).encode()  # fmt: skip
    fault = emulator.service.faults.add(Fault(path="/v2/studies/1.1/series/1.1.0/instances", rewrite=lambda _: first))
    with pytest.raises(ProtocolError, match="the same page twice"):
        listed(client, ["1.1"])
    assert fault.hits == 2


def test_questions_are_taken_as_they_are_needed() -> None:
    """In the caller's thread, two for each connection at a time; what was found goes first; at the end nobody asks."""
    taken: list[int] = []
    asked: list[int] = []

    def questions() -> Iterator[int]:
        for number in range(100_000):
            taken.append(get_ident())
            yield number

    def ask(number: int, _: RetryPolicy) -> tuple[int, list[int]]:
        asked.append(number)
        return number, [number + 1_000_000] if number < 1_000_000 else []

    answers = side_by_side(ask, questions(), connections=4)
    first = [next(answers) for _ in range(50)]
    assert len(set(first)) == 50
    assert sum(number >= 1_000_000 for number in first) > 15
    assert len(taken) < 60
    assert set(taken) == {get_ident()}
    answers.close()
    assert len(asked) <= 70


def test_what_answers_404_is_gone(emulator: Emulator, client: HttpClient) -> None:
    """One request for each key; a key that no path can hold proves nothing."""
    fill(emulator, "1.1", instances=3)
    keys = [("1.1", "1.1.0", f"1.1.0.{number}") for number in range(5)]
    assert [instance_exists(client, *key) for key in keys] == [True, True, True, False, False]
    assert sorted(gone_instances(client, None, [*keys, ("1.1", "1.1.0", "a b")], connections=4)) == keys[3:]
    asked = [one for one in emulator.service.requests.all() if one.path.endswith("/metadata")]
    assert len(asked) == 10


@pytest.mark.parametrize(
    ("status", "error"),
    [(403, AccessDenied), (400, ProtocolError), (500, ServiceUnavailable), (302, ConfigurationError)],
)
def test_any_other_answer_is_an_error(
    emulator: Emulator, client: HttpClient, status: int, error: type[Exception]
) -> None:
    """Nothing is called gone, nothing is called listed."""
    fill(emulator, "1.1")
    emulator.service.faults.add(Fault(status=status, path="/v2/studies.*"))
    key = ("1.1", "1.1.0", "1.1.0.0")
    for ask in (
        lambda: instance_exists(client, *key),
        lambda: list(gone_instances(client, None, [key], connections=4)),
        lambda: counted(client),
        lambda: listed(client, ["1.1"]),
    ):
        with pytest.raises(error):
            ask()


@pytest.mark.parametrize("body", [b"[{}]", b'[{"0020000D":{"vr":"UI","Value":["1.1"]}}]', b"[1]", b"{}", NO_COUNT])
def test_a_study_without_uid_or_count_breaks_the_protocol(emulator: Emulator, client: HttpClient, body: bytes) -> None:
    """What cannot be compared is not left out silently."""
    fill(emulator, "1.1")
    emulator.service.faults.add(Fault(path="/v2/studies", rewrite=lambda _: body))
    with pytest.raises(ProtocolError):
        counted(client)
