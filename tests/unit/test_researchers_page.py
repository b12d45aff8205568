"""What docs/researchers.md tells to type works as it stands there."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import duckdb
import duckdb_extension_delta
import pyarrow as pa
from deltalake import write_deltalake

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


def test_duckdb_joins_each_instance_with_its_header_once(tmp_path: Path) -> None:
    """As the page has it: of several readings the one with a header, then of the newest run; none is a null."""
    key = {"partitionName": "Microsoft.Default", "studyInstanceUid": "1", "seriesInstanceUid": "2"}
    instances = [{**key, "sopInstanceUid": uid, "sequence": number} for uid, number in (("a", 1), ("b", 2), ("c", 3))]
    readings = [
        {**instances[0], "runId": 1, "state": "Current", "metadata": "old"},
        {**instances[0], "runId": 2, "state": "Current", "metadata": "new"},
        {**instances[0], "runId": 3, "state": "Current", "metadata": None},
        {**instances[1], "runId": 1, "state": "Replaced", "metadata": "another entry's"},
        {**instances[2], "runId": 1, "state": "Current", "metadata": None},
    ]
    write_deltalake(tmp_path / "instance", pa.Table.from_pylist(instances))
    write_deltalake(tmp_path / "change", pa.Table.from_pylist(readings))
    statements = re.findall(r"```sql\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    (join,) = [text for text in statements if "delta_scan('/data/lake/change')" in text]
    with duckdb.connect(config={"autoinstall_known_extensions": False}) as connection:
        connection.execute(f"LOAD '{next(Path(duckdb_extension_delta.__file__).parent.rglob('*.duckdb_extension'))}'")
        found = connection.execute(join.replace("/data/lake", str(tmp_path))).fetchall()
    assert sorted((row[3], row[5], row[6]) for row in found) == [("a", 2, "new"), ("b", None, None), ("c", 1, None)]
