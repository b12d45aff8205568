"""``dicom_etl.open_instance``: from a row to its data set, by the lake or by the service."""

from __future__ import annotations

import base64
import logging
import re
import shutil
import subprocess
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from types import SimpleNamespace
from typing import Any

import httpx
import pandas as pd
import polars as pl
import pyarrow as pa
import pydicom
import pytest
from azure.core.exceptions import ClientAuthenticationError, HttpResponseError, ServiceRequestError
from fsspec.implementations.local import LocalFileSystem
from pyspark.sql import Row

import dicom_etl
from dicom_emulator.options import EmulatorOptions
from dicom_emulator.serve import Emulator, serve_in_thread
from dicom_etl import open_instance
from dicom_etl.commands.upload import upload
from dicom_etl.core.errors import AccessDenied, DataError, DicomEtlError, StorageError
from dicom_etl.core.settings.load import load_settings
from dicom_etl.core.settings.model import Settings
from dicom_etl.dicomweb.connect import connect
from dicom_etl.outputs import dicom_file
from dicom_etl.outputs.dicom_file import files_root
from support.broken import Mutant, assert_caught, checks

TEST_FILES = Path(pydicom.__file__).parent / "data" / "test_files"
STORED = ("CT_small.dcm", "MR_small.dcm", "rtplan.dcm")
CT_SOP = "1.3.6.1.4.1.5962.1.1.1.1.1.20040119072730.12322"


@dataclass(frozen=True)
class Site:
    """A service with its files, and the rows that its feed gives."""

    emulator: Emulator
    files: Path
    partition: str | None

    def settings(self, *overrides: str) -> Settings:
        given = [f"dicom.base_url={self.emulator.base_url}", f"files.root={self.files}", "dicom.retry_seconds=1"]
        return load_settings(None, [*given, *overrides], {}, self.files)

    def rows(self) -> dict[str, dict[str, Any]]:
        """The newest row of each living instance, by SOP class and instance UID."""
        rows = httpx.get(f"{self.emulator.base_url}/v2/changefeed", params={"limit": 200}).json()
        living = [row for row in rows if row["state"] == "Current"]
        return {row["sopInstanceUid"]: {**row, "filePath": row.get("filePath")} for row in living}

    def retrieved(self) -> int:
        """How often an instance was asked for by WADO-RS."""
        asked = [request.path for request in self.emulator.service.requests.all() if request.method == "GET"]
        return sum("/instances/" in path for path in asked)


@pytest.fixture
def make_site(tmp_path: Path) -> Iterator[Callable[..., Site]]:
    """A service with three instances; ``partition``: of a service that has partitions. Other options by name."""
    with ExitStack() as stack:

        def make(partition: str | None = None, lake: bool = True, **options: Any) -> Site:
            files = tmp_path / "files"
            files.mkdir()
            chosen = EmulatorOptions(lake=files if lake else None, partitions=partition is not None, **options)
            site = Site(stack.enter_context(serve_in_thread(chosen)), files, partition)
            with warnings.catch_warnings(action="ignore"):
                # One by one, so that the names of the files are known.
                done = list(
                    upload(
                        site.settings("dicom.connections=1"),
                        [TEST_FILES / name for name in STORED],
                        partition=partition,
                    )
                )
            assert [one.outcome.kind.startswith("stored") for one in done] == [True] * 3
            return site

        yield make


@pytest.fixture
def site(make_site: Callable[..., Site]) -> Site:
    """A service with a data lake and no partitions."""
    return make_site()


def ct_row(site: Site, **changes: Any) -> dict[str, Any]:
    """The row of CT_small.dcm; that all three are there is asserted first."""
    rows = site.rows()
    assert len(rows) == 3
    return {**rows[CT_SOP], **changes}


def assert_ct(dataset: pydicom.Dataset) -> None:
    assert (dataset.SOPInstanceUID, dataset.Modality, dataset.Rows) == (CT_SOP, "CT", 128)
    assert dataset.pixel_array[64, 64:67].tolist() == [1928, 1864, 1774]


# -- where the file comes from


def test_the_file_is_read_from_the_lake(site: Site) -> None:
    """A row's file below files.root becomes a data set with its pixels, and the service is not asked."""
    row = ct_row(site)
    assert row["filePath"] == "AHDS/emulator/dicom/dicom/Microsoft.Default/132_1.dcm"
    assert_ct(open_instance(row, site.settings()))
    assert site.retrieved() == 0


