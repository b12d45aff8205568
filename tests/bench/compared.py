"""The steps of the benchmark that compare a lake with the service: `verify`, and `repair` with nothing to do."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.feed import START
from bench.lakes import Grown, command, settings, texts
from bench.processes import Ended, Server, StepFailed, run_process
from bench.results import Results, count
from dicom_etl.lake.ledger import last_succeeded
from dicom_etl.lake.open import find_lake, highest_run_id
from dicom_etl.lake.paths import lake_paths

_LIMIT_SECONDS = 3 * 3600


def measure_verify(results: Results, server: Server, folder: Path, grown: Grown) -> None:
    """`dicom-etl verify` on a lake that equals the service, as a cold process."""
    ended = _compared(server, folder, grown, "verify")
    facts = ended.objects[-1]
    if not facts["equal"] or facts["search"] != "compared" or facts["serviceInstances"] != grown.entries:
        raise StepFailed("the lake and the service were not found to be equal")
    _add(results, server, grown, "verify", ended)


def measure_repair(results: Results, server: Server, folder: Path, grown: Grown) -> None:
    """`dicom-etl repair` on the same, which finds nothing to do."""
    ended = _compared(server, folder, grown, "repair")
    if not ended.objects[-1]["equal"]:
        raise StepFailed("the lake and the service were not found to be equal")
    _add(results, server, grown, "repair", ended)


def _add(results: Results, server: Server, grown: Grown, verb: str, ended: Ended) -> None:
    counters: dict[str, Any] = server.counters()
    requests: dict[str, int] = counters["requests"]
    results.add(
        f"{verb}/{grown.entries}", f"{verb} of {count(grown.entries)} instances, all equal, cold process",
        ended.seconds, requests=sum(requests.values()),
        searches=sum(number for route, number in requests.items() if "changefeed" not in route),
        largestSearchOffset=counters["largestSearchOffset"],
        pythonBytes=ended.python_bytes, jvmBytes=ended.jvm_bytes,
    )  # fmt: skip


def _compared(server: Server, folder: Path, grown: Grown, verb: str) -> Ended:
    lake = grown.copied(folder / f"{verb}-{grown.entries}" / "lake")
    _cover_all(server, lake)
    server.show(grown.entries)
    given = texts(server.base_url, lake.root)
    try:
        return run_process(command(verb, "--json", given=given), folder / "work", limit_seconds=_LIMIT_SECONDS)
    finally:
        shutil.rmtree(lake.root.parent)


def _cover_all(server: Server, lake: Grown) -> None:
    """Has the ledger say that the older rows, which were written directly, were read as well."""
    if lake.start == START:
        return
    ours = find_lake(lake_paths(settings(server.base_url, lake.root)))
    assert ours is not None
    last = last_succeeded(ours.runs())
    assert last is not None
    times = {"window_start": START, "window_end": lake.start, "covered_until": lake.start}
    ours.record(replace(last, run_id=highest_run_id(ours) + 1, verb="sync", **times))
