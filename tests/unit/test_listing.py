"""What the service shows now: the feed, its search, and what changed while they were asked."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from dicom_etl.deltalog import local_folder
from dicom_etl.dicomweb.client import connect
from dicom_etl.emulator import Emulator, EmulatorOptions, instance_key, serve_in_thread
from dicom_etl.emulator.faults import Fault
from dicom_etl.landing.keyfile import write_keys
from dicom_etl.listing import ask_again, list_instances, read_listing
from dicom_etl.progress import Silent
from dicom_etl.settings import load_settings
from support.site import at, metadata

P = "Microsoft.Default"


def test_what_happens_while_the_search_is_asked_is_listed(tmp_path: Path) -> None:
    """The end of the feed is read once more after the search: created meanwhile, deleted meanwhile."""
    with serve_in_thread(EmulatorOptions()) as emulator:
        service = emulator.service
        service.clock.freeze(at(8))
        for sop in ("1", "2"):
            service.create(instance_key("1.1", "1.1.1", sop), metadata(name=sop))
        service.clock.freeze(at(9))
        settings = load_settings(None, [f"dicom.base_url={emulator.base_url}"], {}, tmp_path)

        class Meanwhile(Silent):
            def step(self, name: str) -> None:
                if name == "ask the search":
                    service.delete(P, "1.1", "1.1.1", "1")
                    service.create(instance_key("1.1", "1.1.1", "3"), metadata(name="3"))

        with connect(settings.dicom) as client:
            listing = read_listing(
                settings, client, tmp_path, start=0, include_metadata=False, clock=lambda: at(9), progress=Meanwhile()
            )
    entries = ds.dataset(list(listing.files)).to_table(["sequence", "sopInstanceUid", "action"]).to_pylist()
    assert sorted((e["sequence"], e["sopInstanceUid"], e["action"]) for e in entries) == [
        (1, "1", "Create"),
        (2, "2", "Create"),
        (3, "1", "Delete"),
        (4, "3", "Create"),
    ]
    held = ds.dataset(list(listing.found.files)).to_table().to_pylist()
    assert sorted(key["sopInstanceUid"] for key in held) == ["2", "3"]
    assert listing.complete


def test_keys_are_written_as_they_come(tmp_path: Path) -> None:
    """One file, also of none; only this user may read it."""
    folder = local_folder(str(tmp_path), private=True)
    many = [(P, "1", "2", str(number)) for number in range(25_000)]
    assert write_keys(folder, "many.parquet", iter(many)) == 25_000
    assert write_keys(folder, "none.parquet", iter(())) == 0
    assert pq.read_table(tmp_path / "many.parquet").num_rows == 25_000
    assert pq.read_table(tmp_path / "none.parquet").num_rows == 0
    assert {path.stat().st_mode & 0o777 for path in tmp_path.glob("*.parquet")} == {0o600}


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    """A service with partitions, and two instances in two of them."""
    with serve_in_thread(EmulatorOptions(partitions=True)) as served:
        for partition in ("a", "b-c"):
            served.service.create(instance_key("1.1", "1.1.1", "1", partition), metadata(name=partition))
        yield served


def keys(files: tuple[str, ...]) -> list[tuple[str, ...]]:
    return [tuple(row.values()) for file in files for row in pq.read_table(file).to_pylist()]


def test_every_partition_is_searched_and_a_study_asked_again(emulator: Emulator, tmp_path: Path) -> None:
    """Keys carry the partition's name; a second look adds to the first."""
    settings = load_settings(None, [f"dicom.base_url={emulator.base_url}"], {}, tmp_path)
    folder = local_folder(str(tmp_path), private=True)
    with connect(settings.dicom) as client:
        found = list_instances(client, folder)
        assert {"a", "b-c"} <= set(found.partitions) <= {"a", "b-c", P}
        assert sorted(keys(found.files)) == [("a", "1.1", "1.1.1", "1"), ("b-c", "1.1", "1.1.1", "1")]
        emulator.service.create(instance_key("1.2", "1.2.1", "2", "a"), metadata(name="late"))
        again = ask_again(client, folder, found, [("a", "1.2")])
    assert keys(again.files)[-1] == ("a", "1.2", "1.2.1", "2")
    assert again.partitions == found.partitions


@pytest.mark.parametrize(
    ("path", "status", "said"),
    [
        (r".*/instances", 403, "403"),
        (r".*/instances", 404, "404"),
        (r".*/instances", 400, "400"),
        (r".*/partitions", 403, "403"),
    ],
)
def test_a_refused_search_is_said(emulator: Emulator, tmp_path: Path, path: str, status: int, said: str) -> None:
    """No error: the reason, and nothing that could be taken for an empty service."""
    fault = emulator.service.faults.add(Fault(status=status, path=path))
    settings = load_settings(None, [f"dicom.base_url={emulator.base_url}"], {}, tmp_path)
    with connect(settings.dicom) as client:
        found = list_instances(client, local_folder(str(tmp_path), private=True))
    assert fault.hits == 1
    assert not found.usable
    assert said in (found.refused or "")
    assert found.files == ()


def test_a_search_that_knows_nothing_is_not_believed(tmp_path: Path) -> None:
    """By it, everything would be gone."""
    with serve_in_thread() as empty:
        settings = load_settings(None, [f"dicom.base_url={empty.base_url}"], {}, tmp_path)
        with connect(settings.dicom) as client:
            found = list_instances(client, local_folder(str(tmp_path), private=True))
    assert found.refused == "it holds nothing"
