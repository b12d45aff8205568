"""What a request's path says before any resource: API version, data partition, and the service itself."""

from __future__ import annotations

import re
from typing import cast

from starlette.requests import Request

from dicom_emulator.http.errors import BadRequest, NotFound, UnsupportedVersion
from dicom_emulator.state.service import DicomService
from dicom_emulator.state.uids import DEFAULT_PARTITION, uid_from_path

SUPPORTED_VERSIONS = "1, 2"
_VERSIONS = {"1": 1, "1.0": 1, "1.0-prerelease": 1, "2": 2, "2.0": 2}
_PARTITION_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")


def service_of(request: Request) -> DicomService:
    """The service that the app serves."""
    return cast("DicomService", request.app.state.service)


def version_of(request: Request) -> int:
    """1 or 2. Raises UnsupportedVersion for another number, NotFound (404) for what is no version."""
    text = request.path_params["version"]
    if text in _VERSIONS:
        return _VERSIONS[text]
    if is_unsupported(text):
        raise UnsupportedVersion(text)
    raise NotFound("")


def is_unsupported(text: str) -> bool:
    """Whether a version segment, without its `v`, has the form of a version that is not served."""
    return text not in _VERSIONS and re.fullmatch(r"\d+(\.\d+)?(-[A-Za-z0-9]+)?", text) is not None


def partition_of(request: Request, create: bool = False) -> str:
    """The request's data partition, made when new if `create` (STOW does).

    Raises BadRequest (400): segment missing while partitions are on, given while they are off, no valid
    name, or an unknown one (design/service-protocol.md: Partitions).
    """
    service = service_of(request)
    name: str | None = request.path_params.get("partition")
    if not service.options.partitions:
        if name is not None:
            raise BadRequest("Data partitions feature is disabled.")
        return DEFAULT_PARTITION
    if name is None:
        raise BadRequest("Data partition name is missing in the route.")
    if not _PARTITION_NAME.fullmatch(name):
        raise BadRequest("Data partition name is invalid.")
    if create:
        service.add_partition(name)
    elif all(name != one.name for one in service.partitions()):
        raise BadRequest("The specified data partition does not exist.")
    return name


PathUids = tuple[str, str | None, str | None]
"""Study, series and SOP instance UID of a path, without padding; None below the level it names."""


def path_uids(request: Request) -> PathUids:
    """The UIDs of the path. Raises BadRequest (400) for a bad one."""
    path = request.path_params
    return (
        uid_from_path("StudyInstanceUid", path["study"]),
        uid_from_path("SeriesInstanceUid", path["series"]) if "series" in path else None,
        uid_from_path("SopInstanceUid", path["sop"]) if "sop" in path else None,
    )


def level_of(uids: PathUids) -> str:
    """`study`, `series` or `instance`: the lowest level that is named."""
    return ("study", "series", "instance")[sum(uid is not None for uid in uids) - 1]


def resource_root(request: Request) -> str:
    """The absolute URL before `/studies`, with version and, when on, partition (UrlResolver)."""
    partition = request.path_params.get("partition")
    root = f"{str(request.base_url).rstrip('/')}/v{request.path_params['version']}"
    return root if partition is None else f"{root}/partitions/{partition}"
