"""The ratios that issue 5 asks for, each from the measurements of one run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bench.results import Measurement, Results, count

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Verdict:
    """One target: the figure found, and whether it is met; both None where nothing was measured."""

    what: str
    target: str
    figure: str | None
    met: bool | None


def verdicts(results: Results, sizes: Sequence[int]) -> list[Verdict]:
    """Every target of issue 5 §2, for the sizes that were measured."""
    largest = max(sizes)
    return [
        *_syncs(results, sizes),
        _template(results, sizes),
        *_dlt(results, sizes),
        *(_window_cold(results, size) for size in sizes),
        *(_window_warm(results, size) for size in sizes),
        *_empty(results, sizes),
        *_growth(results, min(sizes), largest),
        *_latency(results),
        *_memory(results, sizes),
        *_requests(results, sizes),
        *_searches(results, sizes),
        *(verdict for size in sizes for verdict in _columns(results, size)),
        _flat_update(results, min(sizes), largest),
    ]


def _ratio(what: str, target: str, over: Measurement | None, under: Measurement | None, most: float) -> Verdict:
    """So many times the time of another measurement, at most ``most`` times."""
    if over is None or under is None or not over.seconds or not under.seconds:
        return Verdict(what, target, None, None)
    ratio = over.seconds / under.seconds
    return Verdict(what, target, f"{ratio:.2f} x ({over.seconds:.1f} s : {under.seconds:.1f} s)", ratio <= most)


def _columns(results: Results, size: int) -> Iterator[Verdict]:
    """Those of issue 17 §4."""
    tags, on = results.get(f"tags/{size}"), f"columns: window of 1 000 on {count(size)}"
    yield _ratio(f"{on} : one MERGE of its rows", "at most 2 x", tags, results.get(f"tagmerge/{size}"), 2)
    yield _ratio(f"{on} : its sync", "at most 0.8 x", tags, results.get(f"tagsync/{size}"), 0.8)
    filled, what = results.get(f"backfill/{size}"), f"columns: backfill of {count(size)}"
    yield _ratio(f"{what} : reading metadata", "at most 3 x", filled, results.get(f"metadata/{size}"), 3)
    speed = filled.per_second if filled else None
    figure = None if speed is None else f"{speed:,.0f} headers/s"
    yield Verdict(what, "at least 20 000 headers/s", figure, None if speed is None else speed >= 20_000)
    none = results.get(f"tagsnone/{size}")
    seconds = none.seconds if none else None
    figure = None if seconds is None else f"{seconds:.2f} s"
    yield Verdict(
        f"columns: nothing new, {count(size)}", "less than 1.5 s", figure, None if seconds is None else seconds < 1.5
    )


def _flat_update(results: Results, smallest: int, largest: int) -> Verdict:
    what, target = f"bytes read by a window's update, {count(smallest)} : {count(largest)}", "within 20 %"
    low, high = results.get(f"tags/{smallest}"), results.get(f"tags/{largest}")
    if low is None or high is None or smallest == largest:
        return Verdict(what, target, None, None)
    ratio = high.details["bytesRead"] / low.details["bytesRead"]
    return Verdict(what, target, f"{ratio:.2f} x", 0.8 <= ratio <= 1.2)


def _landing(results: Results, size: int) -> Measurement | None:
    """The better of one and two processes."""
    found = [row for row in (results.get(f"landing{number}/{size}") for number in (1, 2)) if row]
    return min(found, key=lambda row: row.seconds or 0.0, default=None)


def _syncs(results: Results, sizes: Sequence[int]) -> Iterator[Verdict]:
    for size in sizes:
        sync = results.get(f"sync/{size}")
        if sync is None or sync.entries != size or not sync.per_second:
            continue
        what = f"sync of {count(size)} into empty tables, start included"
        yield Verdict(what, "≥ 8 000 changes/s (at 10⁶)", f"{sync.per_second:,.0f}/s", sync.per_second >= 8_000)
        yield _ratio(what, "≤ 2.5 x landing alone (at 10⁶)", sync, _landing(results, size), 2.5)


def _template(results: Results, sizes: Sequence[int]) -> Verdict:
    """Per change, on tables that are empty: in the template's favour, whose pages cost more as its tables grow."""
    target = "≥ 50 x"
    template = results.get("template/0")
    syncs = [row for row in (results.get(f"sync/{size}") for size in sizes) if row and row.entries in sizes]
    what = "against the template's algorithm, per change (its pages into empty tables)"
    if template is None or not template.per_second or not syncs or not syncs[-1].per_second:
        return Verdict(what, target, None, None)
    ratio = syncs[-1].per_second / template.per_second
    figure = f"{ratio:.0f} x ({syncs[-1].per_second:,.0f}/s : {template.per_second:.0f}/s)"
    return Verdict(what, target, figure, ratio >= 50)


