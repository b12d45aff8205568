"""`dicom-etl retrieve`: whole files or none, each with an outcome, none asked for twice, none outside of the folder."""

from __future__ import annotations

import fcntl
import json
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from io import BytesIO
from pathlib import Path
from typing import Any

import pydicom
import pytest
from PIL import Image
from pydicom.data import get_testdata_file

from dicom_emulator.options import EmulatorOptions
from dicom_emulator.routes.stow import store_file
from dicom_emulator.serve import Emulator, serve_in_thread
from dicom_emulator.state.uids import DEFAULT_PARTITION, instance_key
from dicom_emulator.testing.faults import Fault
from dicom_etl.cli.main import cli
from dicom_etl.commands.retrieve.fetch import Retrieved
from dicom_etl.commands.retrieve.request import RetrieveRequest, frame_numbers
from dicom_etl.commands.retrieve.retrieve import retrieve
from dicom_etl.core.errors import (
    AccessDenied,
    AnotherWriter,
    DataError,
    ServiceUnavailable,
    UsageError,
)
from dicom_etl.core.settings.load import load_settings

STUDY = "1.2.3"
KEYS = [("1.2.3.1", "1.2.3.1.1"), ("1.2.3.1", "1.2.3.1.2"), ("1.2.3.2", "1.2.3.2.1")]
PATHS = [f"{STUDY}/{series}/{sop}.dcm" for series, sop in KEYS]


def dicom(name: str, series: str, sop: str) -> bytes:
    """One of pydicom's files under these UIDs."""
    dataset = pydicom.dcmread(get_testdata_file(name, download=False))
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.SOPInstanceUID = STUDY, series, sop
    dataset.file_meta.MediaStorageSOPInstanceUID = sop
    dataset.PatientID = "P1"
    dataset.preamble = bytes(128)  # as the service stores it
    target = BytesIO()
    dataset.save_as(target)
    return target.getvalue()


FILES = {sop: dicom("MR_small_RLE.dcm", series, sop) for series, sop in KEYS}


@pytest.fixture
def make_service() -> Iterator[Callable[..., Emulator]]:
    with ExitStack() as stack:
        yield lambda **options: stack.enter_context(serve_in_thread(EmulatorOptions(**options)))


@pytest.fixture
def service(make_service: Callable[..., Emulator]) -> Emulator:
    """A study of two series with two files and one."""
    running = make_service()
    for content in FILES.values():
        assert store_file(running.service, content, DEFAULT_PARTITION).failure is None
    return running


def retrieved(running: Emulator, to: Path, *uids: str, **how: Any) -> list[Retrieved]:
    names = dict(zip(("study", "series", "instance"), uids or (STUDY,), strict=False))
    texts = [f"dicom.base_url={running.base_url}", "dicom.retry_seconds=60", "dicom.connections=2"]
    return list(retrieve(load_settings(None, texts), RetrieveRequest(to=to, **names, **how)))


def outcomes(files: list[Retrieved]) -> list[tuple[str, str]]:
    return [(file.path, file.outcome) for file in files]


