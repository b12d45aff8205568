"""A lake in a container: two writers, a storage that goes away and comes back, and what can be wrong with it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pydicom
import pytest
from pyspark.sql import SparkSession

from dicom_emulator.options import EmulatorOptions
from dicom_emulator.serve import serve_in_thread
from dicom_emulator.state.lake import ContainerLake
from dicom_etl import open_instance
from dicom_etl.commands.sync import sync
from dicom_etl.commands.sync_request import SyncRequest
from dicom_etl.commands.upload import upload
from dicom_etl.core.errors import AnotherWriter, DicomEtlError, Superseded
from dicom_etl.core.settings.load import load_settings
from dicom_etl.lake.claims.claim import claim
from dicom_etl.lake.claims.file import ClaimFolder
from dicom_etl.lake.claims.process import Process
from dicom_etl.lake.delta.commit import commit_files
from dicom_etl.remote.storage import storage_of
from support.azurite import KEY_VARIABLE, Azurite, address
from support.site import Site, at
from support.stopping import at_point, child, let_go_on, wait_until_stopped
from support.story import NoSpark

pytestmark = pytest.mark.azure
CT = Path(pydicom.__file__).parent / "data" / "test_files" / "CT_small.dcm"


@pytest.fixture
def there(azurite: Azurite, spark: SparkSession, tmp_path: Path) -> Iterator[Site]:
    """A service whose files, and a lake that, lie in one container; its clock stands at 08:00."""
    container = azurite.container()
    with ExitStack() as stack:
        options = EmulatorOptions(lake=ContainerLake(container), keep_health_files=True)
        emulator = stack.enter_context(serve_in_thread(options))
        emulator.service.clock.freeze(at(8), step=10_000_000)
        yield azurite.holding(Site(emulator, tmp_path, (), spark), container.container_name, spark)


def fill(site: Site, study: str, images: int = 5) -> None:
    for number in range(images):
        site.create(study, f"{study}.1", f"{study}.1.{number}", modality="CT")


def claims(site: Site) -> ClaimFolder:
    filesystem, path = site.storage.filesystem(f"{site.address}/_claims")
    return ClaimFolder(filesystem, path)


def program(site: Site, *words: str, environment: dict[str, str] | None = None) -> tuple[int, str, str]:
    """The command line in a process of its own: exit code, standard output, what it says of errors."""
    settings = [word for text in site.texts for word in ("--set", text)]
    done = subprocess.run(
        [sys.executable, "-m", "dicom_etl", *words, *settings],
        cwd=site.folder, capture_output=True, text=True, check=False, timeout=280,
        env={**os.environ, **(environment or {})},
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


# -- one writer ----------------------------------------------------------------------------------------------


def test_of_six_who_claim_at_once_one_has_the_lake(there: Site) -> None:
    """An exclusive create is atomic there: the others are told that somebody writes."""
    filesystem, path = there.storage.filesystem(f"{there.address}/_claims")
    outcomes: list[str] = []
    together = threading.Barrier(6)
    over = threading.Event()

    def compete(number: int) -> None:
        me = Process("another-host", number, number, f"boot-{number}", "namespace")
        together.wait()
        try:
            held = claim(
                filesystem, path, verb="sync", last_known_run_id=0, process=me,
                clock=lambda: datetime.now(UTC), sleep=lambda _seconds: None,
            )  # fmt: skip
        except AnotherWriter:
            outcomes.append("told")
        else:
            outcomes.append("has it")
            over.wait(60)
            held.release()

    threads = [threading.Thread(target=compete, args=(number,)) for number in range(1, 7)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(2)
    over.set()
    for thread in threads:
        thread.join(120)
    assert sorted(outcomes) == ["has it", *["told"] * 5]


def test_a_run_that_was_overtaken_writes_nothing_more(there: Site) -> None:
    """It stands still before its MERGE, its claim counts as released, a newer run merges: it ends with 75."""
    fill(there, "1.2")
    there.clock(10)
    there.sync()
    fill(there, "1.3")
    there.clock(12)
    with child(there, "instance next", "SIGSTOP", "sync") as older:
        wait_until_stopped(older)
        folder = claims(there)
        snapshot = folder.read(2)
        assert snapshot is not None
        assert snapshot.file is not None
        folder.write(msgspec.structs.replace(snapshot.file, released=True), writer=2)
        (newer,) = there.sync()
        assert (newer.run_id, newer.inserted) == (3, 5)
        before = {name: there.version(name) for name in ("instance", "series", "study", "run")}
        code, lines = let_go_on(older)
    assert code == 75
    assert lines == ["dicom-etl: instance: a newer run has written; this one stops and covers nothing"]
    assert {name: there.version(name) for name in before} == before
    assert there.tables() == there.expected()


def test_a_commit_on_an_old_snapshot_is_refused(there: Site) -> None:
    """Two runs open `change` at one version: the second to commit is superseded, whatever its id."""
    fill(there, "1.2")
    there.clock(10)
    there.sync()
    one, other = there.opened("change"), there.opened("change")
    schema = one.to_pyarrow_dataset().schema
    assert commit_files(one, [], app_id="tests/change", run_id=8, details={}, schema=schema) == one.version() + 1
    with pytest.raises(Superseded):
        commit_files(other, [], app_id="tests/change", run_id=9, details={}, schema=schema)


# -- a storage that goes away --------------------------------------------------------------------------------


@pytest.mark.parametrize("point", ["files written", "instance next", "series next", "row next"])
def test_a_storage_that_stops_in_a_run_ends_it_and_the_next_run_heals(
    there: Site, azurite: Azurite, point: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run ends with 74 or 75 and not after half an hour of retries; when it is back, the tables become equal."""
    fill(there, "1.2")
    there.clock(10)
    there.sync()
    fill(there, "1.3")
    there.clock(12)
    try:
        with monkeypatch.context() as patched:
            at_point(point, azurite.stop, patched.setattr)
            with pytest.raises(DicomEtlError) as caught:
                there.sync()
    finally:
        azurite.start()
    assert caught.value.exit_code in (74, 75)
    folder = claims(there)
    for run_id in folder.ids():  # its claim could not be released; it is taken for dead by its silence otherwise
        snapshot = folder.read(run_id)
        if snapshot is not None and snapshot.file is not None:
            folder.write(msgspec.structs.replace(snapshot.file, released=True), writer=run_id)
    assert sum(run.inserted + run.updated for run in there.sync()) in (0, 5)
    assert there.tables() == there.expected()
    assert len(there.rows("instance")) == 10