def _dlt(results: Results, sizes: Sequence[int]) -> Iterator[Verdict]:
    for size in sizes:
        dlt, sync = results.get(f"dlt/{size}"), results.get(f"sync/{size}")
        least = 4 if size >= 1_000_000 else 1
        what, target = f"against dlt, {count(size)} entries", f"≥ {least} x"
        if dlt and dlt.seconds and sync and sync.seconds:
            ratio = dlt.seconds / sync.seconds
            yield Verdict(what, target, f"{ratio:.2f} x ({dlt.seconds:.1f} s : {sync.seconds:.1f} s)", ratio >= least)
        elif size in (100_000, 1_000_000):
            yield Verdict(what, target, None, None)


def _window_cold(results: Results, size: int) -> Verdict:
    what = f"hourly window of 1 000 on {count(size)}, cold"
    target = "≤ 2 x a session that starts and reads a row"
    return _ratio(what, target, results.get(f"cold/{size}"), results.get("session"), 2.0)


def _window_warm(results: Results, size: int) -> Verdict:
    what = f"hourly window of 1 000 on {count(size)}, warm"
    return _ratio(what, "≤ 2.5 x one warm MERGE", results.get(f"warm-create/{size}"), results.get(f"merge/{size}"), 2.5)


def _empty(results: Results, sizes: Sequence[int]) -> Iterator[Verdict]:
    for size in sizes:
        row = results.get(f"empty/{size}")
        if row and row.seconds:
            jvm = int(row.details["jvmBytes"])
            figure = f"{row.seconds:.1f} s, {'no JVM' if jvm == 0 else 'with a JVM'}"
            yield Verdict(f"empty window on {count(size)}", "≤ 3 s, no JVM", figure, row.seconds <= 3 and jvm == 0)


def _growth(results: Results, small: int, large: int) -> Iterator[Verdict]:
    """The window's cost on the largest tables against that on the smallest."""
    for suffix, name in (("-create", "usual"), ("-dv-scattered", "scattered, deletion vectors")):
        one, other = results.get(f"warm{suffix}/{small}"), results.get(f"warm{suffix}/{large}")
        what = f"{name} window, tables of {count(small)} → {count(large)}"
        if small == large or one is None or other is None:
            yield Verdict(what, "files and bytes ± 20 %, time ≤ 1.5 x", None, None)
            continue
        yield _ratio(f"{what}: time", "≤ 1.5 x", other, one, 1.5)
        for figure, unit in (("filesRead", "files read"), ("bytesRead", "bytes read"), ("bytesAdded", "bytes written")):
            yield _within(f"{what}: {unit}", one, other, figure)


def _within(what: str, one: Measurement, other: Measurement, figure: str) -> Verdict:
    before, after = float(one.details[figure]), float(other.details[figure])
    ratio = after / before if before else 1.0
    return Verdict(what, "± 20 %", f"{ratio:.2f} x ({count(before)} → {count(after)})", 0.8 <= ratio <= 1.2)


def _latency(results: Results) -> Iterator[Verdict]:
    found = [row for row in results.rows if row.key.startswith("latency300") and row.per_second]
    for row in found:
        yield Verdict(row.what, "≥ 5 000 entries/s", f"{row.per_second:,.0f}/s", (row.per_second or 0) >= 5_000)
    if not found:
        yield Verdict("fetch at 300 ms a page", "≥ 5 000 entries/s", None, None)


def _memory(results: Results, sizes: Sequence[int]) -> Iterator[Verdict]:
    for size in sizes:
        row = results.get(f"sync/{size}")
        if row and row.entries == size:
            yield _python(f"sync of {count(size)}", row, 500)
        for verb in ("verify", "repair"):
            if row := results.get(f"{verb}/{size}"):
                yield _python(f"{verb} of {count(size)}", row, 1_000)
    if row := results.get("headers/300"):
        yield _python("sync with headers of 300 KB", row, 700)


def _python(what: str, row: Measurement, most: int) -> Verdict:
    used = row.details["pythonBytes"] / MIB
    return Verdict(f"Python memory, {what}", f"≤ {most} MB", f"{used:.0f} MiB", used <= most)


def _searches(results: Results, sizes: Sequence[int]) -> Iterator[Verdict]:
    for size in sizes:
        if row := results.get(f"verify/{size}"):
            offset = row.details["largestSearchOffset"]
            what = f"service cost, search of {count(size)}"
            figure = f"{count(row.details['searches'])} requests, largest offset {count(offset)}"
            yield Verdict(what, "no offset over 2 000", figure, offset <= 2_000)


def _requests(results: Results, sizes: Sequence[int]) -> Iterator[Verdict]:
    """Slices are counted by the landing alone, which reads in the same way."""
    for size in sizes:
        row, landing = results.get(f"sync/{size}"), results.get(f"landing1/{size}")
        if row is None or landing is None or row.entries != size:
            continue
        allowed = size / 200 * 1.1 + landing.details["slices"]
        requests, offset = row.details["requests"], row.details["largestOffset"]
        figure = f"{count(requests)} requests of {count(allowed)} allowed, largest offset {count(offset)}"
        ok = requests <= allowed and offset <= 200
        yield Verdict(
            f"service cost, sync of {count(size)}", "entries / 200 x 1.1 + slices, no deep offset", figure, ok
        )