def left(folder: Path) -> list[str]:
    """All files below, hidden ones too."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_a_study_is_retrieved_file_by_file_as_stored(service: Emulator, tmp_path: Path) -> None:
    """Byte for byte, in the order of the UIDs, 0600 in folders 0700 whatever the umask."""
    before = os.umask(0)
    try:
        files = retrieved(service, tmp_path / "a" / "scans")
    finally:
        os.umask(before)
    assert outcomes(files) == [(path, "stored") for path in PATHS]
    stored = [tmp_path / "a" / "scans" / path for path in PATHS]
    assert all(path.read_bytes() == FILES[path.stem] for path in stored)
    assert {stat.S_IMODE(path.stat().st_mode) for path in stored} == {0o600}
    folders = {folder for path in stored for folder in path.parents if folder.is_relative_to(tmp_path / "a")}
    assert {stat.S_IMODE(folder.stat().st_mode) for folder in folders} == {0o700}
    assert left(tmp_path / "a" / "scans") == PATHS


def test_what_is_there_is_not_asked_for_again(service: Emulator, tmp_path: Path) -> None:
    """Only the file that is missing is."""
    retrieved(service, tmp_path)
    (tmp_path / PATHS[1]).unlink()
    service.service.requests.clear()
    assert [outcome for _, outcome in outcomes(retrieved(service, tmp_path))] == ["present", "stored", "present"]
    assert service.service.requests.count("GET /v2/studies/*/series/*/instances/*") == 1


def test_a_series_or_an_instance_alone(service: Emulator, tmp_path: Path) -> None:
    assert outcomes(retrieved(service, tmp_path, STUDY, "1.2.3.2")) == [(PATHS[2], "stored")]
    assert outcomes(retrieved(service, tmp_path, STUDY, *KEYS[0])) == [(PATHS[0], "stored")]
    assert left(tmp_path) == [PATHS[0], PATHS[2]]


@pytest.mark.parametrize(("picture", "suffix", "kind"), [("png", "png", "PNG"), ("jpeg", "jpg", "JPEG")])
def test_pictures(service: Emulator, tmp_path: Path, picture: Any, suffix: str, kind: str) -> None:
    """One of each instance, or of each frame that is asked for: the second is not there, and is an outcome."""
    files = retrieved(service, tmp_path, rendered=picture)
    assert outcomes(files) == [(path.replace("dcm", suffix), "stored") for path in PATHS]
    assert Image.open(BytesIO((tmp_path / files[0].path).read_bytes())).format == kind
    one, two = retrieved(service, tmp_path, STUDY, *KEYS[0], rendered=picture, frames=(1, 2))
    assert (one.path, one.outcome) == (f"{PATHS[0][:-4]}.frame-1.{suffix}", "stored")
    assert (two.outcome, two.reason) == (
        "failed", "the service does not have it, or it has no such frame or no pixels",
    )  # fmt: skip


def test_frames_as_they_are_stored(make_service: Callable[..., Emulator], tmp_path: Path) -> None:
    """By one request, named by their encoding; what is there is not asked for; one that is not there fails alone."""
    running = make_service()
    content = dicom("SC_rgb_rle_2frame.dcm", *KEYS[0])
    assert store_file(running.service, content, DEFAULT_PARTITION).failure is None
    stem = PATHS[0].removesuffix(".dcm")
    first, second = pydicom.encaps.generate_frames(pydicom.dcmread(BytesIO(content)).PixelData, number_of_frames=2)

    def numbers() -> list[str]:
        return [one.path.rpartition("/")[2] for one in running.service.requests.all() if "/frames/" in one.path]

    assert outcomes(retrieved(running, tmp_path, frames=(2,))) == [(f"{stem}.frame-2.rle", "stored")]
    assert [file.outcome for file in retrieved(running, tmp_path, frames=(1, 2))] == ["stored", "present"]
    assert numbers() == ["2", "1"]
    assert (tmp_path / f"{stem}.frame-1.rle").read_bytes() == first
    assert (tmp_path / f"{stem}.frame-2.rle").read_bytes() == second
    other = tmp_path / "other"
    assert [file.outcome for file in retrieved(running, other, frames=(1, 2, 3))] == ["stored", "stored", "failed"]
    assert numbers()[2:] == ["1,2,3", "1", "2", "3"]


def test_uncompressed_frames_are_raw(make_service: Callable[..., Emulator], tmp_path: Path) -> None:
    running = make_service()
    store_file(running.service, dicom("MR_small.dcm", *KEYS[0]), DEFAULT_PARTITION)
    assert [file.path[-12:] for file in retrieved(running, tmp_path, frames=(1,))] == [".frame-1.raw"]


def test_a_file_that_is_gone_is_an_outcome_among_others(service: Emulator, tmp_path: Path) -> None:
    """Deleted after it was listed: a 404 says so, and the others are stored."""
    service.service.faults.add(Fault(status=404, path=f".*/instances/{KEYS[1][1]}"))
    files = retrieved(service, tmp_path)
    assert outcomes(files) == [(PATHS[0], "stored"), (PATHS[1], "failed"), (PATHS[2], "stored")]
    assert files[1].reason == "the service does not have it"
    assert left(tmp_path) == [PATHS[0], PATHS[2]]


@pytest.mark.parametrize(
    "fault",
    [
        {"cut_body": 1000},
        {"truncate": 1000, "headers": {}},
        {"status": 200, "body": "<html>", "content_type": "text/html"},
        {"reset": True},
        {"status": 503},
    ],
    ids=["cut", "multipart cut", "html", "reset", "503"],
)
def test_a_damaged_answer_is_asked_for_again(service: Emulator, tmp_path: Path, fault: dict[str, Any]) -> None:
    """The file that appears is the whole one; frames come as multipart, whose end must be there."""
    path = ".*/frames/1" if "truncate" in fault else f".*/instances/{KEYS[0][1]}"
    service.service.faults.add(Fault(path=path, times=1, **fault))
    (file,) = retrieved(service, tmp_path, STUDY, *KEYS[0], frames=(1,) if "truncate" in fault else ())
    assert file.outcome == "stored"
    if "truncate" not in fault:
        assert (tmp_path / file.path).read_bytes() == FILES[KEYS[0][1]]
    assert left(tmp_path) == [file.path]


def test_a_file_that_keeps_failing_stops_no_other(service: Emulator, tmp_path: Path) -> None:
    """Nothing of it is left; another try may succeed."""
    service.service.faults.add(Fault(status=500, path=f".*/instances/{KEYS[1][1]}"))
    files = retrieved(service, tmp_path)
    assert [(file.outcome, file.passing) for file in files] == [("stored", False), ("failed", True), ("stored", False)]
    assert files[1].reason == "the service keeps failing for it; try again later"
    assert left(tmp_path) == [PATHS[0], PATHS[2]]


def test_a_service_that_fails_file_after_file_is_unavailable(
    service: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not asked for each of ten thousand files."""
    monkeypatch.setattr("dicom_etl.commands.retrieve.retrieve._FAILING_FILES", 2)
    monkeypatch.setattr("dicom_etl.commands.retrieve.retrieve._ATTEMPTS", 1)
    service.service.faults.add(Fault(status=500, path=r".*/instances/[\d.]+"))
    with pytest.raises(ServiceUnavailable, match="one file after another"):
        retrieved(service, tmp_path)
    assert left(tmp_path) == []


