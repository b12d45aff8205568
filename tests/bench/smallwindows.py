"""Hundreds of small windows, and what `maintain` makes of their files: the steps of the benchmark that show it."""

from __future__ import annotations

from pathlib import Path
from statistics import median
from typing import Any

from bench.lakes import Grown, compacted_figures, file_counts, maintained, versions
from bench.processes import Server, StepFailed, run_process
from bench.results import Results, count

_PER_WINDOW = 100
_MORE = 5
# Most hours bring new studies; every tenth corrects whole ones.
_ROUND = (*["create"] * 9, "updates")


def measure_small_windows(results: Results, server: Server, folder: Path, grown: Grown, windows: int) -> None:
    """Windows of 100 entries one after another, `maintain`, five more, `maintain`, and once more with nothing to do."""
    lake = grown.copied(folder / f"small-{grown.entries}" / "lake")
    kinds = [_ROUND[number % len(_ROUND)] for number in range(windows)] + ["create"] * _MORE
    _windows(results, server, folder, lake, kinds[:windows], 0, f"{count(windows)} windows of {_PER_WINDOW}, warm")
    _maintain(results, server, lake, f"maintain after {count(windows)} small windows")
    _windows(results, server, folder, lake, kinds, windows, f"{_MORE} windows more")
    _maintain(results, server, lake, f"maintain after these {_MORE}")
    _maintain(results, server, lake, "maintain once more")


def _windows(
    results: Results, server: Server, folder: Path, lake: Grown, kinds: list[str], after: int, what: str
) -> None:
    where = ["--base-url", server.base_url, "--start", str(lake.start), "--entries", str(lake.entries)]
    which = ["--per-window", str(_PER_WINDOW), "--after", str(after), f"{lake.root}={','.join(kinds)}"]
    ended = run_process(["-m", "bench.warm", *where, *which], folder / "work", limit_seconds=3600)
    lines = ended.objects
    if len(lines) != len(kinds) - after:
        raise StepFailed(f"{len(lines)} windows were read, not {len(kinds) - after}")
    usual = [line for line in lines if line["kind"] == "create"]
    first, last = usual[:5], usual[-5:]
    results.add(
        f"small-{after}/{lake.entries}",
        f"{what}, on {count(lake.entries)} instances: seconds of one, the median of the last five of new studies",
        _median_seconds(last),
        firstSeconds=_median_seconds(first),
        filesRead=last[-1]["files"]["filesRead"],
        bytesRead=last[-1]["files"]["bytesRead"],
        held=lines[-1]["held"],
    )


def _median_seconds(lines: list[dict[str, Any]]) -> float:
    return median(float(line["seconds"]) for line in lines)


def _maintain(results: Results, server: Server, lake: Grown, what: str) -> None:
    before = versions(lake.root)
    ended = maintained(lake, server.base_url)
    figures = compacted_figures(lake.root, before)
    results.add(f"small-maintain/{lake.entries}", what, ended.seconds, **figures, held=file_counts(lake.root))
