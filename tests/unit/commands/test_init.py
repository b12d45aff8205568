"""A new lake is made only when it is asked for: one that is gone, or misspelt, is not a new one."""

from __future__ import annotations

import json
import re
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from deltalake import DeltaTable

from dicom_etl.cli.main import run
from dicom_etl.cli.process import run_command
from dicom_etl.commands.metrics import metrics_text
from dicom_etl.commands.watch import watch
from dicom_etl.core.errors import ConfigurationError
from dicom_etl.core.settings.load import load_settings
from dicom_etl.lake import open as open_lake
from dicom_etl.lake.delta.table import properties
from dicom_etl.lake.lake_id import LAKE_ID
from dicom_etl.lake.open import init_lake
from dicom_etl.lake.paths import lake_paths
from dicom_etl.lake.snapshot import TABLES
from dicom_etl.lake.status import status_and_runs
from support.landing_only import landing_only
from support.site import Site, at, ticks_at

Command = Callable[..., tuple[int, str, str]]
FOUND_BY_INIT = {"run", "change", "rejected"}
SHAPE = re.compile(r"(made a new lake|there is a lake already) at (\S+): (\S{36}), for localhost\n")


@pytest.fixture
def site(tmp_path: Path, logged: Callable[[], str]) -> Iterator[Site]:
    """A service without a lake, and runs that land and do not merge; logging is set back afterwards."""
    del logged
    with landing_only(tmp_path) as made:
        yield made


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs `dicom-etl VERB …` for a site in this process: exit code, standard output, the last line of the other."""

    def typed(site: Site, *words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["dicom-etl", *words, *(f"--set={text}" for text in site.texts)])
        capsys.readouterr()
        code = run_command(run)
        said = capsys.readouterr()
        return code, said.out, (said.err.splitlines() or [""])[-1].removeprefix("dicom-etl: ")

    return typed


def no_lake(root: Path) -> str:
    return f"no lake at {root}: mount its storage, or correct lake.root, or make a new lake by dicom-etl init"


def moved_away(site: Site) -> Site:
    """As a share that is not mounted, on a machine where the mount point was never made."""
    site.root.rename(site.folder / "away")
    return site


def empty_mount_point(site: Site) -> Site:
    """As a share that is not mounted, too."""
    moved_away(site).root.mkdir()
    return site


def mistyped(site: Site) -> Site:
    return site.having(f"lake.root={site.folder / 'lakes'}")


# -- a lake that is gone -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("gone", [moved_away, empty_mount_point, mistyped])
def test_a_lake_that_is_gone_is_not_made_again(site: Site, command: Command, gone: Callable[[Site], Site]) -> None:
    """78 for each verb, one line that names the place, and nothing is put there; back again, the lake goes on."""
    (first,) = site.sync()
    assert (first.run_id, first.status) == (1, "succeeded")
    there = gone(site)
    root = Path(there.settings.lake.root)
    before = sorted(site.folder.rglob("*"))
    for words in (
        ["sync"],
        ["sync", "--dry-run"],
        ["sync", "--start", "2024-05-01T01:00:00Z", "--end", "2024-05-01T02:00:00Z"],
        ["sync", "--adopt"],
        ["sync", "--adopt", "--dry-run"],
        ["watch"],
        ["status", "--max-lag", "3h"],
        ["runs"],
        ["verify"],
        ["repair", "--rebuild"],
        ["maintain"],
        ["maintain", "--dry-run"],
        ["query", "SELECT 1"],
    ):
        assert command(there, *words) == (78, "", no_lake(root)), words
    assert sorted(site.folder.rglob("*")) == before

    if gone is empty_mount_point:
        site.root.rmdir()
    if gone is not mistyped:
        (site.folder / "away").rename(site.root)
    site.clock(10)
    (second,) = site.sync(init=False)
    assert (second.run_id, second.window_start) == (2, first.covered_until)


def test_a_lost_root_is_named_where_the_private_tables_are_elsewhere(site: Site, command: Command) -> None:
    """78 and one line for every verb, init included, since another lake there would lose the first one's ledger."""
    site = site.having(f"lake.private_root={site.folder / 'private'}").init()
    (first,) = site.sync()
    assert (first.run_id, first.status) == (1, "succeeded")
    moved_away(site)
    line = (
        f"no lake at {site.root}, but lake.private_root has the tables of one: mount the storage of lake.root, or "
        "correct lake.root; a new lake needs another lake.private_root"
    )
    for words in (["sync"], ["sync", "--init"], ["init"], ["status"], ["runs"], ["verify"], ["repair"], ["maintain"]):
        assert command(site, *words) == (78, "", line), words
    assert not site.root.exists()
    (site.folder / "away").rename(site.root)
    assert command(site, "status")[0] == 0


