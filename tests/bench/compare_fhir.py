"""`python -m bench.compare_fhir` (`make compare-fhir`): one history, played to DICOMcast's algorithm and to ours.

Each writes a HAPI FHIR of its own, from the same local service, phase by phase; the servers count requests and bytes.
In the end each server is read by FHIR search and judged by the service's headers. Exit 1 when ours is not right.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path

import httpx

from bench.fhir_judge import holdings, judge, read_server
from bench.fhir_report import report
from bench.fhir_sides import CastSide, Side, feed_above, our_side
from bench.fhir_story import EHR_PATIENT, Phase, story
from dicom_emulator.options import EmulatorOptions
from dicom_emulator.serve import Emulator, serve_in_thread
from dicom_etl.core.errors import ConfigurationError
from dicom_etl.core.settings.load import load_settings
from dicom_etl.tables.engine.session import local_session
from support.site import SECOND, Site, at
from tests.fhir.hapi import Hapi, StartFailed, hapi
from tests.fhir.jars import install

_UNREAD = "entries of the feed that were never applied"


def play(emulator: Emulator, cast: CastSide, sides: Sequence[Side], phases: Sequence[Phase]) -> None:
    """Let all sides follow the phases, on servers that have a Patient of the hospital."""
    for side in sides:
        address = f"{side.server.base_url}/Patient/{EHR_PATIENT['id']}"
        cast.cast.client.put(address, json=EHR_PATIENT).raise_for_status()
    for hour, phase in enumerate(phases, 8):
        emulator.service.clock.freeze(at(hour) + timedelta(minutes=5), step=SECOND // 10)
        phase.happen(emulator.service)
        emulator.service.clock.freeze(at(hour + 1) + timedelta(minutes=16))
        for side in sides:
            side.play()
        cast.note_end()


def wrong_of(emulator: Emulator, cast: CastSide, sides: Sequence[Side]) -> dict[str, dict[str, int]]:
    """What is wrong in the end, by side; first in what DICOMcast had written when it ended, if it did."""
    client = cast.cast.client
    held, feed = holdings(emulator.service), list(feed_above(client, emulator.base_url, 0))
    wrong = {}
    if cast.ended is not None and cast.ended_at is not None:
        left = sum(entry.sequence >= cast.ended_at for entry in feed)
        wrong["DICOMcast"] = {_UNREAD: left, **judge(cast.ended, held, EHR_PATIENT)}
    for side in sides:
        served = read_server(client, side.server.base_url)
        wrong[side.name] = {_UNREAD: side.unread(feed), **judge(served, held, EHR_PATIENT)}
    return wrong


def compare(phases: Sequence[Phase], *, with_ours: bool) -> int:
    """The exit code: 1 when anything of ours is wrong."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="dicom-etl-compare-fhir-")))
        options = EmulatorOptions(file_paths=True, partitions=True)
        emulator = stack.enter_context(serve_in_thread(options))
        client = stack.enter_context(httpx.Client(timeout=300, trust_env=False))
        cast = CastSide(client, emulator.base_url, _server(stack, folder / "theirs"))
        sides = [cast.side]
        if with_ours:
            sides.append(_ours(stack, emulator, folder))
        play(emulator, cast, sides, phases)
        wrong = wrong_of(emulator, cast, sides)
    sys.stdout.write(report(phases, {side.name: side.figures for side in sides}, wrong, cast.ended_at))
    return int(any(wrong["ours"].values())) if with_ours else 0


def _server(stack: ExitStack, scratch: Path) -> Hapi:
    scratch.mkdir()
    return stack.enter_context(hapi(scratch))


def _ours(stack: ExitStack, emulator: Emulator, folder: Path) -> Side:
    overrides = ["spark.master=local[2]", "spark.shuffle_partitions=2"]
    settings = load_settings(None, overrides, {}, Path("/nonexistent"))
    session = stack.enter_context(local_session(settings.spark, rows=0))
    return our_side(Site(emulator, folder, (), session), _server(stack, folder / "ours"))


def main() -> int:
    options = argparse.ArgumentParser(prog="python -m bench.compare_fhir", description=__doc__)
    options.add_argument("--studies", type=int, default=4, help="how many are stored at first (at least 4)")
    options.add_argument("--images", type=int, default=180, help="of each study")
    options.add_argument("--without-ours", action="store_true", help="DICOMcast's algorithm alone, without Spark")
    given = options.parse_args()
    try:
        install()
        return compare(story(given.studies, given.images), with_ours=not given.without_ours)
    except (ConfigurationError, StartFailed) as problem:
        sys.stderr.write(f"compare-fhir: {problem}\n")
        return 1


if __name__ == "__main__":
    sys.exit(main())