FORMS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "dict": dict,
    "Spark Row": lambda row: Row(**row),
    "pandas Series": pd.Series,
    "pandas iterrows": lambda row: next(pd.DataFrame([row]).iterrows())[1],
    "pandas itertuples": lambda row: next(pd.DataFrame([row]).itertuples()),
    "pandas frame": lambda row: pd.DataFrame([row], index=[7]),
    "Polars named row": lambda row: pl.DataFrame([row]).row(0, named=True),
    "Polars frame": lambda row: pl.DataFrame([row]),
    "Arrow table": lambda row: pa.Table.from_pylist([row]),
    "Arrow record batch": lambda row: pa.RecordBatch.from_pylist([row]),
    "Arrow scalar": lambda row: pa.array([row])[0],
}


@pytest.mark.parametrize("form", FORMS)
def test_rows_of_every_kind_are_taken(site: Site, form: str) -> None:
    """Each kind of row that docs/researchers.md names opens its instance, whatever other columns it has."""
    row = {name: value for name, value in ct_row(site).items() if name != "metadata"}
    assert len(row) > 5
    assert_ct(open_instance(FORMS[form](row), site.settings()))


@pytest.mark.parametrize("form", FORMS)
def test_a_row_of_any_kind_says_which_column_it_lacks(site: Site, form: str) -> None:
    """The column is named, and no value of the row."""
    row = {name: value for name, value in ct_row(site).items() if name not in ("metadata", "filePath", "partitionName")}
    said = outcome(site, FORMS[form](row))
    assert said == "UsageError: open_instance: the row lacks the columns partitionName, filePath: select them, too"


NO_ROWS: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "Polars lazy frame": (lambda row: pl.LazyFrame([row]), "this frame is not computed yet: collect() it first"),
    "path": (lambda row: row["filePath"], "give the row of the table instance, not the path of its file"),
    "pathlib path": (lambda row: Path(row["filePath"]), "give the row of the table instance, not the path"),
    "pair of iterrows": (lambda row: next(pd.DataFrame([row]).iterrows()), "iterrows() gives pairs of index and row:"),
    "plain tuple": (lambda row: tuple(row.values()), "a plain tuple has no names of columns: give a dict"),
    "one column lacks": (lambda row: _without(row, "filePath"), "the row lacks the column filePath: select it, too"),
}


def _without(row: dict[str, Any], column: str) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != column}


@pytest.mark.parametrize("form", NO_ROWS)
def test_what_is_no_row_says_what_to_give(site: Site, form: str) -> None:
    """What a notebook has at hand beside a row: each with what to do, and nothing is asked for."""
    make, words = NO_ROWS[form]
    said = outcome(site, make(_without(ct_row(site), "metadata")))
    assert said.startswith(f"UsageError: open_instance: {words}")
    assert site.retrieved() == 0


def test_without_settings_the_variable_is_named(site: Site) -> None:
    """Where nothing says where files or the service are, also with strict: 78, and what to set."""
    row = ct_row(site)
    nothing = load_settings(None, ["dicom.base_url="], {}, site.files)
    for strict in (False, True):
        said = outcome(site, row, nothing, strict=strict)
        assert said.startswith("ConfigurationError: neither files.root, lake.root nor dicom.base_url is set")
        assert "set DICOM_ETL_CONFIG to your settings file" in said


@pytest.mark.parametrize("frame", [pd.DataFrame, pl.DataFrame, pa.Table.from_pylist])
def test_a_frame_of_several_rows_is_refused(site: Site, frame: Callable[..., Any]) -> None:
    row = {name: value for name, value in ct_row(site).items() if name != "metadata"}
    assert outcome(site, frame([row])) == "opened"
    said = outcome(site, frame([row, row]))
    assert said == "UsageError: open_instance: it opens one row, and this frame has 2: give one of them"


def test_all_that_a_service_holds_opens(site: Site) -> None:
    """Every row of the feed opens by the lake, and by the service when the folder is another one."""
    rows = site.rows().values()
    for settings in (site.settings(), site.settings(f"files.root={site.files / 'elsewhere'}")):
        found = sorted(open_instance(row, settings).Modality for row in rows)
        assert found == ["CT", "MR", "RTPLAN"]
    assert site.retrieved() == 3


