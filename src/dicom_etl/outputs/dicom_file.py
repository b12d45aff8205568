"""Opens the DICOM file of the instance that a row of the table ``instance`` names.

design/service-protocol.md: WADO-RS, Data lake.

It is ``dicom_etl.open_instance``. What it raises is not chained to what it was raised from: a notebook prints whole
chains, and those of others quote paths and values.
"""

from __future__ import annotations

import re
import struct
import zlib
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from io import BytesIO
from typing import Any, BinaryIO, Protocol, cast
from urllib.parse import urlsplit

from azure.core.exceptions import AzureError, ClientAuthenticationError
from pydicom import Dataset, dcmread
from pydicom.dataelem import RawDataElement
from pydicom.errors import BytesLengthException, InvalidDicomError

from dicom_etl.core.attributes import DEFAULT_PARTITION, INSTANCE_KEY
from dicom_etl.core.errors import AccessDenied, ConfigurationError, DataError, ServiceUnavailable, StorageError
from dicom_etl.core.logs import quiet_libraries
from dicom_etl.core.settings.load import load_settings
from dicom_etl.core.settings.model import Settings
from dicom_etl.dicomweb.connect import connect
from dicom_etl.dicomweb.retrieve import retrieve_instance
from dicom_etl.dicomweb.search import partitions
from dicom_etl.outputs.row_values import row_values
from dicom_etl.remote.http.client import HttpClient
from dicom_etl.remote.identity import dicom_tokens
from dicom_etl.remote.storage import FilesystemOf, Storage, storage_of
from dicom_etl.remote.uri import is_remote

_COLUMNS = (*INSTANCE_KEY, "filePath")
_UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
_PADDING = " \0"
# Digits and dots; what else a row may hold must not become a part of an address.
_UID = re.compile(r"\d[\d.]{0,63}(?<!\.\.)", re.ASCII)
# The service writes, reads and deletes one every 30 s; a crash leaves it (design/service-protocol.md: Data lake).
_HEALTH_CHECK = re.compile(r"(^|/)healthCheck/health[^/]*\.txt")
_FORBIDDEN = "this identity may not read files.root"
_NO_FILE = "there is no such file below files.root"
# What pydicom raises on files that are no DICOM, cut or damaged.
_UNREADABLE = (
    InvalidDicomError, BytesLengthException, EOFError, ValueError, TypeError, LookupError, AttributeError,
    NotImplementedError, RecursionError, struct.error, zlib.error,
)  # fmt: skip


class Columns(Protocol):
    """A Spark Row, a dict, a row of pandas, a frame of one row: whatever gives a value by the name of a column."""

    def __getitem__(self, name: str, /) -> Any: ...


@dataclass(frozen=True, slots=True)
class _Named:
    """The instance that a row names; ``path`` is its filePath."""

    partition: str
    uids: tuple[str, str, str]
    path: str | None


def open_instance(
    row: Columns,
    settings: Settings | None = None,
    *,
    stop_before_pixels: bool = False,
    strict: bool = False,
    client: HttpClient | None = None,
    filesystem_of: FilesystemOf | None = None,
) -> Dataset:
    """The data set of the instance that a row of ``instance`` names.

    It is read below ``files.root``; where this identity has no right to that or the file is not there, it comes from
    the service by WADO-RS, as it is stored there now. With ``strict`` that is refused: the service cannot say which
    version it gives, and a file is never written twice under one filePath. Only partitionName, the three UIDs and
    filePath of ``row`` count. ``settings`` are those of the command line unless given. For many rows, give a ``client``
    (``dicomweb.client.connect``) and a ``filesystem_of`` (``storage.storage_of(settings).filesystem``), which are
    otherwise made for each.

    Raises UsageError for a row without these columns, or what is not one row; DataError when the file is another
    instance's, cannot be read, is nowhere, or must not be followed, and with ``strict`` when it is not below
    ``files.root``; StorageError when the lake fails; ConfigurationError without any address; for the service as
    ``HttpClient.send``.
    """
    quiet_libraries()
    settings = load_settings() if settings is None else settings
    named = _named_instance(row)
    _refuse_without_address(settings, client)
    file, why = _in_lake(named.path, settings, filesystem_of, whole=not stop_before_pixels)
    if file is None and strict:
        raise _strict_refusal(why)
    if file is None:
        file = BytesIO(_from_service(named, settings, client, why))
    with file:
        dataset = _read(file, stop_before_pixels)
    if _uids_of(dataset) != named.uids:
        raise DataError(
            "the file holds another instance than the row names: the table and the files do not belong together; "
            "check files.root, then run dicom-etl verify"
        )
    return dataset


