"""The jars that pyspark lacks: which they are, where they lie, and how they come there once, checked by SHA-256.

`dicom-etl setup` puts them into the environment, so that no later start asks the network (design/spark.md: Jars).
"""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from dicom_etl.core.errors import ConfigurationError, StorageError

FOLDER = Path(sys.prefix) / "share" / "dicom-etl" / "jars"

_SECONDS = 60  # to connect, and between two pieces of a file


@dataclass(frozen=True, slots=True)
class Jar:
    """A file of a Maven repository by its coordinates, and its SHA-256."""

    group: str
    artifact: str
    version: str
    sha256: str

    @property
    def name(self) -> str:
        return f"{self.artifact}-{self.version}.jar"

    @property
    def path(self) -> str:
        """Where it lies in every Maven repository."""
        return f"{self.group.replace('.', '/')}/{self.artifact}/{self.version}/{self.name}"

    def is_at(self, file: Path) -> bool:
        """Whether ``file`` is this jar, by its SHA-256."""
        return file.is_file() and hashlib.sha256(file.read_bytes()).hexdigest() == self.sha256


# What they depend on, pyspark brings, in other versions than they ask for: nothing else may be on the class path.
JARS = (
    Jar(
        "io.delta", "delta-spark_4.2_2.13", "4.4.0",
        "27d4fd8b1f879535c573ed1c718177d6a27f24d3e626ba02e216369725721ead",
    ),
    Jar(
        "io.delta", "delta-storage", "4.4.0",
        "c46735481fa8e326b0957be02b4420cbcab4b325bb08009b7f2045a95133f1cc",
    ),
    Jar(
        "org.apache.hadoop", "hadoop-azure", "3.5.0",
        "220b5db238b82437960e4b81c7e3eefa4eff2a03ad502887497f11d0ad86e663",
    ),
)  # fmt: skip


def installed_jars(folder: Path = FOLDER) -> list[Path]:
    """The jars in ``folder``, all of them or none."""
    files = [folder / jar.name for jar in JARS]
    return files if all(file.is_file() for file in files) else []


def jar_settings(folder: Path = FOLDER, source: str | None = None) -> dict[str, str]:
    """Spark's setting that brings the jars; a first start without `dicom-etl setup` fetches them. Raises as below.

    The files go on the class path, our JVM being driver and executor in one: only classes from there are in the archive
    of `tables.engine.class_archive`.
    """
    if not installed_jars(folder):
        install_jars(folder, source)
    return {"spark.driver.extraClassPath": ":".join(map(str, installed_jars(folder)))}


def install_jars(folder: Path = FOLDER, source: str | None = None, jars: Sequence[Jar] = JARS) -> None:
    """Put the jars that ``folder`` lacks there, all of them or none.

    ``source`` is a folder or a Maven repository; without one Spark resolves them, as it does its own packages.
    Raises ConfigurationError for one that ``source`` lacks or that has another SHA-256, StorageError when ``folder``
    cannot be written.
    """
    folder = folder.absolute()  # Ivy takes no other: it ends Spark's start
    lacking = [jar for jar in jars if not jar.is_at(folder / jar.name)]
    if not lacking:
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".new-", dir=folder) as scratch:
            taken = source or _resolved(lacking, Path(scratch))
            for jar in lacking:
                _take(jar, taken, Path(scratch) / jar.name)
            for jar in lacking:
                with (Path(scratch) / jar.name).open("rb") as file:
                    os.fsync(file.fileno())  # a power cut behind the rename would leave an empty jar of this name
                (Path(scratch) / jar.name).replace(folder / jar.name)
    except OSError as error:
        raise StorageError(
            f"Spark's jars cannot be written to {folder} ({error.strerror}): "
            "run dicom-etl setup as the user who owns this environment"
        ) from error


def _resolved(jars: Sequence[Jar], scratch: Path) -> str:
    """The folder to which Spark's own resolver has fetched these jars from Maven Central, and nothing else."""
    from dicom_etl.tables.engine.jvm import resolve  # noqa: PLC0415  it loads pyspark, jar_settings must not

    resolve([f"{jar.group}:{jar.artifact}:{jar.version}" for jar in jars], scratch)
    for jar in jars:
        (scratch / "jars" / f"{jar.group}_{jar.name}").replace(scratch / "jars" / jar.name)
    return str(scratch / "jars")


def _take(jar: Jar, source: str, file: Path) -> None:
    """Copy or download one jar to ``file`` and check it."""
    if "://" in source:
        if "?" in source or "#" in source:
            raise ConfigurationError(f"--from {_shown(source)}: give the repository's address without a query")
        _download(jar, f"{source.rstrip('/')}/{jar.path}", file)
    else:
        file.write_bytes(_read(jar, source))
    if not jar.is_at(file):
        raise ConfigurationError(
            f"{jar.name} from {_shown(source)} is not the file we know: expected SHA-256 {jar.sha256}; "
            "nothing was installed"
        )


def _shown(source: str) -> str:
    """A folder as it is; an address without a name and password, a query or a fragment, which may be secrets."""
    if "://" not in source:
        return source
    parts = urlsplit(source)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def _read(jar: Jar, folder: str) -> bytes:
    try:
        return (Path(folder).expanduser() / jar.name).read_bytes()
    except OSError as error:
        raise ConfigurationError(
            f"{jar.name} (SHA-256 {jar.sha256}) cannot be read from {folder} ({error.strerror}): "
            "dicom-etl setup --jars-to DIR fills a folder where the internet can be reached"
        ) from error


def _download(jar: Jar, address: str, file: Path) -> None:
    import httpx  # noqa: PLC0415  a quarter of a second that no other start needs

    try:
        with (
            httpx.stream("GET", address, follow_redirects=True, timeout=_SECONDS) as response,
            file.open("wb") as output,
        ):
            response.raise_for_status()
            for piece in response.iter_bytes():
                output.write(piece)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise ConfigurationError(
            f"{jar.name} (SHA-256 {jar.sha256}) cannot be fetched from {_shown(address)} ({type(error).__name__}): "
            "check the network and HTTPS_PROXY, or run dicom-etl setup --from DIR"
        ) from error