def test_the_header_alone_can_be_read(site: Site) -> None:
    """With stop_before_pixels there are attributes and no pixel data, by the lake and by the service."""
    row = ct_row(site)
    for given in (row, {**row, "filePath": None}):
        dataset = open_instance(given, site.settings(), stop_before_pixels=True)
        assert (dataset.Modality, "PixelData" in dataset) == ("CT", False)
    assert site.retrieved() == 1


@pytest.mark.parametrize("path", [None, "", float("nan"), "AHDS/emulator/dicom/dicom/Microsoft.Default/000_9.dcm"])
def test_without_a_file_in_the_lake_the_service_is_asked(site: Site, path: object) -> None:
    """A null filePath (as pandas has it, too), and one where no file lies, lead to WADO-RS."""
    row = ct_row(site, filePath=path)
    assert_ct(open_instance(row, site.settings()))
    assert site.retrieved() == 1


def test_a_row_that_is_behind_its_update_gets_the_new_file(site: Site) -> None:
    """After two bulk updates the file of the first is gone: the row of then opens, with today's attributes."""

    def update(name: str) -> None:
        change = {"00100010": {"vr": "PN", "Value": [{"Alphabetic": name}]}}
        body = {"studyInstanceUids": [ct_row(site)["studyInstanceUid"]], "changeDataset": change}
        httpx.post(f"{site.emulator.base_url}/v2/studies/$bulkUpdate", json=body).raise_for_status()

    update("First^Update")
    row = ct_row(site)
    update("Second^Update")
    assert not (site.files / row["filePath"]).exists()
    assert open_instance(row, site.settings()).PatientName == "Second^Update"
    asked = site.retrieved()
    gone = "updated or deleted since the row was written, .* only an export made before keeps this one"
    with pytest.raises(DataError, match=gone):
        open_instance(row, site.settings(), strict=True)
    with pytest.raises(DataError, match="another version than the row's, which strict refuses"):
        open_instance({**row, "filePath": None}, site.settings(), strict=True)
    assert open_instance(ct_row(site), site.settings(), strict=True).PatientName == "Second^Update"
    assert asked == site.retrieved() == 1


def test_a_service_without_a_data_lake_gives_its_files(make_site: Callable[..., Site]) -> None:
    """Rows without filePath open by WADO-RS, with neither files.root nor lake.root set."""
    site = make_site(lake=False)
    row = ct_row(site)
    assert row["filePath"] is None
    assert_ct(open_instance(row, site.settings("files.root=")))


def denied(error: Exception) -> Callable[[str], Any]:
    """A filesystem on which every opening ends with this error."""

    def refuse(*_: Any, **__: Any) -> Any:
        raise error

    return lambda place: (SimpleNamespace(cat_file=refuse, open=refuse), place)


def forbidden() -> HttpResponseError:
    error = HttpResponseError("patient 4711")
    error.status_code = 403
    return error


@pytest.mark.parametrize("stop_before_pixels", [False, True])
@pytest.mark.parametrize(
    "error",
    [PermissionError(13, "no"), forbidden(), ClientAuthenticationError("no"), AccessDenied("no")],
    ids=lambda error: type(error).__name__,
)
def test_without_the_right_to_the_lake_the_service_is_asked(
    site: Site, error: Exception, stop_before_pixels: bool
) -> None:
    """Whatever a folder, an account or our identity refuses with, WADO-RS gives the instance."""
    row = ct_row(site)
    how = {"stop_before_pixels": stop_before_pixels, "filesystem_of": denied(error)}
    assert open_instance(row, site.settings(), **how).SOPInstanceUID == CT_SOP
    assert site.retrieved() == 1


@pytest.mark.parametrize("error", [OSError(5, "EIO"), ServiceRequestError("unreachable"), OSError()])
def test_a_storage_that_fails_is_said(site: Site, error: Exception) -> None:
    """What neither is missing nor refused ends with 74, and the service is not asked in its place."""
    row = ct_row(site)
    with pytest.raises(StorageError, match=r"^files.root: the storage failed"):
        open_instance(row, site.settings(), filesystem_of=denied(error))
    assert site.retrieved() == 0