def test_no_role_ends_the_retrieve(make_service: Callable[..., Emulator], tmp_path: Path) -> None:
    running = make_service(tokens={"t": "nobody"})
    with pytest.raises(AccessDenied):
        retrieved(running, tmp_path)


def test_what_is_not_there_is_said(service: Emulator, tmp_path: Path) -> None:
    """65 for a study or a series without instances; an instance is an outcome."""
    with pytest.raises(DataError, match="the service has no such study; nothing was written"):
        retrieved(service, tmp_path, "1.9")
    with pytest.raises(DataError, match="the service has no such series; nothing was written"):
        retrieved(service, tmp_path, STUDY, "1.9")
    assert [file.outcome for file in retrieved(service, tmp_path, STUDY, "1.9", "1.9.9")] == ["failed"]


@pytest.mark.parametrize(
    ("what", "line"),
    [
        ({"study": "../../etc"}, "retrieve: STUDY is no UID"),
        ({"study": ".."}, "retrieve: STUDY is no UID"),
        ({"study": "1.2", "series": "1/2"}, "retrieve: SERIES is no UID"),
        ({"study": "1.2", "series": "1", "instance": "/1"}, "retrieve: INSTANCE is no UID"),
        ({"study": "1.2", "partition": ".."}, "--partition: expected"),
        ({"study": "1.2", "partition": "a/b"}, "--partition: expected"),
    ],
)
def test_names_that_could_leave_the_folder_are_refused(tmp_path: Path, what: dict[str, str], line: str) -> None:
    """Before anything is asked or made; the line does not hold them."""
    request = RetrieveRequest(to=tmp_path / "new", **what)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=line) as error:
        list(retrieve(load_settings(None, ["dicom.base_url=http://127.0.0.1:1"]), request))
    assert "etc" not in str(error.value)
    assert not (tmp_path / "new").exists()


def test_a_link_below_the_folder_is_not_followed_out_of_it(service: Emulator, tmp_path: Path) -> None:
    """Nothing is written where it leads; a hidden name that is a link is not followed either."""
    outside, inside = tmp_path / "outside", tmp_path / "inside"
    outside.mkdir()
    inside.mkdir()
    (inside / STUDY).symlink_to(outside)
    assert [file.outcome for file in retrieved(service, inside)] == ["failed"] * 3
    assert left(outside) == []
    other = tmp_path / "other"
    (other / STUDY / KEYS[0][0]).mkdir(parents=True)
    (other / STUDY / KEYS[0][0] / f".{KEYS[0][1]}.dcm.part").symlink_to(outside / "file")
    with pytest.raises(OSError, match="symbolic links"):
        retrieved(service, other, STUDY, *KEYS[0])
    assert left(outside) == []


def test_a_killed_retrieve_is_completed(service: Emulator, tmp_path: Path) -> None:
    """What it left under a hidden name is written over, and never taken for a file."""
    hidden = tmp_path / STUDY / KEYS[0][0] / f".{KEYS[0][1]}.dcm.part"
    hidden.parent.mkdir(parents=True)
    hidden.write_bytes(b"half" * 100_000)
    assert outcomes(retrieved(service, tmp_path)) == [(path, "stored") for path in PATHS]
    assert (tmp_path / PATHS[0]).read_bytes() == FILES[KEYS[0][1]]
    assert left(tmp_path) == PATHS