def test_a_lake_that_vanishes_between_two_windows_ends_watch(site: Site) -> None:
    """Its error is the command's, like each that a person must see to; nothing is put in the lake's place."""
    site.sync(until="2024-05-01T01:00:00Z")
    now = [at(8)]

    class AtNoon:
        def is_set(self) -> bool:
            return now[0] > at(12)

        def wait(self, timeout: float) -> None:
            now[0] += timedelta(seconds=timeout)
            if site.root.exists():
                moved_away(site)

    runs = watch(site.settings, stop=AtNoon(), clock=lambda: now[0])
    assert next(runs).run_id == 2
    with pytest.raises(ConfigurationError, match="no lake at "):
        next(runs)
    assert at(8) < now[0] < at(9)
    assert not site.root.exists()


def test_a_lake_that_vanishes_between_two_runs_ends_the_sync(site: Site) -> None:
    """Also when the next run has begun to read ahead; nothing is put in the lake's place."""
    for hour in (2, 3, 4):
        site.create("1.1", "1.1.1", f"1.1.1.{hour}", at_ticks=ticks_at(hour))
    runs = site.having("feed.max_entries_per_run=1").runs()
    assert next(runs).entries_read == 1
    moved_away(site)
    with pytest.raises(ConfigurationError, match="no lake at "):
        next(runs)
    assert not site.root.exists()


# -- init --------------------------------------------------------------------------------------------------------


def test_init_makes_a_lake_once(site: Site, command: Command) -> None:
    """0 both times, the same id; the first run goes on from there without being asked to make anything."""
    lines = []
    for _ in range(2):
        code, out, _said = command(site, "init")
        found = SHAPE.fullmatch(out)
        assert code == 0
        assert found is not None
        lines.append(found.groups())
    (what, root, lake), again = lines
    assert (what, again) == ("made a new lake", ("there is a lake already", root, lake))
    assert root == str(site.root)
    assert {name for name in TABLES if site.has(name)} == FOUND_BY_INIT
    assert {properties(site.opened(name))[LAKE_ID] for name in FOUND_BY_INIT} == {lake}

    (first,) = site.sync(init=False)
    assert first.run_id == 1
    code, out, _said = command(site, "init", "--json")
    assert (code, json.loads(out)) == (0, {"root": root, "lake": lake, "service": "localhost", "made": False})
    assert len(site.ledger()) == 1


def test_a_lake_without_a_run_says_what_is_due(site: Site, command: Command) -> None:
    """Everything from feed.start; the tables are still to be made."""
    assert command(site, "init")[0] == 0
    code, out, _ = command(site, "status", "--json")
    assert (code, json.loads(out)["coveredUntil"]) == (0, "2024-05-01T00:00:00Z")
    assert command(site, "status", "--max-lag", "3h")[0] == 1
    assert command(site, "verify") == (65, "", "no run has finished here yet: run dicom-etl sync")


