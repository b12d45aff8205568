"""Checks of the lake's storage: whether we may do there what a run does, and whose lake lies there."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from azure.core.exceptions import AzureError, ClientAuthenticationError, ResourceNotFoundError
from fsspec import AbstractFileSystem
from fsspec.asyn import sync
from fsspec.implementations.local import LocalFileSystem

from dicom_etl.commands.doctor.check import CheckResult, run_check
from dicom_etl.core.errors import (
    AccessDenied,
    ConfigurationError,
    DicomEtlError,
    ServiceUnavailable,
    StorageError,
    UnknownIdentity,
)
from dicom_etl.core.settings.model import Settings
from dicom_etl.lake.delta.errors import FAILURES, storage_error
from dicom_etl.lake.lake_id import service_fingerprint
from dicom_etl.lake.open import WITHOUT_LAKE, find_lake, refuse_incomplete
from dicom_etl.lake.paths import LakePaths
from dicom_etl.remote.storage import FilesystemOf
from dicom_etl.remote.uri import is_remote, parse_abfs_uri

ROLE = "Storage Blob Data Contributor"
# Less than this is a warning: one busy run may write as much.
_LEAST_FREE = 1 << 30
_CONTENT = b"dicom-etl doctor\n"


def storage_findings(
    settings: Settings, paths: LakePaths, filesystem_of: FilesystemOf, nonce: str
) -> Iterator[CheckResult]:
    """What is to be said of the lake's folders; ``nonce`` makes the names of the probe files nobody else's."""
    root = run_check("lake.root", partial(_usable, "lake.root", paths.root, filesystem_of, nonce))
    yield root
    if root.state == "ok" and not paths.storage.endpoint:
        yield from _namespace("lake.root", paths.root, filesystem_of)
    if paths.private_root != paths.root:
        key = "lake.private_root"
        yield run_check(key, partial(_usable, key, paths.private_root, filesystem_of, nonce))
    if root.exit_code == ServiceUnavailable.exit_code:
        yield CheckResult("lake", "warning", "not checked: the storage does not answer")
        return
    yield run_check("lake", partial(_lake, settings, paths))
    if settings.files.root:
        yield run_check("files.root", partial(_files, settings.files.root, filesystem_of))


def _usable(key: str, uri: str, filesystem_of: FilesystemOf, nonce: str) -> CheckResult:
    try:
        fs, folder = filesystem_of(uri)
    except (RuntimeError, ValueError, AzureError) as error:
        raise StorageError(f"{key}: the storage cannot be opened ({type(error).__name__}); check {key}") from error
    probe(key, fs, folder, nonce)
    if isinstance(fs, LocalFileSystem) and (free := _free_bytes(folder)) < _LEAST_FREE:
        text = f"{free / (1 << 30):.1f} GiB are free there: make room, since a run on a full disk ends with 74"
        return CheckResult(key, "warning", text)
    return CheckResult(key, "ok", "a file could be created once, written, read, renamed and deleted there")


def _free_bytes(folder: str) -> int:
    """The free space of the disk that the folder lies on, or will lie on."""
    path = Path(folder)
    return shutil.disk_usage(next(part for part in (path, *path.parents) if part.exists())).free


def probe(key: str, fs: AbstractFileSystem, folder: str, nonce: str) -> None:
    """Do to a file of our own in ``folder`` all that a run does to files, and leave nothing behind.

    Raises AccessDenied when the storage refuses our identity, StorageError for whatever else fails; both say which
    step.
    """
    first, second = (f"{folder.rstrip('/')}/_doctor.{nonce}{end}" for end in ("", ".renamed"))
    made = _make_missing(key, fs, folder)
    # An account that did not even create it would let us wait as long for each deletion.
    left = [first] if isinstance(fs, LocalFileSystem) else []
    try:
        with _step(key, "created", fs):
            _create(fs, first)
        left = [first, second]
        _refuses_twice(key, fs, first)
        with _step(key, "written", fs):
            fs.pipe_file(first, _CONTENT)
        with _step(key, "read", fs):
            content = fs.cat_file(first)
        if content != _CONTENT:
            raise StorageError(f"{key}: a file read back is not what was written; see to this storage")
        with _step(key, "renamed", fs):
            fs.mv(first, second)
        with _step(key, "deleted", fs):
            fs.rm_file(second)
    finally:
        _tidy(fs, left, made)


def _namespace(key: str, uri: str, filesystem_of: FilesystemOf) -> Iterator[CheckResult]:
    """Whether an account of Azure has a hierarchical namespace, where it tells; OneLake has one, a disk needs none.

    Of the shared root, where Spark merges.
    """
    if not is_remote(uri) or parse_abfs_uri(uri).suffix != "core.windows.net":
        return
    fs, _ = filesystem_of(uri)
    try:
        hierarchical = sync(fs.loop, fs.service_client.get_account_information).get("is_hns_enabled")
    except (AzureError, OSError, AttributeError):
        hierarchical = None
    look = f"see in the Azure portal that the account of {key} has one"
    if hierarchical is None:
        # Documented for an account's key and for a SAS only: an identity is refused, as a rule.
        text = f"cannot be told: the storage does not say to us whether it has a hierarchical namespace; {look}"
        yield CheckResult("namespace", "warning", text)
    elif hierarchical:
        yield CheckResult("namespace", "ok", "the account has a hierarchical namespace: a rename there is atomic")
    else:
        text = f"the account of {key} has no hierarchical namespace, and so no atomic rename, by which Spark commits"
        yield CheckResult("namespace", "warning", f"{text}: keep the lake in one that has it")


def _create(fs: AbstractFileSystem, path: str) -> None:
    with fs.open(path, "xb") as opened:
        opened.write(b"{}")


def _refuses_twice(key: str, fs: AbstractFileSystem, path: str) -> None:
    """A claim is a file that exactly one process can create."""
    with _step(key, "created", fs):
        try:
            _create(fs, path)
        except FileExistsError:
            return
    raise StorageError(
        f"{key}: one file could be created twice, so two runs could write at once; keep the lake on storage that "
        "creates exclusively (a local disk, NFS 3 or newer, Azure Data Lake Storage)"
    )


@contextmanager
def _step(key: str, what: str, fs: AbstractFileSystem) -> Iterator[None]:
    """Errors of the storage as ours, with the step that failed."""
    try:
        yield
    except FAILURES as error:
        named = _local_error(error, key) if isinstance(fs, LocalFileSystem) else _remote_error(error, key)
        raise type(named)(f"{named} (a file cannot be {what} there)") from error


def _local_error(error: Exception, key: str) -> DicomEtlError:
    if isinstance(error, NotADirectoryError | FileExistsError):
        return ConfigurationError(f"{key}: is no folder; name one that we may write")
    return storage_error(error, key, writing=True)


def _remote_error(error: Exception, key: str) -> DicomEtlError:
    below = error.__cause__ or error
    if isinstance(below, FileNotFoundError | ResourceNotFoundError):
        return ConfigurationError(f"{key}: there is no such container; make it, or correct the address")
    if isinstance(below, ClientAuthenticationError) and below.status_code is None:
        return AccessDenied(
            f"{key}: no Azure identity gave a token for the storage: sign in (az login), or give this machine a "
            f"managed identity or a service principal, with the role {ROLE} on the container"
        )
    named = storage_error(error, key, writing=True)
    if isinstance(named, UnknownIdentity):
        return named
    if isinstance(named, AccessDenied) or isinstance(below, PermissionError):
        return AccessDenied(f"{key}: the storage refuses our identity; assign it the role {ROLE} on the container")
    return named


def _make_missing(key: str, fs: AbstractFileSystem, folder: str) -> list[str]:
    """The folders that had to be made, the lowest first. Object stores have none to make."""
    if not isinstance(fs, LocalFileSystem):
        return []
    missing = []
    with _step(key, "created", fs):
        above = folder
        while above and not fs.exists(above):
            missing.append(above)
            above = above.rpartition("/")[0]
        fs.makedirs(folder, exist_ok=True)
    return missing


def _tidy(fs: AbstractFileSystem, files: list[str], folders: list[str]) -> None:
    """What could not be deleted stays: that it cannot is what the check says."""
    for path in files:
        with suppress(*FAILURES):
            fs.rm_file(path)
    for path in folders:
        with suppress(*FAILURES):
            fs.rmdir(path)


def _files(root: str, filesystem_of: FilesystemOf) -> CheckResult:
    """By its name only: who runs sync need not read the images, and a listing of all of them may take minutes."""
    if is_remote(root):
        try:
            parse_abfs_uri(root)
        except ValueError as error:
            raise ConfigurationError(f"files.root: {error}") from error
        return CheckResult("files.root", "ok", "an address in Azure storage; open_instance reads the DICOM files there")
    fs, folder = filesystem_of(root)
    if not fs.isdir(folder):
        text = "there is no such folder here: open_instance will ask the service for each instance"
        return CheckResult("files.root", "warning", text)
    return CheckResult("files.root", "ok", "the folder is there; open_instance reads the DICOM files in it")


def _lake(settings: Settings, paths: LakePaths) -> CheckResult:
    service = service_fingerprint(settings.dicom.base_url) if settings.dicom.base_url else None
    snapshot = find_lake(paths, service)
    if snapshot is None:
        return CheckResult("lake", "warning", f"there is none at lake.root: {WITHOUT_LAKE}")
    refuse_incomplete(snapshot)
    identity = snapshot.lake.identity
    text = f"{identity.lake_id} holds {identity.service}; {len(snapshot.runs())} runs stand in its ledger"
    return CheckResult("lake", "ok", text)