def test_a_retrieve_that_is_closed_early_leaves_whole_files_only(service: Emulator, tmp_path: Path) -> None:
    texts = [f"dicom.base_url={service.base_url}", "dicom.connections=1"]
    files = retrieve(load_settings(None, texts), RetrieveRequest(STUDY, tmp_path))
    assert next(files).outcome == "stored"
    files.close()  # type: ignore[attr-defined]
    found = left(tmp_path)
    assert PATHS[0] in found
    assert [(tmp_path / path).read_bytes() for path in found] == [FILES[Path(path).stem] for path in found]


def test_two_retrieves_do_not_share_a_folder(service: Emulator, tmp_path: Path) -> None:
    """75 at once, and the folder is free when the other has ended."""
    handle = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    with pytest.raises(AnotherWriter, match="another retrieve writes into this folder"):
        retrieved(service, tmp_path)
    os.close(handle)
    assert len(retrieved(service, tmp_path)) == 3


def test_a_partition_has_a_folder_of_its_own(make_service: Callable[..., Emulator], tmp_path: Path) -> None:
    """The same UIDs may be in two of them; without one the service refuses (64)."""
    running = make_service(partitions=True)
    for partition in ("clinic-a", "clinic-b"):
        running.service.create((partition, STUDY, *KEYS[0]), {}, partition.encode())
    for partition in ("clinic-a", "clinic-b"):
        assert outcomes(retrieved(running, tmp_path, partition=partition)) == [(f"{partition}/{PATHS[0]}", "stored")]
        assert (tmp_path / partition / PATHS[0]).read_text() == partition
    with pytest.raises(UsageError, match="name one by --partition"):
        retrieved(running, tmp_path)


def test_a_uid_of_the_search_that_is_none_is_no_name(make_service: Callable[..., Emulator], tmp_path: Path) -> None:
    """A service that answers with a path as a UID is not believed."""
    running = make_service()
    running.service.create(instance_key(STUDY, "1.2.3.1", "1.2.3.1.1"), {}, b"x")
    evil = b'[{"0020000E":{"vr":"UI","Value":["1.2.3.1"]},"00080018":{"vr":"UI","Value":["../../../x"]}}]'
    running.service.faults.add(Fault(path=".*/instances", rewrite=lambda _body: evil))
    with pytest.raises(Exception, match="whose UID is none"):
        retrieved(running, tmp_path / "to")
    assert left(tmp_path) == []


@pytest.mark.parametrize("text", ["0", "1,,2", "a", "", "1-3", "-1"])
def test_frames_are_numbers_from_one(text: str) -> None:
    with pytest.raises(UsageError, match="expected numbers from 1"):
        frame_numbers(text)
    assert frame_numbers("2, 1,2") == (2, 1)


def test_the_command_tells_each_file_and_ends_by_the_worst(
    service: Emulator, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An object a file; 65 when one is gone for good, 75 when another try may succeed."""

    def command(*words: str) -> int:
        address = f"dicom.base_url={service.base_url}"
        words = ("retrieve", STUDY, "--to", str(tmp_path), *words, "--set", address)
        return int(cli.main(list(words), prog_name="dicom-etl", standalone_mode=False) or 0)

    fault = service.service.faults.add(Fault(status=404, path=f".*/instances/{KEYS[2][1]}"))
    with pytest.raises(DataError, match="1 of 3 files could not be retrieved"):
        command("--json")
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(line["path"], line["outcome"]) for line in lines] == [
        (PATHS[0], "stored"), (PATHS[1], "stored"), (PATHS[2], "failed"),
    ]  # fmt: skip
    assert (lines[0]["bytes"], lines[2]["bytes"]) == (len(FILES[KEYS[0][1]]), None)
    service.service.faults.remove(fault.id)
    fault = service.service.faults.add(Fault(status=500, path=f".*/instances/{KEYS[2][1]}"))
    with pytest.raises(ServiceUnavailable, match="1 of 3 files could not be retrieved"):
        command()
    service.service.faults.remove(fault.id)
    capsys.readouterr()
    assert command() == 0
    assert capsys.readouterr().out.splitlines() == [
        f"present  {PATHS[0]}", f"present  {PATHS[1]}", f"stored  {PATHS[2]}",
    ]  # fmt: skip