def test_init_needs_no_service_that_answers(tmp_path: Path, command: Command) -> None:
    """Only its address, which says whose the lake is."""
    texts = [f"--set=lake.root={tmp_path / 'lake'}", "--set=dicom.base_url=https://dicom.example.invalid/root"]

    class There:
        def __init__(self, texts: list[str]) -> None:
            self.texts = [text.removeprefix("--set=") for text in texts]

    code, out, _ = command(There(texts), "init")
    assert code == 0
    assert out.endswith(", for dicom.example.invalid/root\n")
    code, out, said = command(There(texts[:1]), "init")
    assert (code, out) == (78, "")
    assert said.startswith("dicom.base_url is not set")


def test_init_refuses_what_is_somebody_elses(site: Site, command: Command) -> None:
    """65 for tables that are not ours, 78 for the lake of another service; nothing is made."""
    import pyarrow as pa
    from deltalake import write_deltalake

    site.root.mkdir()
    write_deltalake(site.root / "study", pa.table({"a": [1]}))
    code, out, said = command(site, "init")
    assert (code, out) == (65, "")
    assert said.startswith("the table study was not made by dicom-etl")
    assert [path.name for path in site.root.iterdir()] == ["study"]

    lake = site.having(f"lake.root={site.folder / 'other'}")
    assert command(lake, "init")[0] == 0
    before = sorted((site.folder / "other").rglob("*"))
    code, out, said = command(lake.having("dicom.base_url=https://dicom.example.invalid"), "init")
    assert (code, out) == (78, "")
    assert said.startswith("this lake holds another service, localhost, not dicom.example.invalid")
    assert sorted((site.folder / "other").rglob("*")) == before


def test_of_two_inits_at_once_one_makes_the_lake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both saw no lake; the other one sees that lake then, and says so."""
    root = tmp_path / "lake"
    where = lake_paths(load_settings(None, [f"lake.root={root}"], {}, tmp_path))
    both, make_lake = threading.Barrier(2), open_lake.make_lake

    def make_lake_together(*given: Any) -> Any:
        both.wait(30)
        return make_lake(*given)

    monkeypatch.setattr(open_lake, "make_lake", make_lake_together)
    with ThreadPoolExecutor() as pool:
        ends = [end.result(60) for end in [pool.submit(init_lake, where, "localhost") for _ in range(2)]]
    assert sorted(made for _, made in ends) == [False, True]
    assert {str(lake.identity.lake_id) for lake, _ in ends} == {properties(DeltaTable(root / "run"))[LAKE_ID]}
    assert {path.name for path in root.iterdir()} == FOUND_BY_INIT
    assert DeltaTable(root / "run").version() == 0


# -- sync --init -------------------------------------------------------------------------------------------------


def test_sync_init_makes_the_lake_and_is_harmless_when_there_is_one(site: Site, command: Command) -> None:
    """A dry run of it says what would be read, and makes nothing."""
    code, out, _ = command(site, "sync", "--init", "--dry-run")
    assert (code, out) == (0, "would read [2024-05-01T00:00:00Z, 2024-05-01T07:00:00Z)\n")
    assert not site.root.exists()
    lakes = set()
    for runs in (1, 2):
        start, end = (f"2024-05-01T0{hour}:00:00Z" for hour in (runs, runs + 1))
        assert command(site, "sync", "--init", "--start", start, "--end", end)[0] == 0
        lakes.add(properties(site.opened("run"))[LAKE_ID])
        assert len(site.ledger()) == runs
    assert len(lakes) == 1


# -- the lake's id -----------------------------------------------------------------------------------------------


def test_the_metrics_carry_the_lakes_id(site: Site) -> None:
    """A new lake in the place of the old one has another."""
    ids = []
    for _ in range(2):
        site.sync()
        text = metrics_text(*status_and_runs(site.settings, clock=lambda: datetime(2024, 5, 1, 8, tzinfo=UTC))[:2])
        (lake,) = re.findall(r'^dicom_etl_lake_info\{lake="(.+)"\} 1$', text, re.MULTILINE)
        assert str(uuid.UUID(lake)) == properties(site.opened("run"))[LAKE_ID]
        ids.append(lake)
        site.root.rename(site.folder / f"away{len(ids)}")
    assert len(set(ids)) == 2