def _refuse_without_address(settings: Settings, client: HttpClient | None) -> None:
    if not (files_root(settings) or settings.dicom.base_url or client):
        raise ConfigurationError(
            "neither files.root, lake.root nor dicom.base_url is set: set DICOM_ETL_CONFIG to your settings file, or "
            "give open_instance the settings"
        )


def files_root(settings: Settings) -> str:
    """Where filePath starts: ``files.root``, else the container or the folder of ``lake.root``; "" without both."""
    root = settings.files.root or settings.lake.root
    if settings.files.root or not is_remote(root):
        return root
    address = urlsplit(root)
    return f"{address.scheme}://{address.netloc}"


def files_storage(settings: Settings) -> Storage:
    """The storage that ``files.root`` lies on."""
    return _storage(files_root(settings), settings)


def recorded_file(path: str, settings: Settings, filesystem_of: FilesystemOf) -> BinaryIO | None:
    """The file that a filePath names below ``files.root``, open; None when it is not there.

    Raises DataError for a path that must not be followed, AccessDenied when this identity may not read the file,
    StorageError when the storage fails.
    """
    file, why = _in_lake(path, settings, filesystem_of, whole=False)
    if why == _FORBIDDEN:
        raise AccessDenied(f"{why}: give it that right (in Azure Storage Blob Data Reader), or export without --files")
    return file


def _named_instance(row: Columns) -> _Named:
    partition, study, series, sop, path = map(_text, row_values(row, _COLUMNS).values())
    if not (study and series and sop):
        raise DataError("the row names no instance: one of its UIDs is null")
    if partition in (".", "..") or not all(_UID.fullmatch(uid.strip(_PADDING)) for uid in (study, series, sop)):
        raise DataError("the row names no instance: a UID is not one, or the partition is a place in an address")
    uids = (study.strip(_PADDING), series.strip(_PADDING), sop.strip(_PADDING))  # an adopted table may have padding
    return _Named(partition or DEFAULT_PARTITION, uids, path)


def _text(value: object) -> str | None:
    """The value of a text column; null, which pandas has as NaN, is None."""
    return value if isinstance(value, str) and value else None


def _in_lake(
    path: str | None, settings: Settings, filesystem_of: FilesystemOf | None, *, whole: bool
) -> tuple[BinaryIO | None, str]:
    """The file in the lake; or None, and why it cannot be had there."""
    root = files_root(settings)
    if path is None or not root:
        return None, "the row has no filePath" if path is None else "files.root is not set"
    _refuse_strange(path)
    try:
        filesystem, folder = (filesystem_of or _storage(root, settings).filesystem)(root)
        source = f"{folder.rstrip('/')}/{path}"
        # Whole files in one request; of others only what comes before the pixels.
        return BytesIO(filesystem.cat_file(source)) if whole else cast("BinaryIO", filesystem.open(source, "rb")), ""
    except ValueError as error:  # also a name that no storage can have
        raise ConfigurationError(f"files.root or filePath: cannot be opened ({type(error).__name__})") from None
    except (OSError, AzureError, AccessDenied) as error:
        why = _fallback_reason(error)
        if why is None:
            raise StorageError(f"files.root: the storage failed ({type(error).__name__}); run again") from None
        return None, why


