"""Fetches the jars of a runtime once, checked by SHA-256: ``python tests/runtimes/jars.py 3.5 FOLDER``."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

from dicom_etl.core.errors import DicomEtlError
from dicom_etl.tables.engine import jars, java


def main(runtime: str, folder: str) -> None:
    known = tomllib.loads(Path(__file__).with_name("jars.toml").read_text())[runtime]
    # Delta before 4.1 asks for antlr4-runtime, which every pyspark brings.
    jars.PACKAGES, jars.SHA256, jars.EXCLUDES = known["package"], known["sha256"], f"{jars.EXCLUDES},org.antlr:*"
    java.OLDEST = 11  # Fabric 1.3's
    try:
        jars.install_jars(Path(folder))
    except DicomEtlError as problem:
        raise SystemExit(str(problem)) from problem


if __name__ == "__main__":
    main(*sys.argv[1:])
