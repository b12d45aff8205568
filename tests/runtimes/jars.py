"""Fetches the jars of a runtime once, checked by SHA-256: ``python tests/runtimes/jars.py 3.5 FOLDER``."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

from dicom_etl.core.errors import DicomEtlError
from dicom_etl.tables.engine.jars import Jar, install_jars


def main(runtime: str, folder: str) -> None:
    known = tomllib.loads(Path(__file__).with_name("jars.toml").read_text())[runtime]
    wanted = [Jar("io.delta", *name.removesuffix(".jar").rsplit("-", 1), sha256) for name, sha256 in known.items()]
    try:
        install_jars(Path(folder), jars=wanted)
    except DicomEtlError as problem:
        raise SystemExit(str(problem)) from problem


if __name__ == "__main__":
    main(*sys.argv[1:])
