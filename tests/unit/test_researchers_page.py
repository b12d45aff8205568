"""What docs/researchers.md tells to type works as it stands there."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import duckdb

PAGE = Path(__file__).parents[2] / "docs" / "researchers.md"


def test_duckdbs_extension_is_found_and_loaded_without_internet() -> None:
    """The line of the page prints one path, and LOAD takes it."""
    (line,) = re.findall(r"^python -c .*duckdb_extension.*$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    _, *words = shlex.split(line)
    printed = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=True).stdout.splitlines()
    assert len(printed) == 1
    with duckdb.connect(config={"autoinstall_known_extensions": False}) as connection:
        connection.execute(f"LOAD '{printed[0]}'")
        loaded = connection.execute("SELECT loaded FROM duckdb_extensions() WHERE extension_name = 'delta'")
        assert loaded.fetchall() == [(True,)]
