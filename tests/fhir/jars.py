"""What HAPI FHIR needs to start: its 253 jars (293 MB) by Maven, and our FhirTestServer compiled, both made once."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from dicom_etl.core.errors import ConfigurationError
from dicom_etl.tables.engine.java import java_home

# DICOM_ETL_TEST_HAPI: another folder, for a checkout whose environment is not its own.
FOLDER = Path(os.environ.get("DICOM_ETL_TEST_HAPI") or Path(sys.prefix) / "share" / "dicom-etl" / "hapi")
POM = Path(__file__).with_name("pom.xml")
SOURCE = Path(__file__).with_name("FhirTestServer.java")
MAIN = SOURCE.stem

Which = Callable[[str], str | None]


def missing(folder: Path = FOLDER) -> str | None:
    """Why HAPI cannot be started here, or None."""
    if _is_made(folder / "lib", POM) and _is_made(folder / "classes", POM, SOURCE):
        return None
    return "HAPI FHIR is not installed: make test-fhir installs it"


def install(folder: Path = FOLDER, which: Which = shutil.which, java: Callable[[], Path] = java_home) -> None:
    """Fetch the jars and compile the server, unless ``folder`` has them of this pom.xml and this source.

    Raises ConfigurationError without Maven, without a JDK of 17 or newer, and when Maven cannot fetch.
    """
    if missing(folder) is None:
        return
    compiler = java() / "bin" / "javac"
    if not compiler.is_file():
        raise ConfigurationError("HAPI FHIR needs a JDK of 17 or newer, with javac (Debian: openjdk-17-jdk-headless)")
    if not _is_made(folder / "lib", POM):
        _make(folder / "lib", lambda new: _fetch(new, which), POM)
    _make(folder / "classes", lambda new: _compile(compiler, folder / "lib", new), POM, SOURCE)


def class_path(folder: Path = FOLDER) -> str:
    """For java: the compiled server and every jar."""
    return os.pathsep.join((str(folder / "classes"), str(folder / "lib" / "*")))


def _fetch(new: Path, which: Which) -> None:
    maven = which("mvn")
    if maven is None:
        raise ConfigurationError("HAPI FHIR comes by Maven: install mvn (Debian: maven)")
    sys.stderr.write("hapi: fetching HAPI FHIR (253 jars, 293 MB) ...\n")
    # -C: a jar whose checksum is not the repository's ends it.
    words = [maven, "-q", "-B", "-C", "-f", str(POM), "dependency:copy-dependencies", f"-DoutputDirectory={new}"]
    if subprocess.run(words, stdout=sys.stderr, check=False).returncode != 0:
        raise ConfigurationError("Maven cannot fetch HAPI FHIR: check the network, or Maven's own settings")


def _compile(compiler: Path, jars: Path, new: Path) -> None:
    words = [str(compiler), "-encoding", "UTF-8", "-proc:none", "-cp", f"{jars}/*", "-d", str(new), str(SOURCE)]
    if subprocess.run(words, stdout=sys.stderr, check=False).returncode != 0:
        raise ConfigurationError("FhirTestServer.java does not compile with this JDK")


def _is_made(folder: Path, *made_from: Path) -> bool:
    stamp = folder / ".made-from"
    return stamp.is_file() and stamp.read_text() == _digest(*made_from)


def _make(folder: Path, maker: Callable[[Path], None], *made_from: Path) -> None:
    """Whole or not at all: what is there is what the stamp says."""
    new = folder.with_name(f"{folder.name}.new")
    for old in (new, folder):
        shutil.rmtree(old, ignore_errors=True)
    new.mkdir(parents=True)
    maker(new)
    (new / ".made-from").write_text(_digest(*made_from))
    new.rename(folder)


def _digest(*files: Path) -> str:
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
