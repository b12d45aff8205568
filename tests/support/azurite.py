"""Azurite, Microsoft's emulator of Azure Storage, as a process of the test session (design/spark.md: Azurite)."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.error import HTTPError
from urllib.request import urlopen
from uuid import uuid4

from azure.storage.blob import BlobServiceClient, ContainerClient

from dicom_etl.remote.storage import Storage

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from support.site import Site

ACCOUNT = "devstoreaccount1"
# Not a secret: the one account of every Azurite, from its documentation.
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
KEY_VARIABLE = "DICOM_ETL_STORAGE_KEY"
# Put there by `make test-azure`.
PROGRAM = Path(sys.prefix) / "share" / "dicom-etl" / "azurite" / "node_modules" / ".bin" / "azurite-blob"


def missing() -> str | None:
    """Why Azurite cannot be started here, or None."""
    if shutil.which("node") is None:
        return "Azurite needs Node.js"
    return None if PROGRAM.exists() else "Azurite is not installed: make test-azure installs it"


@dataclass
class Azurite:
    """A running Azurite on a port that stays the same when it is stopped and started again."""

    folder: Path
    port: int
    process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def client(self) -> BlobServiceClient:
        return BlobServiceClient(f"{self.endpoint}/{ACCOUNT}", credential=KEY)

    def container(self) -> ContainerClient:
        """A new container."""
        return self.client.create_container(f"lake-{uuid4().hex[:12]}")

    def holding(self, site: Site, container: str, spark: SparkSession | None) -> Site:
        """The same site with its lake in a container, under a name of its own; ``spark`` is let to it."""
        lake = address(container, f"{uuid4().hex[:12]}/lake")
        storage = Storage(key=KEY, endpoint=self.endpoint)
        if spark is not None:
            hadoop = spark.sparkContext._jsc.hadoopConfiguration()
            for name, value in storage.hadoop((lake,)).items():
                hadoop.set(name, value)
        texts = (*site.overrides, *settings_texts(self.endpoint))
        return replace(site, address=lake, storage=storage, overrides=texts)

    def start(self) -> None:
        options = ["--loose", "--silent", "--disableTelemetry", "--skipApiVersionCheck"]
        where = ["--blobHost", "127.0.0.1", "--blobPort", str(self.port), "--location", str(self.folder)]
        self.process = subprocess.Popen([str(PROGRAM), *where, *options], stdout=subprocess.DEVNULL)
        for _ in range(150):
            if _answers(self.endpoint):
                return
            time.sleep(0.2)
        raise RuntimeError("Azurite did not start")

    def stop(self) -> None:
        """By SIGTERM: a kill loses what it acknowledged in its last seconds."""
        if self.process is not None:
            self.process.terminate()
            self.process.wait(30)
            self.process = None


def _answers(endpoint: str) -> bool:
    try:
        urlopen(f"{endpoint}/{ACCOUNT}?comp=list", timeout=2).close()  # noqa: S310 - loopback
    except HTTPError:
        return True  # it wants a signature
    except OSError:
        return False
    return True


@contextmanager
def azurite(folder: Path) -> Iterator[Azurite]:
    """One on a free port, with its files in ``folder``."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    running = Azurite(folder, port)
    os.environ[KEY_VARIABLE] = KEY
    running.start()
    try:
        yield running
    finally:
        running.stop()
        del os.environ[KEY_VARIABLE]


def copied(lake: str, endpoint: str) -> str:
    """The address of a copy of a lake, in the same container; Azurite copies each file by itself, at once."""
    container = lake.partition("://")[2].partition("@")[0]
    blobs = BlobServiceClient(f"{endpoint}/{ACCOUNT}", credential=KEY).get_container_client(container)
    old, new = lake.partition(".dfs.core.windows.net/")[2], f"{uuid4().hex[:12]}/lake"
    for name in list(blobs.list_blob_names(name_starts_with=f"{old}/")):
        target = blobs.get_blob_client(f"{new}{name.removeprefix(old)}")
        assert target.start_copy_from_url(blobs.get_blob_client(name).url)["copy_status"] == "success"
    return address(container, new)


def address(container: str, path: str) -> str:
    """Over abfs, since this Azurite speaks http."""
    return f"abfs://{container}@{ACCOUNT}.dfs.core.windows.net/{path}"


def settings_texts(endpoint: str) -> tuple[str, ...]:
    """The settings of its storage, as texts of --set."""
    return ("storage.auth=key", f"storage.endpoint={endpoint}")