def _storage(root: str, settings: Settings) -> Storage:
    """A local folder needs no identity, even where the lake does."""
    return storage_of(settings) if is_remote(root) else Storage()


def _refuse_strange(path: str) -> None:
    """Raise DataError for a path that leads out of the root, or to what the service does not keep as data.

    Also for one with an empty part or a `.`: it would be a second name of a file.
    """
    parts = re.split(r"[/\\]", path)  # Azure's clients take a backslash for a slash
    if not {"", ".", ".."}.isdisjoint(parts) or "\0" in path:
        raise DataError("filePath leads out of files.root, where no file of the service lies; it is not followed")
    if _HEALTH_CHECK.search(path):
        raise DataError("filePath names a health-check file of the service, which is no instance")


def _fallback_reason(error: Exception) -> str | None:
    """Why the service shall be asked; None when the storage itself has failed."""
    status = getattr(error, "status_code", None)  # of Azure's errors
    if isinstance(error, FileNotFoundError | NotADirectoryError | IsADirectoryError) or status == 404:
        return _NO_FILE
    if isinstance(error, PermissionError | AccessDenied | ClientAuthenticationError) or status in (401, 403):
        return _FORBIDDEN
    return None


def _from_service(named: _Named, settings: Settings, client: HttpClient | None, why: str) -> bytes:
    if client is None and not settings.dicom.base_url:
        raise ConfigurationError(f"{why}, and dicom.base_url is not set, so the service cannot be asked either")
    connection: AbstractContextManager[HttpClient]
    connection = nullcontext(client) if client else connect(settings.dicom, dicom_tokens(settings.dicom))
    try:
        with connection as service:
            content = retrieve_instance(service, *named.uids, partition=_segment(service, named.partition))
    except ServiceUnavailable as error:
        raise ServiceUnavailable(f"{why}, so the service was asked: {error}") from None
    if content is None:
        raise DataError(f"{why}, and the service has no such instance: it was deleted after the table was written")
    return content


def _segment(client: HttpClient, partition: str) -> str | None:
    """The partition as the address needs it; the default one is named only where the service has partitions."""
    if partition == DEFAULT_PARTITION and partitions(client) is None:
        return None
    return partition


def _strict_refusal(why: str) -> DataError:
    if why == _NO_FILE:
        return DataError(
            f"{why}: the instance was updated or deleted since the row was written, and strict takes no other version; "
            "only an export made before keeps this one"
        )
    return DataError(f"{why}, and the service may hold another version than the row's, which strict refuses")


def _read(content: BinaryIO, stop_before_pixels: bool) -> Dataset:
    try:
        dataset: Dataset = dcmread(content, stop_before_pixels=stop_before_pixels)
    except _UNREADABLE:
        dataset = Dataset()
    except (OSError, AzureError) as error:
        raise StorageError(f"files.root: the storage failed ({type(error).__name__}); run again") from None
    if "SOPInstanceUID" not in dataset or _cut(dataset):  # pydicom takes a cut file for a shorter one
        raise DataError("the file is not DICOM, or cannot be read to its end")
    return dataset


_UNDEFINED = 0xFFFFFFFF


def _cut(dataset: Dataset) -> bool:
    """Whether an element is shorter than it says. (A file that was cut between two elements looks whole.)"""
    raw = (element for element in dataset.values() if isinstance(element, RawDataElement))
    return any(one.length not in (_UNDEFINED, len(one.value or b"")) for one in raw)


def _uids_of(dataset: Dataset) -> tuple[str, ...]:
    """The three UIDs without padding. As they stand in the file: pydicom's conversion warns with the value."""
    return tuple(_uid(dataset, keyword) for keyword in _UIDS)


def _uid(dataset: Dataset, keyword: str) -> str:
    element = dataset.get_item(keyword) if keyword in dataset else None
    value = element.value if element is not None else b""
    return (value.decode("ascii", "replace") if isinstance(value, bytes) else str(value)).strip(_PADDING)
