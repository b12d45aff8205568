"""Lets time pass over a lake in a local folder: its files, and what its logs say of them, grow old."""

from __future__ import annotations

import json
import os
from pathlib import Path


def let_pass(lake: Path, hours: float) -> None:
    """Everything below ``lake`` is as if it had been written so many hours earlier."""
    for log in lake.rglob("_delta_log/*.json"):
        if log.name != "_last_checkpoint":
            _rewrite(log, int(hours * 3_600_000))
    for path in lake.rglob("*"):
        if path.is_file():
            before = path.stat().st_mtime - hours * 3600
            os.utime(path, (before, before))


def _rewrite(log: Path, milliseconds: int) -> None:
    """When files were removed stands in the log; Hadoop's sum of the log does not hold any more and goes."""
    then = log.stat().st_mtime
    actions = [json.loads(line) for line in log.read_text().splitlines()]
    for action in actions:
        if "remove" in action:
            action["remove"]["deletionTimestamp"] -= milliseconds
    log.write_text("".join(json.dumps(action) + "\n" for action in actions))
    os.utime(log, (then, then))
    log.with_name(f".{log.name}.crc").unlink(missing_ok=True)
