"""Where the archive of classes lies from which a JVM starts in half the time (design/spark.md: Starting the JVM).

`commands.class_archive` makes it. A JVM that finds one made by another Java, or for other jars, starts without it.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

from dicom_etl.tables.engine.jars import JARS

FOLDER = Path(sys.prefix) / "share" / "dicom-etl" / "classes"


def archive_of(home: Path, folder: Path = FOLDER) -> Path:
    """Where the archive of the Java under ``home`` lies, or would lie, for our jars."""
    release = home / "release"
    which = f"{home.resolve()} {release.read_text() if release.is_file() else ''} {sorted(jar.sha256 for jar in JARS)}"
    return folder / f"{hashlib.sha256(which.encode()).hexdigest()[:16]}.jsa"


def class_data_option(home: Path, folder: Path = FOLDER) -> str:
    """The JVM's option that starts it from the archive, with a blank before it; empty where there is none."""
    archive = archive_of(home, folder)
    return f' -Xshare:auto -XX:SharedArchiveFile="{archive}"' if archive.is_file() else ""
