"""What the service shows now: the feed, its search, and what changed while they were asked."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from dicom_emulator.options import EmulatorOptions
from dicom_emulator.serve import Emulator, serve_in_thread
from dicom_emulator.state.uids import instance_key
from dicom_emulator.testing.faults import Fault
from dicom_etl.commands.verify.inventory import Service, list_again, take_inventory
from dicom_etl.commands.verify.scratch import Scratch, scratch
from dicom_etl.commands.verify.search_result import search_studies
from dicom_etl.core.progress import NullProgress, Progress
from dicom_etl.core.settings.load import load_settings
from dicom_etl.core.settings.model import Settings
from dicom_etl.core.timerange import Window
from dicom_etl.dicomweb.connect import connect
from dicom_etl.lake.delta.folder import local_folder
from dicom_etl.lake.paths import lake_paths
from support.site import at, metadata, ticks_at

P = "Microsoft.Default"


def folder(path: Path) -> Scratch:
    return Scratch(local_folder(str(path), private=True), str(path))


def settings_of(emulator: Emulator, path: Path) -> Settings:
    return load_settings(None, [f"dicom.base_url={emulator.base_url}", f"lake.root={path}/lake"], {}, path)


def service_at(settings: Settings, client: Any, hour: float, progress: Progress | None = None) -> Service:
    return Service(client, settings, lambda: at(hour), progress or NullProgress(), False)


def entries_of(files: tuple[str, ...]) -> list[tuple[int, str, str, int]]:
    rows = ds.dataset(list(files)).to_table(["sequence", "sopInstanceUid", "action", "runId"]).to_pylist()
    return sorted((e["sequence"], e["sopInstanceUid"], e["action"], e["runId"]) for e in rows)


def test_what_happens_while_the_search_is_asked_is_listed(tmp_path: Path) -> None:
    """The end of the feed is read once more after the search; another reading adds a later one of the same entries."""
    with serve_in_thread(EmulatorOptions()) as emulator:
        service = emulator.service
        service.clock.freeze(at(8))
        for sop in ("1", "2"):
            service.create(instance_key("1.1", "1.1.1", sop), metadata(name=sop))
        service.clock.freeze(at(9))
        settings = settings_of(emulator, tmp_path)

        class Meanwhile(NullProgress):
            def step(self, name: str) -> None:
                if name == "ask the search":
                    service.delete(P, "1.1", "1.1.1", "1")
                    service.create(instance_key("1.1", "1.1.1", "3"), metadata(name="3"))

        with connect(settings.dicom) as client:
            listing = service_at(settings, client, 9, Meanwhile())
            inventory = take_inventory(listing, folder(tmp_path), 0)
            first = entries_of(inventory.files)
            again = list_again(listing, folder(tmp_path), inventory, [Window(ticks_at(8), ticks_at(8) + 1)])
    low, high = first[0][3], first[-1][3]
    assert low < high < 0
    assert first == [
        (1, "1", "Create", low),
        (2, "2", "Create", low),
        (3, "1", "Delete", high),
        (4, "3", "Create", high),
    ]
    assert inventory.complete
    (study,) = pq.read_table(inventory.search.file).to_pylist()
    assert (study["studyInstanceUid"], study["instances"], inventory.search.studies) == ("1.1", 2, 1)
    later = [entry for entry in entries_of(again.files) if entry[3] > high]
    assert [entry[0] for entry in later] == [1, 2, 3, 4]
    assert {path.stat().st_mode & 0o777 for path in tmp_path.glob("*.parquet")} == {0o600}


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    """A service with partitions, and two instances in two of them."""
    with serve_in_thread(EmulatorOptions(partitions=True)) as served:
        for partition in ("a", "b-c"):
            served.service.create(instance_key("1.1", "1.1.1", "1", partition), metadata(name=partition))
        yield served


def test_every_partition_is_searched(emulator: Emulator, tmp_path: Path) -> None:
    """Studies carry the partition's name; the same UID in two partitions is two studies."""
    settings = settings_of(emulator, tmp_path)
    with connect(settings.dicom) as client:
        found = search_studies(client, folder(tmp_path), 2)
    assert {"a", "b-c"} <= set(found.partitions) <= {"a", "b-c", P}
    assert (found.complete, found.named, found.refused) == (True, True, None)
    assert sorted(tuple(row.values()) for row in pq.read_table(found.file).to_pylist()) == [
        ("a", "1.1", 1),
        ("b-c", "1.1", 1),
    ]


@pytest.mark.parametrize(
    ("path", "status", "said"),
    [
        (r".*/studies", 403, "403"),
        (r".*/studies", 404, "404"),
        (r".*/studies", 400, "400"),
        (r".*/partitions", 403, "403"),
    ],
)
def test_a_refused_search_is_said(emulator: Emulator, tmp_path: Path, path: str, status: int, said: str) -> None:
    """No error: the reason, and nothing that could be taken for an empty service."""
    fault = emulator.service.faults.add(Fault(status=status, path=path))
    settings = settings_of(emulator, tmp_path)
    with connect(settings.dicom) as client:
        found = search_studies(client, folder(tmp_path), 2)
    assert fault.hits == 1
    assert not found.usable
    assert said in (found.refused or "")
    assert found.file is None


@pytest.mark.parametrize(("master", "below"), [("local[2]", False), ("spark://host:7077", True)])
def test_executors_of_a_cluster_can_read_what_is_listed(tmp_path: Path, master: str, below: bool) -> None:
    """With a cluster's session the folder lies below lake.private_root, else on this disk; it is gone afterwards."""
    private = tmp_path / "private"
    where = lake_paths(
        load_settings(None, [f"lake.root={tmp_path}/lake", f"lake.private_root={private}"], {}, tmp_path)
    )
    spark: Any = SimpleNamespace(sparkContext=SimpleNamespace(master=master))
    with scratch(where, spark) as made:
        with made.folder.create("one.parquet") as sink:
            sink.write(b"1")
        path = Path(made.path("one.parquet"))
        assert path.read_bytes() == b"1"
        assert path.is_relative_to(private) == below
        assert path.parent.stat().st_mode & 0o777 == 0o700
    assert not path.parent.exists()
