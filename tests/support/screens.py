"""What a person sees: a program run in a pseudo-terminal, and the lines that its output leaves on the screen."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from dataclasses import dataclass
from pathlib import Path

_CONTROL = re.compile(r"\x1b\[([0-9;?]*)([A-Za-z])|\r|\n")
_ROWS = 50


@dataclass(frozen=True, slots=True)
class Screen:
    """The exit code, all that came, and the lines that stay: what was erased or written over is in no line."""

    code: int
    raw: str
    lines: list[str]

    @property
    def text(self) -> str:
        return "\n".join(self.lines)


def seen(*command: str, width: int, folder: Path | None = None, **variables: str) -> Screen:
    """A Python command as in a terminal of this width, with standard input, output and error on it."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", _ROWS, width, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")}
    with subprocess.Popen(
        [sys.executable, *command],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        cwd=folder,
        env={**environment, "TERM": "xterm-256color", **variables},
    ) as process:
        os.close(theirs)
        raw = _all(ours)
    os.close(ours)
    return Screen(process.returncode, raw, drawn(raw))


def _all(terminal: int) -> str:
    """All that comes until the program has closed the terminal."""
    parts = []
    while True:
        try:
            part = os.read(terminal, 65_536)
        except OSError:  # as Linux says that nobody holds the other side
            break
        if not part:
            break
        parts.append(part)
    return b"".join(parts).decode()


def drawn(raw: str) -> list[str]:
    """The lines on an endless screen: carriage return, line feed, cursor up and erasing a line are followed."""
    lines, row, column = [""], 0, 0
    position = 0
    for match in _CONTROL.finditer(raw):
        row_text = raw[position : match.start()]
        if row_text:
            lines[row] = lines[row].ljust(column)[:column] + row_text + lines[row][column + len(row_text) :]
            column += len(row_text)
        position = match.end()
        if match[0] == "\r":
            column = 0
        elif match[0] == "\n":
            row, column = row + 1, 0
            lines += [""] * (row + 1 - len(lines))
        elif match[2] == "A":
            row = max(0, row - int(match[1] or 1))
        elif match[2] == "K":
            lines[row] = "" if match[1] == "2" else lines[row][:column]
    lines[row] = lines[row].ljust(column)[:column] + raw[position:] + lines[row][column + len(raw) - position :]
    while lines and not lines[-1].strip():
        lines.pop()
    return [line.rstrip() for line in lines]
