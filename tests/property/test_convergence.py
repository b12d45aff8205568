"""The promise: any windows, any order, repeated, crashed: the tables equal the service.

design/architecture.md: Convergence.

Thousands of random histories (`dicom_emulator.testing.random_feed`) share one feed and one lake. While they happen,
ranges of the feed are read at random, and runs die at random points. The oracle is the emulator's
own store, asked over HTTP. The seed is printed at the end; DICOM_ETL_TEST_SEED=n repeats it.
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from random import Random
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from deltalake import DeltaTable
from pyarrow.fs import LocalFileSystem, SubTreeFileSystem

from dicom_emulator.testing.faults import Fault
from dicom_emulator.testing.random_feed import HOUR, Script, compose
from dicom_etl.core.timerange import format_instant
from dicom_etl.lake.ledger import Run
from support import following
from support.accounted import COUNTS, total
from support.crashes import POINTS, Crash, Crashes
from support.following import Follower
from support.oracle import INSTANCE_KEY, Tables, instance_row, tables_of
from support.site import KATHMANDU, Site

DELAY = HOUR // 4
KINDS = ("due", "exactly", "until", "again")
# So many runs, and executions of the output, must have died; a few histories may spare them by chance.
DEATHS, OUTPUT_DEATHS = 3, 2
MODES = {"changed", "full"}
MOST_ROUNDS_MORE = 20


@dataclass(frozen=True)
class Plan:
    """How much happens: so many entries, and a read of the feed about every ``pause`` hours of its day.

    ``late``: rows become visible up to 25 minutes late, which the delay of 15 does not wait for. How likely: a read is
    to die (``death``), the output `columns` is brought up to date after it (``follow``), and dies (``output_death``).
    """

    entries: int
    pause: float
    seed: int | None
    late: bool = False
    death: float = 0.45
    follow: float = 0.8
    output_death: float = 0.6


# A fixed seed for every change of the code, and other histories in each soak.
PLANS = [
    pytest.param(Plan(2_700, 2.6, 20_261_121), id="five hundred histories"),
    pytest.param(Plan(53_000, 0.6, None), id="ten thousand histories", marks=pytest.mark.soak),
    pytest.param(Plan(26_000, 0.9, None, late=True), id="five thousand, later than the delay", marks=pytest.mark.soak),
]


@dataclass
class Told:
    """What has happened so far, for the line that is printed."""

    runs: Counter[str] = field(default_factory=Counter)
    crashes: Crashes = field(default_factory=Crashes)
    fates: Counter[str] = field(default_factory=Counter)

    @property
    def missing(self) -> list[str]:
        """The kinds of reads that there have been none of."""
        return [kind for kind in KINDS if not self.runs[kind]]


@pytest.mark.timeout(2400)
@pytest.mark.parametrize("plan", PLANS)
def test_the_tables_converge(
    make_site: Callable[..., Site],
    monkeypatch: pytest.MonkeyPatch,
    tell: Callable[[str], None],
    plan: Plan,
) -> None:
    """However the windows are cut and wherever runs die: in the end the three tables are what the service holds.

    And the tag tables what the three tables and the headers give, wherever their executions die.
    """
    seed = int(os.environ.get("DICOM_ETL_TEST_SEED") or (time.time_ns() % 10**9 if plan.seed is None else plan.seed))
    script = compose(seed, plan.entries, delay=DELAY * 5 // 3 if plan.late else DELAY)
    # Windows alone bring everything that is visible within the delay: nothing is read again.
    look_back = "3h" if plan.late else "0s"
    start = format_instant(script.frame.start)
    site = make_site(f"feed.start={start}", f"feed.look_back={look_back}", *following.SETTINGS)
    follower = Follower(Random(seed), monkeypatch)
    try:
        told = _live(site, script, Random(seed), plan, follower)
    except BaseException:
        tell(f"convergence failed: seed {seed}, {script.entries} entries")
        raise
    kinds = script.kinds()
    tell(
        f"convergence: seed {seed}, {script.histories} histories, {script.entries} entries, "
        f"runs {dict(told.runs)}, deaths {told.crashes.met | follower.crashes.met}, fates {dict(told.fates)}, "
        f"columns {dict(Counter(one.mode for one in follower.executions))}"
    )

    assert min(kinds[name] for name in ("re-create after update", "delete study", "tie", "crossed", "gap")) >= 5, kinds
    assert told.missing == [], told.runs
    assert told.crashes.deaths >= DEATHS
    assert _least(told.fates) > 0, told.fates
    expected = _served(site)
    assert {name: len(rows) for name, rows in expected.items()}["instance"] > plan.entries / 10
    tables = site.tables()
    assert [name for name in tables if tables[name] != expected[name]] == [], f"seed {seed}"
    tags = following.tags_of(expected, following.created_sequences(_feed(site)))
    stored = following.stored_tags(site, tags)
    assert [name for name in tags if stored[name] != tags[name]] == [], f"seed {seed}"
    counted = following.quality_of(site.rows("instance_tags"), following.tag_columns(site))
    assert len(counted) > 40
    assert following.stored_quality(site) == counted, f"seed {seed}"
    assert follower.modes == MODES
    assert follower.crashes.deaths >= OUTPUT_DEATHS
    if not plan.late:
        assert _landed(site) == {row.sequence for row in _feed(site)}


def _live(site: Site, script: Script, random: Random, plan: Plan, follower: Follower) -> Told:
    """Let everything happen, reading and following at random, and then read and follow what is left."""
    told = Told()
    reader = _Reader(site, script, random, told)
    played = script.frame.start
    # The first hours pass unread: then there is a past that can be read out of order.
    now = played + int(3 * HOUR)
    while played < script.end:
        script.play(site.service, None if played == script.frame.start else played, now)
        played = now
        _round(reader, follower, now, plan)
        now += int(random.uniform(0.2, 1.8) * plan.pause * HOUR)
    now = _what_chance_spared(reader, follower, played, plan)
    site.service.faults.clear()
    for hour in (2, 3):
        reader.due(now + hour * HOUR)
    follower.follow(site, death=0)
    return told


def _round(reader: _Reader, follower: Follower, now: int, plan: Plan) -> None:
    """A read, and an execution of the output; each may be left out, or die."""
    random, crashes = reader.random, reader.told.crashes
    reader.poison()
    point = random.choice(list(POINTS)) if random.random() < plan.death else None
    death = crashes.at(point, random, follower.monkeypatch) if point else nullcontext()
    with death:
        reader.read(now)
    if follower.random.random() < plan.follow and _has_run(reader.site):
        follower.follow(reader.site, death=plan.output_death)


def _what_chance_spared(reader: _Reader, follower: Follower, now: int, plan: Plan) -> int:
    """Go on until the population is there that the test asserts; the time that it then is.

    The small plan has ten reads: seed 4711 let one of them die. Where nothing can die any more, this ends all the same.
    """
    told = reader.told
    for _ in range(MOST_ROUNDS_MORE):
        dead = told.crashes.deaths >= DEATHS, follower.crashes.deaths >= OUTPUT_DEATHS
        if all(dead) and not told.missing and follower.modes == MODES and _least(told.fates) > 0:
            break
        now += HOUR // 2
        reader.kinds = told.missing or KINDS
        death, output_death = (float(not enough) for enough in dead)
        _round(reader, follower, now, replace(plan, death=death, follow=1, output_death=output_death))
    return now


def _least(fates: Counter[str]) -> int:
    return min(fates[name] for name in COUNTS)


def _has_run(site: Site) -> bool:
    """Whether a run has succeeded: before, an output has nothing to follow."""
    return site.has("run") and any(row["status"] == "succeeded" for row in site.ledger())


class _Reader:
    """Reads the feed at random, and looks at every run that it makes."""

    def __init__(self, site: Site, script: Script, random: Random, told: Told) -> None:
        self.site, self.script, self.random, self.told = site, script, random, told
        self.read_before: list[tuple[int, int]] = []
        self.kinds: Sequence[str] = ("due", "due", "exactly", "until", "again")

    def poison(self) -> None:
        """For a while the metadata of other entries cannot be had."""
        self.site.service.faults.clear()
        recent = max(200, self.script.entries // 5)
        rows = self.site.service.history.window(0, 10**18, max(0, len(self.site.service.history) - recent), recent)
        poisoned = tuple(row.sequence for row in self.random.sample(rows, min(8, len(rows))))
        self.site.service.faults.add(Fault(status=500, sequences=poisoned))

    def read(self, now: int) -> None:
        """One sync of some kind."""
        start, random = self.script.frame.start, self.random
        kind = random.choice(self.kinds)
        if kind == "due":
            self.due(now)
            return
        if kind == "until":
            # Now and then in the future.
            self._sync("until", now, until=random.randrange(start + HOUR, now + HOUR))
            return
        if kind == "again" and self.read_before:
            begin, end = random.choice(self.read_before)
        else:
            kind, begin = "exactly", random.randrange(start, now)
            end = begin + 1 + random.randrange(random.choice((HOUR // 60, HOUR, 6 * HOUR)))
        self.read_before.append((begin, end))
        self._sync(kind, now, start=begin, end=end)

    def due(self, now: int) -> None:
        """Every window that is due, of some length, and in runs of some size."""
        window = self.random.choice(("1h", "1h", "20m", "150m"))
        most = self.random.choice((10**6, 1000, max(300, self.script.entries // 20)))
        self._sync("due", now, f"feed.window={window}", f"feed.max_entries_per_run={most}", max_runs=8)

    def _sync(self, kind: str, now: int, *settings: str, max_runs: int | None = None, **instants: int) -> None:
        batch, connections = self.random.choice((200, 200, 37)), self.random.choice((1, 4, 8))
        site = self.site.having(f"feed.batch_size={batch}", f"dicom.connections={connections}", *settings)
        moment = (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=now // 10)).astimezone(KATHMANDU)
        site.service.clock.freeze(now)
        self.told.runs[kind] += 1
        texts = {name: format_instant(ticks) for name, ticks in instants.items()}
        with suppress(Crash):
            for run in site.runs(**texts, max_runs=max_runs, now=moment):
                self._look_at(run, now)

    def _look_at(self, run: Run, now: int) -> None:
        """Nothing is covered that was still open. (Each entry is accounted for by `Site.runs`.)"""
        assert run.covered_until is not None and run.window_start is not None  # noqa: PT018
        assert run.covered_until <= max(now - DELAY, run.window_start)
        total(self.told.fates, run)


def _landed(site: Site) -> set[int]:
    path = str(site.root / "change")
    dataset = DeltaTable(path).to_pyarrow_dataset(filesystem=SubTreeFileSystem(path, LocalFileSystem()))
    return set(dataset.to_table(columns=["sequence"])["sequence"].to_pylist())


def _feed(site: Site) -> list[Any]:
    return list(site.service.history.window(0, 10**18, 0, 10**9))


def _served(site: Site) -> Tables:
    """The tables of what the service holds, asked over HTTP."""
    answer = httpx.get(f"{site.emulator.base_url}/_emulator/instances?metadata=true", timeout=300, trust_env=False)
    live = json.loads(answer.raise_for_status().content)
    rows = []
    for one in live:
        key = tuple(one[name] for name in INSTANCE_KEY)
        named = SimpleNamespace(
            key=key, sequence=one["sequence"], ticks=one["ticks"], file_path=one["filePath"],
            metadata=json.dumps(one["metadata"]),
        )  # fmt: skip
        rows.append(instance_row(named))
    return tables_of(rows)
