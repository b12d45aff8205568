"""What reaches standard output: on a terminal, in a pipe, and where an encoding has no room for a name."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from dicom_etl.cli.query import print_answer
from dicom_etl.core.errors import TemporaryError
from dicom_etl.tables.engine.errors import named_errors

PRINT = (
    "import sys\n"
    "from dicom_etl.cli.process import exit_process, run_command\n"
    "from dicom_etl.cli.output import print_rows\n"
    "exit_process(run_command(lambda: print_rows(['name'], [[{value!a}]], sys.argv[1]) or 0))\n"
)
NAME = "Müller^Ж 😀"
ESCAPES = "red\x1b[31m\x9b2J\x07\r, two\nlines\tand a tab"


def printed(value: str, row_format: str, encoding: str = "utf-8", stdout: int = subprocess.PIPE) -> tuple[int, bytes]:
    done = subprocess.run(
        [sys.executable, "-c", PRINT.format(value=value), row_format],
        env={**os.environ, "PYTHONIOENCODING": encoding, "COLUMNS": "200"},
        stdout=stdout,
        stderr=subprocess.PIPE,
        check=False,
    )
    assert done.stderr == b""
    return done.returncode, done.stdout or b""


def on_a_terminal(value: str, row_format: str) -> str:
    ours, theirs = pty.openpty()
    try:
        assert printed(value, row_format, stdout=theirs)[0] == 0
        return os.read(ours, 10_000).decode()
    finally:
        os.close(ours)
        os.close(theirs)


@pytest.mark.parametrize("row_format", ["table", "csv", "json"])
@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_a_name_that_the_output_cannot_encode_ends_no_command(row_format: str, encoding: str) -> None:
    """It is shown by its number; JSON stays JSON, and has the very name."""
    code, out = printed(NAME, row_format, encoding)
    assert code == 0
    text = out.decode(encoding)
    if row_format == "json":
        assert json.loads(text) == {"name": NAME}
    else:
        shown = NAME.encode(encoding, "backslashreplace").decode(encoding)
        assert text.splitlines()[-1].strip() == shown


def test_control_characters_of_a_value_do_not_reach_a_terminal() -> None:
    """A name from anybody's file cannot clear the screen; lines and tabs stay, as in a plan that EXPLAIN gives."""
    text = on_a_terminal(ESCAPES, "table")
    assert "red\\x1b[31m\\x9b2J\\x07\\x0d, two" in text
    assert "lines" in text.splitlines()[-1]
    assert not [raw for raw in ("\x1b[31m", "\x9b", "\x07") if raw in text]


def test_csv_and_json_have_the_very_characters() -> None:
    """On a terminal too, and a table in a pipe: whoever reads them by a program gets what is stored."""
    assert json.loads(on_a_terminal(ESCAPES, "json")) == {"name": ESCAPES}
    assert "red\x1b[31m\x9b2J\x07" in on_a_terminal(ESCAPES, "csv")
    assert "red\x1b[31m" in printed(ESCAPES, "table")[1].decode()


@pytest.mark.parametrize("row_format", ["table", "csv", "json"])
def test_a_reader_that_stops_ends_the_command_well(row_format: str) -> None:
    """``query … | head``, also where the printing stands among Spark's errors; no line on standard error."""
    script = (
        "import sys\n"
        "from dicom_etl.cli.process import exit_process, run_command\n"
        "from dicom_etl.cli.output import print_rows\n"
        "from dicom_etl.tables.engine.errors import named_errors\n"
        "def command():\n"
        "    with named_errors('instance'):\n"
        "        print_rows(['n'], ([str(number) * 50] for number in range(5000)), sys.argv[1])\n"
        "    return 0\n"
        "exit_process(run_command(command))\n"
    )
    reader, stdout = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            [sys.executable, "-c", script, row_format], stdout=stdout, stderr=subprocess.PIPE, check=False
        )
    finally:
        os.close(stdout)
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_broken_pipe_to_spark_is_not_the_readers() -> None:
    """The rows come over a connection of their own: its end is that of the JVM (75)."""

    def broken() -> Iterator[Any]:
        yield (1,)
        raise BrokenPipeError

    frame = SimpleNamespace(columns=["n"], toLocalIterator=broken)
    with pytest.raises(TemporaryError, match="JVM has ended"), named_errors("instance"):
        print_answer(frame, "csv")
