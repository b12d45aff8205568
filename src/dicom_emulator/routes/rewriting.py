"""A PS3.10 file with some attributes changed, as a bulk update stores it (design/service-protocol.md: Bulk update)."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from io import BytesIO
from typing import Any

from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.filereader import dcmread
from pydicom.filewriter import dcmwrite
from pydicom.uid import UID

from dicom_emulator.http.jsontext import dumps

IMPLEMENTATION_CLASS_UID = "1.3.6.1.4.1.311.129"
IMPLEMENTATION_VERSION = "1.0.0"

_FAILURES = (
    InvalidDicomError, EOFError, ValueError, TypeError, KeyError, AttributeError, NotImplementedError,
    OSError, struct.error,
)  # fmt: skip


class NotRewritable(Exception):
    """The file cannot be rewritten; the update of its study fails."""


def rewrite_file(content: bytes, change: Mapping[str, Any]) -> bytes:
    """The file with the change (DICOM JSON) in it, and the service as the implementation that wrote it.

    The transfer syntax and all other elements stay. Raises NotRewritable.
    """
    try:
        dataset = dcmread(BytesIO(content))
        dataset.update(Dataset.from_json(dumps(dict(change)).decode("ascii")))
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        dataset.file_meta.ImplementationClassUID = UID(IMPLEMENTATION_CLASS_UID)
        dataset.file_meta.ImplementationVersionName = IMPLEMENTATION_VERSION
        target = BytesIO()
        dcmwrite(target, dataset, enforce_file_format=True)
    except _FAILURES as error:
        raise NotRewritable from error
    return target.getvalue()