# -- what is wrong with it -----------------------------------------------------------------------------------


def test_a_wrong_key_is_77_and_no_role_is_asked_for(there: Site) -> None:
    """Nothing is made, and the key is not repeated."""
    wrong = "d3Jvbmc="
    code, out, said = program(there, "sync", "--init", environment={KEY_VARIABLE: wrong})
    assert (code, out) == (77, "")
    line = "run: the storage does not accept our key or token: check storage.auth and the identity's "
    line += "sign-in, or the key in the variable of storage.key_env"
    assert said == f"dicom-etl: {line}\n"
    assert wrong not in said


def test_a_missing_container_is_78_and_none_is_made(there: Site, azurite: Azurite) -> None:
    """A name that is mistyped must not become a lake of its own."""
    elsewhere = replace(there, address=address("no-such-container", "lake"))
    code, out, said = program(elsewhere, "sync", "--init")
    assert (code, out) == (78, "")
    assert said == "dicom-etl: run: its container does not exist: make it, or correct lake.root\n"
    assert "no-such-container" not in {one.name for one in azurite.client.list_containers()}


def test_a_missing_key_is_78(there: Site) -> None:
    code, _, said = program(there, "status", environment={KEY_VARIABLE: ""})
    assert code == 78
    assert said == "dicom-etl: storage.auth is key, but the variable that storage.key_env names is not set\n"


def test_an_account_that_does_not_answer_is_75(there: Site) -> None:
    nowhere = there.having("storage.endpoint=http://127.0.0.1:9")
    code, out, said = program(nowhere, "status")
    assert (code, out) == (75, "")
    assert said == "dicom-etl: run: the storage account does not answer; try again later\n"


# -- without Spark, and after the files ----------------------------------------------------------------------


def test_verbs_without_spark_end_well_there(there: Site) -> None:
    """Ten processes read the ledger through delta-rs's filesystem, and none aborts at its end."""
    fill(there, "1.2")
    there.clock(10)
    there.sync()
    codes = [program(there, *words)[0] for words in [("status",), ("runs", "--json")] * 5]
    assert codes == [0] * 10
    assert there.sync(spark=NoSpark()) == []


def test_a_row_leads_to_its_file_in_the_container(there: Site) -> None:
    """filePath counts from the container, where the service's health-check files lie too; the service is not asked."""
    assert [done.outcome.kind for done in upload(there.settings, [CT])] == ["stored"]
    there.clock(10)
    there.sync()
    (row,) = there.rows("instance")
    assert row["filePath"]
    alone = load_settings(None, [*there.texts, "dicom.base_url=http://127.0.0.1:9"], {}, there.folder)
    dataset = open_instance(row, alone)
    assert dataset.SOPInstanceUID == row["sopInstanceUid"]
    assert dataset.pixel_array.shape == (128, 128)


def test_the_tables_of_a_lake_in_two_containers_are_apart(there: Site, azurite: Azurite, spark: SparkSession) -> None:
    """Whole headers lie in the private container only, which researchers have no right to."""
    private = azurite.container()
    apart = there.having(f"lake.private_root={address(private.container_name, 'private')}")
    fill(apart, "1.2")
    apart.clock(10)
    moment = at(10)
    storage = storage_of(apart.settings)
    hadoop = spark.sparkContext._jsc.hadoopConfiguration()
    for name, value in storage.hadoop((apart.address,)).items():
        hadoop.set(name, value)
    (run,) = sync(apart.settings, SyncRequest(init=True), spark=spark, clock=lambda: moment)
    assert run.inserted == 5
    shared = azurite.client.get_container_client(_container(apart)).list_blob_names()
    ours = {name.split("/")[2] for name in shared if name.count("/") > 1}  # below the lake's folder
    theirs = {name.split("/")[1] for name in private.list_blob_names() if "/" in name}
    assert {"instance", "series", "study", "run", "_claims"} <= ours
    assert not {"change", "rejected"} & ours
    assert theirs == {"change", "rejected"}


def _container(site: Site) -> str:
    return site.address.partition("://")[2].partition("@")[0]
