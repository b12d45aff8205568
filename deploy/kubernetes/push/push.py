"""Run a command, push the metrics file that it left to a Prometheus Pushgateway, and end with the command's exit code.

PUSHGATEWAY is the gateway's address, DICOM_ETL__METRICS__PROMETHEUS_FILE the file. A push that fails is one line on
standard error and changes no exit code: the age of what was pushed last is what an alert sees.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path

_EXIT = re.compile(r'dicom_etl_last_exit_\w+\{verb="(\w+)"\}')


def run(command: Sequence[str]) -> int:
    """The exit code of ``command``, 128 and the signal's number when one ended it; SIGTERM and SIGINT are passed on."""
    started: list[subprocess.Popen[bytes]] = []
    early: list[int] = []

    def pass_on(number: int, _frame: object) -> None:
        for child in started:
            child.send_signal(number)
        if not started:
            early.append(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, pass_on)
    started.append(child := subprocess.Popen(command))
    for number in early:
        child.send_signal(number)
    code = child.wait()
    return code if code >= 0 else 128 - code


def push(gateway: str, file: Path) -> None:
    """Bring the gateway up to the file; what the file does not have stays there. No file: nothing to say.

    A pod knows how its own verb ended, and nothing of the lake when it failed early. So the exit codes go into a group
    of each verb, and the rest into the group `dicom-etl`; POST replaces the metrics that are sent and no others.
    """
    groups: dict[str, list[str]] = {}
    head: list[str] = []  # the HELP and TYPE of the metric whose samples follow
    for line in file.read_text(encoding="utf-8").splitlines() if file.exists() else ():
        if line.startswith("#"):
            head = [line] if line.startswith("# HELP") else [*head, line]
            continue
        ended = _EXIT.match(line)
        lines = groups.setdefault(f"/verb/{ended[1]}" if ended else "", [])
        lines += [one for one in head if one not in lines] + [line]
    for group, lines in groups.items():
        body = "".join(line + "\n" for line in lines).encode()
        request = urllib.request.Request(f"{gateway.rstrip('/')}/metrics/job/dicom-etl{group}", body, method="POST")  # noqa: S310
        with urllib.request.urlopen(request, timeout=30):  # noqa: S310
            pass


def main(command: Sequence[str], environment: Mapping[str, str]) -> int:
    """The command's exit code, after the push."""
    code = run(command)
    try:
        push(environment["PUSHGATEWAY"], Path(environment["DICOM_ETL__METRICS__PROMETHEUS_FILE"]))
    except (OSError, ValueError) as error:
        print(f"metrics not pushed: {type(error).__name__}", file=sys.stderr)  # noqa: T201
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
