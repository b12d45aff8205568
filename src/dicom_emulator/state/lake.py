"""The data lake that receives the service's files: where they lie and their names.

design/service-protocol.md: Data lake.
"""

from __future__ import annotations

import os
import uuid
from pathlib import Path
from typing import Protocol

import xxhash
from azure.core.exceptions import AzureError, ResourceNotFoundError
from azure.storage.blob import ContainerClient

HEALTH_CONTENT = b"Test content."


class Lake(Protocol):
    """A container of blobs by name (`a/b/c.dcm`, no leading slash); every method may raise OSError."""

    def write(self, name: str, content: bytes) -> None: ...

    def read(self, name: str) -> bytes: ...

    def delete(self, name: str) -> None: ...


class FolderLake:
    """A lake in a local folder, made when missing."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir(parents=True, exist_ok=True)

    def write(self, name: str, content: bytes) -> None:
        """The blob appears whole or not at all."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
        unfinished.write_bytes(content)
        os.replace(unfinished, path)

    def read(self, name: str) -> bytes:
        return (self.root / name).read_bytes()

    def delete(self, name: str) -> None:
        """No error when it is gone already."""
        (self.root / name).unlink(missing_ok=True)


class ContainerLake:
    """A lake in a container of Azure Storage, or of Azurite, which must be there."""

    def __init__(self, container: ContainerClient) -> None:
        self._container = container

    def write(self, name: str, content: bytes) -> None:
        try:
            self._container.upload_blob(name, content, overwrite=True)
        except AzureError as error:
            raise OSError(f"the container did not take a file ({type(error).__name__})") from error

    def read(self, name: str) -> bytes:
        try:
            return self._container.download_blob(name).readall()
        except AzureError as error:
            raise OSError(f"the container did not give a file ({type(error).__name__})") from error

    def delete(self, name: str) -> None:
        """No error when it is gone already."""
        try:
            self._container.delete_blob(name)
        except ResourceNotFoundError:
            return
        except AzureError as error:
            raise OSError(f"the container did not delete a file ({type(error).__name__})") from error


def open_lake(lake: Lake | Path | str | None) -> Lake | None:
    """The lake itself, or a folder as a lake. Raises OSError when the folder cannot be made."""
    if isinstance(lake, Path | str):
        return FolderLake(Path(lake))
    return lake


def service_prefix(workspace: str, service: str) -> str:
    """The service's folder in its container, with a slash at the end."""
    return f"AHDS/{workspace}/dicom/{service}/"


def file_name(watermark: int) -> str:
    """`{h}_{watermark}.dcm`; h = the first three digits of the decimal xxHash64 of the decimal watermark."""
    digest = xxhash.xxh64_intdigest(str(watermark).encode("ascii"), seed=0)
    return f"{str(digest)[:3]}_{watermark}.dcm"


def check_health(lake: Lake, prefix: str, keep: bool) -> None:
    """Writes, reads and deletes one health-check file. Raises OSError when the lake does not take part."""
    name = f"{prefix}healthCheck/health{uuid.uuid4()}.txt"
    lake.write(name, HEALTH_CONTENT)
    if lake.read(name) != HEALTH_CONTENT:
        raise OSError("the lake gave back other content than was written")
    if not keep:
        lake.delete(name)