def test_an_address_goes_to_the_lakes_storage(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A root with :// is opened by dicom_etl.remote.storage, with filePath behind the container."""
    row = ct_row(site)
    asked: list[str] = []

    def storage_of(_settings: Settings) -> Any:
        def filesystem(place: str) -> tuple[LocalFileSystem, str]:
            asked.append(place)
            return LocalFileSystem(), str(site.files)

        return SimpleNamespace(filesystem=filesystem)

    monkeypatch.setattr(dicom_file, "storage_of", storage_of)
    root = "abfss://dicom@account.dfs.core.windows.net"
    assert_ct(open_instance(row, site.settings(f"files.root={root}")))
    assert asked == [root]
    assert site.retrieved() == 0


class Account(BaseHTTPRequestHandler):
    """A storage account with one file, or one that refuses everything: enough of the protocol for reading a blob."""

    protocol_version = "HTTP/1.1"
    status = 200
    name = ""
    content = b""

    def log_message(self, *_: Any) -> None: ...

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def _answer(self, *, with_body: bool) -> None:
        there = self.status == 200 and self.path == f"/account/dicom/{self.name}"
        first, _, last = self.headers.get("x-ms-range", "bytes=0-").removeprefix("bytes=").partition("-")
        part = self.content[int(first) : int(last or len(self.content)) + 1] if there else b"<Error/>"
        refusal = 404 if self.status == 200 else self.status
        self.send_response((206 if with_body else 200) if there else refusal)
        self.send_header("Content-Length", str(len(part)))
        if there:
            self.send_header("Content-Range", f"bytes {first}-{int(first) + len(part) - 1}/{len(self.content)}")
            self.send_header("ETag", '"1"')
            self.send_header("Last-Modified", "Sat, 01 Jan 2022 00:00:00 GMT")
            self.send_header("x-ms-blob-type", "BlockBlob")
        self.end_headers()
        if with_body:
            self.wfile.write(part)


@pytest.fixture
def account(site: Site, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[type[Account], Settings]]:
    """An account that has the CT's file under its filePath, and settings that name its container, by a real socket."""
    row = ct_row(site)
    given = {"name": row["filePath"], "content": (site.files / row["filePath"]).read_bytes()}
    handler = type("OneFile", (Account,), given)
    monkeypatch.setenv("STORAGE_KEY", base64.b64encode(b"key").decode())
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        settings = site.settings(
            "files.root=abfss://dicom@account.dfs.core.windows.net",
            f"storage.endpoint=http://127.0.0.1:{server.server_port}",
            "storage.auth=key",
            "storage.key_env=STORAGE_KEY",
        )
        yield handler, settings
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("stop_before_pixels", [False, True])
@pytest.mark.parametrize(
    ("status", "found", "retrieved"),
    [(200, "opened", 0), (401, "opened", 1), (403, "opened", 1), (404, "opened", 1), (409, "StorageError", 0)],
)
def test_a_file_in_an_account_is_read_by_adlfs(
    site: Site,
    account: tuple[type[Account], Settings],
    stop_before_pixels: bool,
    status: int,
    found: str,
    retrieved: int,
) -> None:
    """Read where it may be; where it is missing or refused the service is asked; what else fails is said."""
    handler, settings = account
    handler.status = status
    row = ct_row(site)
    said = outcome(site, row, settings, stop_before_pixels=stop_before_pixels)
    assert said.partition(":")[0] == found
    assert site.retrieved() == retrieved


@pytest.mark.parametrize(
    ("files", "lake", "root"),
    [
        ("/files", "/lake", "/files"),
        ("", "/lake/tables", "/lake/tables"),
        ("", "abfss://c@a.dfs.core.windows.net/tables/x", "abfss://c@a.dfs.core.windows.net"),
        ("abfss://c@a.dfs.core.windows.net/sub", "/lake", "abfss://c@a.dfs.core.windows.net/sub"),
        ("", "", ""),
    ],
)
def test_filepath_starts_at_the_lakes_container(files: str, lake: str, root: str) -> None:
    """Without files.root it is the container of lake.root, or its folder (docs/settings.md)."""
    settings = load_settings(None, [f"files.root={files}", f"lake.root={lake}"], {}, Path("/nonexistent"))
    assert files_root(settings) == root


# -- partitions


@pytest.mark.parametrize(
    ("partition", "part"),
    [(None, "/v2/studies/"), ("clinic-2", "/v2/partitions/clinic-2/"), ("Microsoft.Default", "/v2/partitions/Mic")],
)
def test_the_address_has_the_partition_where_the_service_has_any(
    make_site: Callable[..., Site], partition: str | None, part: str
) -> None:
    """A service without partitions refuses a partition in the address, one with them demands it."""
    site = make_site(partition)
    row = ct_row(site, filePath=None)
    assert row["partitionName"] == (partition or "Microsoft.Default")
    assert_ct(open_instance(row, site.settings()))
    (path,) = [one.path for one in site.emulator.service.requests.all() if "/instances/" in one.path]
    assert path.startswith(part)


def test_a_row_without_a_partition_is_of_the_default_one(site: Site) -> None:
    """The template wrote null partitions."""
    assert_ct(open_instance(ct_row(site, filePath=None, partitionName=None), site.settings()))


def test_a_given_client_is_used_and_left_open(site: Site) -> None:
    """For many rows one client does."""
    row = ct_row(site, filePath=None)
    with connect(site.settings().dicom) as client:
        for _ in range(2):
            assert_ct(open_instance(row, site.settings("dicom.base_url="), client=client))
        assert client.requests == 4  # each asks for the partitions, too


# -- what is refused: one check for each guard, which must fail when the guard is broken


def outcome(site: Site, row: Any, settings: Settings | None = None, **how: Any) -> str:
    """`opened`, or the error and what it says: neither instance nor file, alone and with all that it is chained to."""
    try:
        open_instance(row, settings or site.settings(), **how)
    except DicomEtlError as error:
        said = f"{type(error).__name__}: {error}"
        hidden = [CT_SOP, "1.3.6.1", ".dcm", "AHDS", str(site.files), "1CT1"]
        chain = traceback.format_exception(error)
        # The lines of our own code apart, which stand under an indented `File`.
        told = [line for line in chain if not line.startswith("  ")]
        assert not [text for text in hidden for line in told if text in line]
        return said
    except Exception as error:  # noqa: BLE001 - what a broken guard lets through
        return f"foreign {type(error).__name__}"
    return "opened"


def check_that_paths_stay_within(site: Site) -> None:
    row = ct_row(site)
    outside = site.files.parent / "outside.dcm"
    shutil.copy(TEST_FILES / "CT_small.dcm", outside)
    assert outcome(site, row) == "opened"
    beside = ["../outside.dcm", "AHDS/../../outside.dcm", "AHDS/./../../outside.dcm", "..\\outside.dcm"]
    for path in (*beside, str(outside), "/" + row["filePath"], row["filePath"] + "\0"):
        said = outcome(site, {**row, "filePath": path})
        assert said.startswith("DataError: filePath leads out of files.root"), "a path out of the root was followed"
    assert site.retrieved() == 0


def check_that_health_files_are_no_data(site: Site) -> None:
    row = ct_row(site)
    folder = "AHDS/emulator/dicom/dicom/healthCheck"
    (site.files / folder).mkdir()
    # Even one that would pass for the instance; and a customer's file, which is data whatever folder it lies in.
    for name in ("health.txt", "health0b7c2c5e-5f6e-4e0c-8f7c-111111111111.txt", "healthy.dcm"):
        shutil.copy(TEST_FILES / "CT_small.dcm", site.files / folder / name)
    assert outcome(site, {**row, "filePath": f"{folder}/healthy.dcm"}) == "opened"
    for name in ("health.txt", "health0b7c2c5e-5f6e-4e0c-8f7c-111111111111.txt"):
        said = outcome(site, {**row, "filePath": f"{folder}/{name}"})
        assert said.startswith("DataError: filePath names a health-check file"), "a health-check file was taken"


def check_that_other_instances_are_refused(site: Site) -> None:
    rows = site.rows()
    assert len(rows) == 3
    assert outcome(site, rows[CT_SOP]) == "opened"
    other = next(row for sop, row in rows.items() if sop != CT_SOP)
    # The same SOP instance UID in another series, or study, is another instance.
    for changes in (
        {"filePath": other["filePath"]},
        {"seriesInstanceUid": other["seriesInstanceUid"]},
        {"studyInstanceUid": other["studyInstanceUid"]},
    ):
        said = outcome(site, {**rows[CT_SOP], **changes})
        assert said.startswith("DataError: the file holds another instance"), "another instance was opened"


def check_that_spoilt_files_are_refused(site: Site) -> None:
    row = ct_row(site)
    path = site.files / row["filePath"]
    whole = path.read_bytes()
    assert outcome(site, row) == "opened"
    for content in (b"", b"Test content.", whole[:140], whole[:400], whole[128:], whole[: len(whole) // 2], whole[:-1]):
        path.write_bytes(content)
        said = outcome(site, row)
        assert said.startswith("DataError: the file is not DICOM, or cannot be read"), (
            "a spoilt file has no named error"
        )


def check_that_rows_name_an_instance(site: Site) -> None:
    row = ct_row(site)
    assert outcome(site, row) == "opened"
    for column in ("studyInstanceUid", "seriesInstanceUid", "sopInstanceUid"):
        said = outcome(site, {**row, column: None})
        assert said.startswith("DataError: the row names no instance"), "a null UID was used"


def check_that_default_partitions_are_not_named(site: Site) -> None:
    row = ct_row(site, filePath=None)
    assert row["partitionName"] == "Microsoft.Default"
    assert outcome(site, row) == "opened", "a service without partitions was asked for one"


def check_that_the_padding_of_rows_is_stripped(site: Site) -> None:
    row = ct_row(site)
    padded = {**row, "sopInstanceUid": CT_SOP + "\0", "studyInstanceUid": row["studyInstanceUid"] + " "}
    for given in (padded, {**padded, "filePath": None}):
        assert outcome(site, given) == "opened", "padding was taken for another instance"


def check_that_a_missing_file_leads_to_the_service(site: Site) -> None:
    assert outcome(site, ct_row(site, filePath="gone.dcm")) == "opened", "a missing file ended the reading"
    assert site.retrieved() == 1


MUTANTS = [
    Mutant("paths stay below the root", check_that_paths_stay_within, dicom_file, "_refuse_strange",
           lambda _path: None, "a path out of the root was followed"),
    Mutant("health-check files are no data", check_that_health_files_are_no_data, dicom_file, "_HEALTH_CHECK",
           re.compile("(?!)"), "a health-check file was taken"),
    Mutant("the file is the row's", check_that_other_instances_are_refused, dicom_file, "_uids_of",
           lambda _dataset: Anything(), "another instance was opened"),
    Mutant("pydicom's errors get a name", check_that_spoilt_files_are_refused, dicom_file, "_UNREADABLE",
           (ZeroDivisionError,), "a spoilt file has no named error"),
    Mutant("a null UID is no UID", check_that_rows_name_an_instance, dicom_file, "_text",
           lambda value: value or "1.2.3", "a null UID was used"),
    Mutant("the default partition is not named", check_that_default_partitions_are_not_named, dicom_file,
           "_segment", lambda _client, partition: partition, "a service without partitions was asked for one"),
    Mutant("padding is stripped", check_that_the_padding_of_rows_is_stripped, dicom_file, "_PADDING", "\t",
           "padding was taken for another instance"),
    Mutant("a missing file is no failure", check_that_a_missing_file_leads_to_the_service, dicom_file,
           "_fallback_reason", lambda _error: None, "a missing file ended the reading"),
]  # fmt: skip


class Anything:
    """Equal to whatever it is compared with."""

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        return True


@pytest.mark.parametrize("check", checks(MUTANTS), ids=lambda check: check.__name__)
def test_each_guard_holds(site: Site, check: Callable[[Site], None]) -> None:
    """Paths out of the root, health-check files, other instances, spoilt files and halved rows are named errors."""
    check(site)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.rule)
def test_each_broken_guard_is_caught(site: Site, mutant: Mutant) -> None:
    """The checks above fail for a variant without the guard."""
    assert_caught(mutant, site)


@pytest.mark.parametrize(
    ("column", "value"),
    [("partitionName", ".."), ("studyInstanceUid", ".."), ("sopInstanceUid", "1..2/.."), ("seriesInstanceUid", "1/2")],
)
def test_what_is_no_uid_does_not_become_part_of_an_address(site: Site, column: str, value: str) -> None:
    """`..` would be folded into another address of the service, with our token."""
    row = {**ct_row(site), "filePath": None, column: value}

    assert outcome(site, row).startswith("DataError: the row names no instance: a UID is not one")
    assert site.retrieved() == 0


def test_a_row_without_a_column_is_a_wrong_call(site: Site) -> None:
    """A dict or a Row that lacks one of the five columns says which to select."""
    row = ct_row(site)
    for column in ("partitionName", "studyInstanceUid", "seriesInstanceUid", "sopInstanceUid", "filePath"):
        less = {name: value for name, value in row.items() if name not in (column, "metadata")}
        for form in (less, Row(**less)):
            said = outcome(site, form)
            assert said == f"UsageError: open_instance: the row lacks the column {column}: select it, too"


def test_a_tuple_without_names_is_told_what_to_give(site: Site) -> None:
    """It holds all columns, and nothing says which value is which."""
    row = ct_row(site)
    for form in (tuple(row.values()), list(row.values())):
        assert outcome(site, form).startswith("UsageError: open_instance: a plain tuple has no names of columns: give")


def test_an_instance_that_is_nowhere_is_said(site: Site) -> None:
    """Deleted since the table was written: neither the lake nor the service has it."""
    row = ct_row(site)
    site.emulator.service.delete("Microsoft.Default", row["studyInstanceUid"])
    assert not (site.files / row["filePath"]).exists()
    said = outcome(site, row)
    assert said.startswith("DataError: there is no such file below files.root, and the service has no such instance")


def test_without_file_and_address_the_reason_is_said(site: Site) -> None:
    """Who has neither a file nor the service's address learns what to set."""
    row = ct_row(site, filePath=None)
    said = outcome(site, row, site.settings("dicom.base_url="))
    assert said.startswith("ConfigurationError: the row has no filePath, and dicom.base_url is not set")


def test_a_file_that_is_missing_is_said_before_the_service_that_is_not_there(site: Site) -> None:
    """As after the demo, whose service has stopped: the reader learns first that it is the file."""
    row = ct_row(site, filePath=None)
    said = outcome(site, row, site.settings("dicom.base_url=http://127.0.0.1:1"))
    assert said.startswith("ServiceUnavailable: the row has no filePath, so the service was asked: ")
    assert "no service runs there now" in said


def test_without_a_role_at_the_service_access_is_denied(make_site: Callable[..., Site]) -> None:
    """The service's refusal is an AccessDenied, not a missing instance."""
    site = make_site()
    row = ct_row(site, filePath=None)
    site.emulator.service.tokens.issue("nobody")
    assert "does not accept the token (401)" in outcome(site, row)


def test_a_notebook_that_logs_everything_logs_no_uid(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    """httpx alone, the broken twin, logs each address at INFO; a level that somebody has set is left alone."""
    for name in ("httpx", "httpcore", "azure"):
        caplog.set_level(logging.NOTSET, logger=name)
    caplog.set_level(logging.INFO)
    row = ct_row(site, filePath=None)
    assert [record.name for record in caplog.records] == ["httpx"]
    caplog.clear()
    assert_ct(open_instance(row, site.settings()))
    assert site.retrieved() == 1
    assert caplog.records == []
    logging.getLogger("httpx").setLevel(logging.INFO)
    assert_ct(open_instance(row, site.settings()))
    assert "httpx" in {record.name for record in caplog.records}


def test_settings_are_those_of_the_command_line(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without settings they come from files and the environment."""
    row = ct_row(site)
    monkeypatch.chdir(site.files)
    monkeypatch.setenv("DICOM_ETL__FILES__ROOT", str(site.files))
    assert_ct(open_instance(row))
    assert site.retrieved() == 0


def test_the_package_is_light_until_it_is_asked() -> None:
    """`import dicom_etl` loads nothing of ours; the function comes with its first use; others are none."""
    code = """
import sys, dicom_etl
print(sorted(name for name in sys.modules if name.split(".")[0] in ("dicom_etl", "pydicom", "httpx", "pyspark")))
print("open_instance" in dir(dicom_etl), dicom_etl.open_instance.__module__, "pyspark" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("['dicom_etl']\nTrue dicom_etl.outputs.dicom_file False\n", "")
    with pytest.raises(AttributeError, match="no attribute 'open_instances'"):
        dicom_etl.open_instances  # noqa: B018
    with suppress(ImportError):
        from dicom_etl import no_such_thing  # noqa: F401

        pytest.fail("a name that is nothing was imported")
