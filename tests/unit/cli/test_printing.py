"""What reaches standard output: on a terminal, in a pipe, and where an encoding has no room for a name."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys

import pytest

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
