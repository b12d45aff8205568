"""`dicom-etl rejects`: what is open, the end that an operator gives one, and the end that its instance has."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dicom_emulator.testing import corruptions
from dicom_emulator.testing.faults import Fault
from dicom_etl.commands.rejects import close, open_rejects
from dicom_etl.lake.rejected import read_open
from dicom_etl.lake.status import status
from support.site import Site, at, text_at
from support.story import NoSpark

Command = Callable[..., tuple[int, str, str]]
WHY = "the modality was taken out of service"


@pytest.fixture(scope="module")
def bad(make_shared_site: Callable[..., Site]) -> Site:
    """A lake with a good row and four open rejects, sequences 2 to 5; the last three have an unknown state."""
    site = make_shared_site()
    make(site, 5)
    archived(site, 3, 4, 5)
    site.clock(9.5)
    (run,) = site.sync()
    assert (run.entries_read, run.inserted, run.rejected) == (5, 1, 4)
    return site


@pytest.fixture
def site(bad: Site, tmp_path: Path) -> Site:
    """A copy of it."""
    return bad.copied(tmp_path)


def make(site: Site, count: int) -> None:
    """So many instances; the second has metadata that cannot be used."""
    for sop in range(1, count + 1):
        site.create("1.1", "1.1.1", f"1.1.1.{sop}", **({"document": b"[1]"} if sop == 2 else {"name": f"N{sop}"}))


def archived(site: Site, *sequences: int) -> None:
    """From now on these entries, and no others, are served with a state that nobody knows."""

    def alter(row: dict[str, Any]) -> dict[str, Any]:
        return row | {"state": "Archived"} if row["sequence"] in sequences else row

    site.service.faults.clear()
    site.service.faults.add(Fault(path="/v2/changefeed", rewrite=corruptions.edited(alter)))


def standing(site: Site) -> dict[int, tuple[str, str]]:
    """Reason and status of each sequence, by its newest row."""
    rows = sorted(site.rows("rejected"), key=lambda row: row["runId"])
    return {row["sequence"]: (row["reason"], row["status"]) for row in rows}


def test_what_is_open_is_listed_without_the_patients_uids(site: Site, command: Command) -> None:
    """Sequence, time, reason and run, as a table or a line each; neither asks the service nor starts Spark."""
    site.service.requests.clear()
    code, out, _ = command(site, "rejects")
    assert (code, out.count("state-unknown"), out.count("metadata-not-object")) == (0, 3, 1)
    assert "1.1.1" not in out
    code, out, _ = command(site, "rejects", "--json")
    rows = [json.loads(line) for line in out.splitlines()]
    assert [(row["sequence"], row["reason"], row["status"], row["runId"]) for row in rows] == [
        (2, "metadata-not-object", "open", 1), *((number, "state-unknown", "open", 1) for number in (3, 4, 5)),
    ]  # fmt: skip
    assert rows[0].keys() == {"sequence", "timestamp", "reason", "status", "runId", "recordedAt"}
    assert site.service.requests.count() == 0


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--close", "3"], "--close and --why belong together: --close SEQUENCE --why TEXT"),
        (["--close", "3", "--why", " "], "--close and --why belong together: --close SEQUENCE --why TEXT"),
        (["--why", WHY], "--close and --why belong together: --close SEQUENCE --why TEXT"),
        (["--close", "1", "--why", WHY], "--close: 1 is no open reject; dicom-etl rejects lists them"),
        (["--close", "x", "--why", WHY], "Invalid value for '--close': 'x' is not a valid integer."),
    ],
)
def test_what_cannot_be_closed_is_a_usage_error(site: Site, command: Command, words: list[str], line: str) -> None:
    """64, and nothing is written."""
    before = site.version("rejected"), site.version("run")
    assert command(site, "rejects", *words)[::2] == (64, line)
    assert (site.version("rejected"), site.version("run")) == before


@pytest.mark.soak
def test_a_closed_reject_is_void_for_good(site: Site, command: Command, tmp_path: Path) -> None:
    """It is not counted, not asked for and not told of again; the text stands beside it and nowhere else."""
    metrics = tmp_path / "metrics.prom"
    site = site.having(f'metrics.prometheus_file="{metrics}"')
    code, out, said = command(site, "rejects", "--close", "3", "--why", WHY, "--json")
    assert (code, json.loads(out)["status"], json.loads(out)["sequence"]) == (0, "void", 3)
    assert WHY not in said
    assert "\ndicom_etl_open_rejects 3\n" in metrics.read_text()
    assert status(site.settings).open_rejects == 3
    (row,) = [row for row in site.rows("rejected") if row["status"] == "void"]
    assert (row["sequence"], row["reason"], row["why"], row["runId"]) == (3, "state-unknown", WHY, 2)
    assert [row["why"] for row in site.rows("rejected") if row["status"] == "open"] == [None] * 4
    last = site.ledger()[-1]
    assert (last["verb"], last["status"], last["instanceVersion"]) == ("rejects", "succeeded", site.version("instance"))
    assert WHY.encode() not in b"".join(f.read_bytes() for f in site.root.rglob("*.json"))
    assert {stat.S_IMODE(f.stat().st_mode) for f in (site.root / "rejected").rglob("*") if f.is_file()} == {0o600}

    # The next run asks for the others only, and the range that is read again does not bring it back.
    site.clock(11)
    (run,) = site.sync(spark=NoSpark())
    assert (run.entries_read, run.status) == (0, "succeeded")
    (run,) = site.sync(start=text_at(8), end=text_at(9))
    assert (run.entries_read, run.rejected, run.superseded) == (5, 3, 2)
    assert standing(site)[3] == ("state-unknown", "void")
    code, _, said = command(site, "sync", "--start", text_at(8), "--end", text_at(9), "--strict")
    assert (code, said.splitlines()[-1]) == (
        65, "dicom-etl: 3 entries were rejected; dicom-etl rejects lists those that are open",
    )  # fmt: skip

    # A second one is closed into the same column; what was closed and can be used after all is merged.
    close(site.settings, 4, "also", clock=lambda: at(11))
    assert [reject.sequence for reject in open_rejects(site.settings)] == [2, 5]
    site.service.faults.clear()
    (run,) = site.sync(start=text_at(8), end=text_at(9))
    assert (run.inserted, run.superseded, run.rejected) == (3, 1, 1)
    assert [row["sequence"] for row in site.tables()["instance"]] == [1, 3, 4, 5]
    archived(site, 3, 4, 5)


@pytest.mark.soak
def test_a_reject_whose_instance_is_gone_is_void(make_site: Callable[..., Site]) -> None:
    """By its own entry, or by a 404 of its metadata where that says nothing; without a 404 it stays open."""
    site = make_site()
    make(site, 4)
    archived(site, 3, 4)
    site.clock(9.5)
    assert site.sync()[0].rejected == 3
    site.clock(9.6)
    for sop in (2, 3):
        site.service.delete("Microsoft.Default", "1.1", "1.1.1", f"1.1.1.{sop}")
    site.clock(11)
    (run,) = site.sync()
    # Entry 2 is Deleted now, and read again; the two Deletes themselves. Entry 3 says nothing that we know.
    assert (run.entries_read, run.superseded, run.rejected) == (3, 3, 0)
    assert standing(site) == {
        2: ("metadata-not-object", "void"), 3: ("state-unknown", "void"), 4: ("state-unknown", "open"),
    }  # fmt: skip
    assert status(site.settings).open_rejects == 1

    # An empty window without Spark does the same.
    site.service.history.hide(7, None)
    site.service.delete("Microsoft.Default", "1.1", "1.1.1", "1.1.1.4")
    site.clock(12.5)
    (run,) = site.sync(spark=NoSpark())
    assert (run.entries_read, run.rejected) == (0, 0)
    assert standing(site)[4] == ("state-unknown", "void")
    assert read_open(site.opened("rejected")) == []
