"""`python -m bench` (`make bench`): everything in one run, then a table and docs/performance-figures.md."""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from rich.console import Console

from bench import compared, others, ours, smallwindows, tagged
from bench.lakes import MOST_BY_SYNC, Grown
from bench.processes import Server, feed_server
from bench.report import markdown, show, this_machine
from bench.results import Results, count
from bench.targets import verdicts

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "performance-figures.md"


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured: sizes of the tables, ascending, and how often the small things are repeated.

    ``kinds`` are the windows measured beside the usual ones, ``latencies`` pairs of milliseconds and connections (10 is
    the default of `dicom.connections`), ``small`` the entries that plain PySpark and the smallest load of dlt get,
    ``headers`` the sizes of metadata in KB of which the memory is measured.
    """

    sizes: tuple[int, ...]
    kinds: tuple[str, ...]
    small: int
    headers: tuple[int, ...]
    repeats: int
    warm_windows: int
    template_pages: int
    latencies: tuple[tuple[int, int], ...]
    dlt_sizes: tuple[int, ...]
    deletion_vectors: bool
    small_windows: int

    @property
    def smallest(self) -> int:
        return self.sizes[0]


def plan(sizes: Sequence[int], *, quick: bool, full: bool) -> Plan:
    """The plan for a mode; ``sizes`` given on the command line win."""
    chosen = tuple(sorted(sizes)) or ((100_000,) if quick else (100_000, 1_000_000))
    if full and not sizes:
        chosen = (*chosen, 10_000_000)
    by_sync = [size for size in chosen if size <= MOST_BY_SYNC]
    return Plan(
        sizes=chosen,
        repeats=1 if quick else 3,
        # The first is cold, and the JVM goes on compiling for some time.
        warm_windows=4 if quick else 8,
        kinds=() if quick else ours.KINDS_OF_CHANGE,
        small=10_000 if quick else chosen[0],
        headers=(300,) if quick else (10, 100, 300),
        template_pages=2 if quick else 5,
        latencies=((300, 10),) if quick else ((100, 10), (300, 10), (300, 16)),
        dlt_sizes=tuple(by_sync) if full else (10_000,) if quick else tuple(by_sync[:1]),
        deletion_vectors=full,
        small_windows=200 if full else 0,
    )


def measure(results: Results, server: Server, folder: Path, chosen: Plan) -> None:
    """Every step, each of its own: one that fails is a row of its own, and the others go on."""
    at = (results, server, folder)
    for size in (one for one in chosen.sizes if one <= MOST_BY_SYNC):
        _attempt(results, f"download/{size}", partial(ours.measure_download, *at, size))
        for processes in (1, 2):
            _attempt(results, f"landing{processes}/{size}", partial(ours.measure_landing, *at, size, processes))
    grown: dict[int, Grown] = {}
    for size in chosen.sizes:
        _attempt(results, f"sync/{size}", partial(_grow, grown, *at, size))
    for kilobytes in chosen.headers:
        _attempt(results, f"headers/{kilobytes}", partial(ours.measure_headers, *at, kilobytes))
    for size, lake in grown.items():
        _attempt(results, f"verify/{size}", partial(compared.measure_verify, *at, lake))
        _attempt(results, f"repair/{size}", partial(compared.measure_repair, *at, lake))
    _measure_windows(results, server, folder, chosen, grown)
    for latency, connections in chosen.latencies:
        key = f"latency{latency}-{connections}/{chosen.smallest}"
        _attempt(results, key, partial(ours.measure_latency, *at, chosen.smallest, latency, connections))
    # Its page aggregates whole tables: beyond 10^6 it would take longer than all the rest.
    for stored in (0, *(size for size in chosen.sizes if chosen.kinds and size <= MOST_BY_SYNC)):
        _attempt(results, f"template/{stored}", partial(others.measure_template, *at, stored, chosen.template_pages))
    _attempt(results, f"plain/{chosen.small}", partial(others.measure_plain, *at, chosen.small))
    for size in chosen.dlt_sizes:
        _attempt(results, f"dlt/{size}", partial(others.measure_dlt, *at, size))


def _measure_windows(results: Results, server: Server, folder: Path, chosen: Plan, grown: dict[int, Grown]) -> None:
    warm = chosen.warm_windows
    for lake in list(grown.values())[:1]:
        _attempt(results, "session", partial(ours.measure_session, results, folder, lake, max(2, chosen.repeats)))
        _attempt(results, f"empty/{lake.entries}", partial(ours.measure_empty_window, results, server, folder, lake))
    for size, lake in grown.items():
        on = (results, server, folder, lake)
        _attempt(results, f"cold/{size}", partial(ours.measure_cold_windows, *on, chosen.repeats))
        _attempt(results, f"merge/{size}", partial(ours.measure_merge, *on, warm))
        _attempt(results, f"warm/{size}", partial(ours.measure_warm_windows, *on, warm, chosen.kinds))
        _attempt(results, f"columns/{size}", partial(tagged.measure_columns, *on, warm))
    for lake in list(grown.values())[:1] if chosen.small_windows else ():
        small = partial(smallwindows.measure_small_windows, results, server, folder, lake, chosen.small_windows)
        _attempt(results, f"small/{lake.entries}", small)
    for size in chosen.sizes if chosen.deletion_vectors else ():
        _attempt(results, f"dv/{size}", partial(_deletion_vectors, results, server, folder, size))


def _attempt(results: Results, key: str, step: Callable[[], None]) -> None:
    name, _, size = key.partition("/")
    results.attempt(key, f"{name} {count(int(size))}" if size.isdigit() else name, step)


def _grow(grown: dict[int, Grown], results: Results, server: Server, folder: Path, size: int) -> None:
    grown[size] = ours.measure_sync(results, server, folder, size)


def _deletion_vectors(results: Results, server: Server, folder: Path, size: int) -> None:
    lake = ours.measure_sync(results, server, folder, size, deletion_vectors=True)
    ours.measure_warm_windows(results, server, folder, lake, 4, ours.KINDS_OF_CHANGE, suffix="-dv")


def _terminated(number: int, frame: object) -> None:
    del number, frame
    raise KeyboardInterrupt


def main() -> int:
    options = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    options.add_argument("--quick", action="store_true", help="10⁵ entries, less than 5 minutes")
    options.add_argument("--full", action="store_true", help="10⁷ instances, deletion vectors, dlt at 10⁶ as well")
    options.add_argument("--sizes", default="", help="sizes of the tables instead, by commas")
    options.add_argument("--only", default="", help="these steps alone, by commas (verify,repair), with the sync")
    options.add_argument("--output", type=Path, help="where the report goes (a whole run: docs/performance-figures.md)")
    options.add_argument("--folder", type=Path, help="where lakes are made (default: the temporary folder)")
    given = options.parse_args()
    sizes = [int(size) for size in given.sizes.split(",") if size]
    chosen = plan(sizes, quick=given.quick, full=given.full)
    signal.signal(signal.SIGTERM, _terminated)
    machine = this_machine()
    only = {"sync", *given.only.split(",")} if given.only else None
    results = Results(only)
    results.say(f"{machine.cores} cores, load {machine.load:.1f}; sizes {', '.join(map(count, chosen.sizes))}")
    with tempfile.TemporaryDirectory(prefix="dicom-etl-bench-", dir=given.folder) as folder, feed_server() as server:
        measure(results, server, Path(folder), chosen)
    found = verdicts(results, chosen.sizes)
    show(Console(), results.rows, found)
    mode = " --quick" if given.quick else " --full" if given.full else ""
    if output := given.output or (None if only else DOCUMENT):
        output.write_text(markdown(machine, results.rows, found, f"python -m bench{mode}"), encoding="utf-8")
        results.say(f"written: {output.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
