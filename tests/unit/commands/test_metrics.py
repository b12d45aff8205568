"""What an operator watches: the metrics file, what `status` prints, and logs of every verb as JSON."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click
import pytest

from dicom_emulator.testing.faults import Fault
from dicom_etl.cli.main import cli
from dicom_etl.commands import watch as watch_module
from dicom_etl.commands.exit_metrics import EXIT_METRICS
from dicom_etl.commands.metrics import metrics_after, metrics_text
from dicom_etl.commands.output_metrics import OUTPUT_METRICS
from dicom_etl.commands.prometheus import metric_lines, write_metrics
from dicom_etl.commands.watch import Stop
from dicom_etl.core.errors import AccessDenied, ConfigurationError
from dicom_etl.core.settings.load import load_settings
from dicom_etl.core.settings.model import Settings
from dicom_etl.core.timerange import from_datetime
from dicom_etl.lake.ledger import Run
from dicom_etl.lake.status import Status
from support.landing_only import landing_only
from support.site import Site

NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)

# -- the text format -----------------------------------------------------------------------------------------------

_HELP = re.compile(r"# HELP ([a-z_]+) (\S.*)")
_TYPE = re.compile(r"# TYPE ([a-z_]+) (counter|gauge)")
_SAMPLE = re.compile(r'([a-z_]+)(\{[a-z_]+="[a-z0-9-]+"\})? (-?\d+(?:\.\d+)?(?:e[+-]?\d+)?)')


def parsed(text: str) -> dict[str, float]:
    """The samples by name and label, read strictly: HELP, TYPE and samples of each metric together, once."""
    assert text.endswith("\n")
    lines = text.removesuffix("\n").split("\n")
    samples: dict[str, float] = {}
    seen: list[str] = []
    while lines:
        told, kind = _HELP.fullmatch(lines.pop(0)), _TYPE.fullmatch(lines.pop(0))
        assert told is not None
        assert kind is not None
        name = told[1]
        assert name == kind[1]
        assert name not in seen
        assert (kind[2] == "counter") == name.endswith("_total")
        seen.append(name)
        before = len(samples)
        while lines and not lines[0].startswith("#"):
            sample = _SAMPLE.fullmatch(lines.pop(0))
            assert sample is not None
            assert sample[1] == name
            key = name.removeprefix("dicom_etl_") + (sample[2] or "")
            assert key not in samples
            samples[key] = float(sample[3])
        assert len(samples) > before
    return samples


def test_the_parser_of_these_tests_is_strict() -> None:
    """Whatever Prometheus would refuse, or count twice, is no metrics file."""
    good = "# HELP a_b x\n# TYPE a_b gauge\na_b 1\n"
    assert parsed(good) == {"a_b": 1}
    for bad in (good[:-1], good + "a_b 2\n", good + good, "a_b 1\n", good.replace("1", "None"), good + "\n"):
        with pytest.raises((AssertionError, IndexError)):
            parsed(bad)


def a_run(run_id: int, **values: Any) -> Run:
    started = NOON + timedelta(hours=run_id)
    defaults: dict[str, Any] = {"verb": "sync", "status": "succeeded", "finished_at": started + timedelta(seconds=90)}
    return Run(run_id=run_id, started_at=started, **{**defaults, **values})


RUNS = [
    a_run(1, entries_read=15, inserted=5, updated=4, deleted=3, superseded=2, rejected=1, retries=7),
    a_run(2, status="failed", error_class="ServiceUnavailable", retries=20),
    a_run(
        3, entries_read=10, inserted=10, start_seconds=4.5, fetch_seconds=1.25, land_seconds=0.5, merge_seconds=2.75,
        rollup_seconds=3.5,
    ),
    a_run(4, status="superseded"),
    a_run(5, verb="maintain"),
    a_run(6, status="killed", entries_read=14, deleted=13, superseded=1, error_class="Killed"),
]  # fmt: skip
LAKE = uuid.UUID("0e9b9f5a-6d7e-4c1f-8a55-0d2f3c4b5a69")
STATUS = Status(
    lake_id=LAKE,
    covered_until=from_datetime(NOON) + 5_000_000,
    lag_seconds=4500.25,
    windows_due=2,
    entries_per_second=0.1,
    eta_seconds=12.0,
    open_rejects=1,
    last_error=None,
    last_runs=tuple(RUNS),
)


def test_the_metrics_of_a_ledger() -> None:
    """Sums over all runs, the newest reading run's steps, and the instants in seconds since 1970."""
    noon = NOON.timestamp()
    assert parsed(metrics_text(STATUS, RUNS)) == {
        f'lake_info{{lake="{LAKE}"}}': 1,
        "lag_seconds": 4500.25,
        "last_success_timestamp_seconds": noon + 3 * 3600 + 90,
        "last_maintain_timestamp_seconds": noon + 5 * 3600 + 90,
        "covered_until_timestamp_seconds": noon + 0.5,
        "windows_due": 2,
        'entries_total{outcome="inserted"}': 15,
        'entries_total{outcome="updated"}': 4,
        'entries_total{outcome="deleted"}': 16,
        'entries_total{outcome="superseded"}': 3,
        'entries_total{outcome="rejected"}': 1,
        'runs_total{status="succeeded"}': 3,
        'runs_total{status="failed"}': 1,
        'runs_total{status="superseded"}': 1,
        'runs_total{status="killed"}': 1,
        "retries_total": 27,
        "open_rejects": 1,
        'last_run_seconds{step="start"}': 4.5,
        'last_run_seconds{step="fetch"}': 1.25,
        'last_run_seconds{step="land"}': 0.5,
        'last_run_seconds{step="merge"}': 2.75,
        'last_run_seconds{step="rollup"}': 3.5,
    }


def test_a_counter_never_falls() -> None:
    """Whatever the next row of the ledger is, and however the last run ended."""
    counted = [parsed(metrics_text(STATUS, RUNS[:count])) for count in range(len(RUNS) + 1)]
    counters = [name for name in counted[0] if "_total" in name]
    assert len(counters) == 10
    for name in counters:
        values = [sample[name] for sample in counted]
        assert values == sorted(values)
        assert values[0] == 0


def test_what_is_not_known_is_left_out() -> None:
    """No run yet: no steps, and the last success is so long ago that an alert fires; rejects that may not be read."""
    samples = parsed(metrics_text(replace(STATUS, open_rejects=None), []))
    assert samples["last_success_timestamp_seconds"] == 0
    assert "open_rejects" not in samples
    assert not [name for name in samples if name.startswith("last_run_seconds")]


def test_only_what_reads_the_feed_counts_as_success() -> None:
    """A daily `maintain` that succeeds must not hide syncs that fail."""
    samples = parsed(metrics_text(STATUS, [a_run(1), a_run(2, status="failed"), a_run(3, verb="maintain")]))
    assert samples["last_maintain_timestamp_seconds"] == (NOON + timedelta(hours=3, seconds=90)).timestamp()
    assert samples["last_success_timestamp_seconds"] == (NOON + timedelta(hours=1, seconds=90)).timestamp()


def alerts(text: str) -> dict[str, str]:
    """The expressions of the alerts in a Markdown text, by name."""
    return dict(re.findall(r"^ +- alert: (\w+).*\n +expr: (.+)$", text, re.MULTILINE))


def unknown_metrics(text: str) -> set[str]:
    """What a text names like a metric of ours and no metrics file holds."""
    written = set(re.findall(r"^# TYPE (\S+)", metrics_text(STATUS, RUNS), re.MULTILINE))
    assert len(written) == 11
    written |= {metric.name for metric in (*EXIT_METRICS, *OUTPUT_METRICS)}
    return set(re.findall(r"dicom_etl_[a-z_]+", text)) - written


def test_the_alerts_of_the_guide_ask_for_metrics_that_are_written() -> None:
    """A misspelt one, the broken twin, would never fire; a lake that was replaced shows in its id and its counters."""
    guide = (Path(__file__).parents[3] / "docs" / "operations.md").read_text(encoding="utf-8")
    watching = guide[guide.index("## What to watch") : guide.index("## When something fails")]
    found = alerts(watching)
    assert len(found) == 12
    first = {code for code in (64, 65, 70, 74, 75, 77, 78) if f"== {code}" in found["DicomNeedsAPerson"]}
    assert first == {64, 65, 70, 77, 78}, "what passes by itself shows in the lag"
    assert {name for name, rule in found.items() if "dicom_etl_lake_info" in rule} == {"DicomLakeReplaced"}
    assert "resets(dicom_etl_runs_total[1d]) > 0" in found["DicomLakeReplaced"]
    tickets = set(re.findall(r"alert: (\w+)(?:(?!alert:).)*?severity: ticket", watching, re.DOTALL))
    assert {name for name, rule in found.items() if "dicom_etl_output" in rule} == {
        "DicomOutputFails", "DicomOutputBehind",
    } <= tickets  # fmt: skip
    assert unknown_metrics("".join(found.values())) == set()
    assert unknown_metrics(found["DicomLakeReplaced"].replace("lake_info", "lake_id")) == {"dicom_etl_lake_id"}


def test_the_reference_page_lists_each_metric_with_its_type_and_label() -> None:
    """As they are written: the page and the file come from one declaration."""
    page = (Path(__file__).parents[3] / "docs" / "metrics.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| `(dicom_etl_[a-z_]+)(?:\{([a-z]+)\})?` \| (gauge|counter) \|", page, re.MULTILINE)
    others = (*((metric, {"columns": 0}) for metric in OUTPUT_METRICS), *((one, {"sync": 0}) for one in EXIT_METRICS))
    written = metrics_text(STATUS, RUNS) + "".join(metric_lines(metric, values) for metric, values in others)
    assert len(listed) == 15
    assert [(name, kind) for name, _, kind in listed] == re.findall(r"^# TYPE (\S+) (\S+)", written, re.MULTILINE)
    assert {(name, label) for name, label, _ in listed if label} == set(
        re.findall(r"^(\w+)\{(\w+)=", written, re.MULTILINE)
    )


# -- the file --------------------------------------------------------------------------------------------------------


def in_place(file: Path, text: str) -> None:
    """What `write_metrics` must not do."""
    file.write_text(text, encoding="utf-8")


def torn(write: Callable[[Path, str], None], folder: Path) -> tuple[str, list[str]]:
    """The file after a write that ended half way, and all names beside it."""
    file = folder / "etl.prom"
    file.write_text("old\n")
    with pytest.raises(UnicodeEncodeError):
        write(file, "new" * 10_000 + "\ud800\n" * 10_000)
    return file.read_text(), [path.name for path in folder.iterdir()]


def test_a_write_that_ends_half_way_leaves_the_old_file(tmp_path: Path) -> None:
    """And nothing beside it; a write in place is caught by this test."""
    assert torn(write_metrics, tmp_path) == ("old\n", ["etl.prom"])
    assert torn(in_place, tmp_path)[0] != "old\n"


def test_a_collector_reads_the_old_file_or_the_new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until the rename the old one, whole, and no other name that it would read; the umask decides who may."""
    file = tmp_path / "etl.prom"
    file.write_text("old\n")
    seen: list[tuple[str, list[str]]] = []
    real = os.replace

    def watched(source: Path, target: Path) -> None:
        seen.append((file.read_text(), [path.name for path in tmp_path.glob("*.prom")]))
        assert Path(source).parent == file.parent
        assert Path(source).read_text() == "new\n"
        real(source, target)

    monkeypatch.setattr(os, "replace", watched)
    before = os.umask(0o022)
    try:
        write_metrics(file, "new\n")
    finally:
        os.umask(before)
    assert seen == [("old\n", ["etl.prom"])]
    assert file.read_text() == "new\n"
    assert stat.S_IMODE(file.stat().st_mode) == 0o644
    assert list(tmp_path.iterdir()) == [file]


def test_a_link_that_waits_in_the_folder_is_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither where the scratch file is made, whose name nobody can foresee, nor where the file is put."""
    theirs, file = tmp_path / "theirs", tmp_path / "etl.prom"
    theirs.write_text("theirs\n")
    file.symlink_to(theirs)
    (tmp_path / f".etl.prom.{os.getpid()}.tmp").symlink_to(theirs)
    write_metrics(file, "ours\n")
    assert (theirs.read_text(), file.read_text(), file.is_symlink()) == ("theirs\n", "ours\n", False)

    monkeypatch.setattr("secrets.token_hex", lambda _length: "foreseen")
    (tmp_path / ".etl.prom.foreseen.tmp").symlink_to(theirs)
    with pytest.raises(FileExistsError):
        write_metrics(file, "again\n")
    assert (theirs.read_text(), file.read_text()) == ("theirs\n", "ours\n")


# -- after each run, over a real socket -------------------------------------------------------------------------------


@pytest.fixture
def site(tmp_path: Path, logged: Callable[[], str]) -> Iterator[Site]:
    """A service whose clock stands at 08:00, a lake without a run, and runs that land and do not merge."""
    del logged
    with landing_only(tmp_path, f"metrics.prometheus_file={tmp_path / 'etl.prom'}") as made:
        yield made.init()


def samples(site: Site) -> dict[str, float]:
    return parsed((site.folder / "etl.prom").read_text())


def typed(site: Site, verb: str, *words: str) -> Any:
    settings = [f"--set={text}" for text in site.texts]
    return cli.main([verb, *settings, *words], standalone_mode=False)


def test_the_metrics_are_written_after_a_run_and_after_a_failed_one(
    site: Site, logged: Callable[[], str], capsys: pytest.CaptureFixture[str]
) -> None:
    """A first sync, then one that the service refuses: its row counts, and what was covered stays."""
    assert typed(site, "sync", "--json") == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["status"] for row in rows] == ["succeeded"]
    first = samples(site)
    assert (first['runs_total{status="succeeded"}'], first['runs_total{status="failed"}']) == (1, 0)
    assert first["covered_until_timestamp_seconds"] == datetime(2024, 5, 1, 7, tzinfo=UTC).timestamp()

    site.clock(12)
    site.service.faults.add(Fault(status=403))
    with pytest.raises(AccessDenied):
        typed(site, "sync")
    second = samples(site)
    assert (second['runs_total{status="succeeded"}'], second['runs_total{status="failed"}']) == (1, 1)
    for name in ("covered_until_timestamp_seconds", "last_success_timestamp_seconds"):
        assert second[name] == first[name]
    assert "metrics not written" not in logged()


def test_nothing_of_a_patient_is_in_the_file(site: Site) -> None:
    """Counts and instants only, after a run that read an instance."""
    site.clock(3)
    site.create("1.2.840.77", "1.2.840.78", "1.2.840.79", name="MARKER^PATIENT", id="MARKER-1")
    site.clock(8)
    typed(site, "sync")
    text = (site.folder / "etl.prom").read_text()
    assert sum(value for name, value in parsed(text).items() if name.startswith("entries_total")) == 1
    assert "MARKER" not in text
    assert "1.2.840" not in text


@pytest.mark.parametrize("name", ["~nobody-of-this-name/etl.prom", "/", "."])
def test_a_name_that_is_no_files_fails_no_run(site: Site, logged: Callable[[], str], name: str) -> None:
    """Python has errors of other kinds for these."""
    assert typed(site.having(f"metrics.prometheus_file={name}"), "sync") == 0
    assert "metrics not written error=" in logged()


def test_metrics_that_cannot_be_written_fail_no_run(site: Site, logged: Callable[[], str]) -> None:
    """A line in the log, without the path; the run's exit code, or its own error, stays."""
    elsewhere = site.having(f"metrics.prometheus_file={site.folder / 'missing' / 'etl.prom'}")
    assert typed(elsewhere, "sync") == 0
    said = logged()
    assert "metrics not written error=FileNotFoundError" in said
    assert "missing" not in said
    site.service.faults.add(Fault(status=403))
    site.clock(12)
    with pytest.raises(AccessDenied):
        typed(elsewhere, "sync")


def test_without_a_lake_there_are_no_metrics(site: Site, logged: Callable[[], str]) -> None:
    """No file, or the one of the lake that was there: its age is what an alert sees. The sync's own error is enough."""
    with pytest.raises(ConfigurationError, match="no lake at "):
        typed(site.having(f"lake.root={site.folder / 'typo'}"), "sync")
    assert not (site.folder / "etl.prom").exists()
    assert "metrics not written" not in logged()


def test_a_dry_run_writes_nothing(site: Site) -> None:
    """Not even metrics."""
    assert typed(site, "sync", "--dry-run") == 0
    assert not (site.folder / "etl.prom").exists()


def test_watch_writes_them_before_each_pause(
    site: Site, monkeypatch: pytest.MonkeyPatch, logged: Callable[[], str]
) -> None:
    """So that a sync that failed, of which watch tells nobody, is seen as well, and the lag grows in the file."""
    typed(site, "sync")
    file = site.folder / "etl.prom"
    seen = []

    def watch(_settings: Settings, *, stop: Stop, **_: Any) -> Iterator[Run]:
        for _ in range(2):
            file.unlink()
            stop.wait(0)
            seen.append(samples(site)["lag_seconds"])
        file.unlink()
        yield from site.sync(now=datetime(2024, 5, 1, 8, tzinfo=UTC))
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(watch_module, "watch", watch)
    with pytest.raises(click.Abort):
        typed(site, "watch")
    assert len(seen) == 2
    assert seen[0] < seen[1]
    assert file.exists()
    assert "metrics not written" not in logged()


@pytest.mark.parametrize("end", [None, KeyboardInterrupt, ValueError])
def test_the_file_is_written_however_the_block_ends(site: Site, end: type[BaseException] | None) -> None:
    """Also after an interrupt and a bug, which pass; without a file's name nothing is read or written."""
    site.sync()
    settings = site.settings
    for wanted in (settings, site.having("metrics.prometheus_file=").settings):
        file = site.folder / "etl.prom"
        file.unlink(missing_ok=True)
        try:
            with metrics_after(wanted):
                assert not file.exists()
                if end is not None:
                    raise end
        except (KeyboardInterrupt, ValueError) as error:
            assert type(error) is end  # noqa: PT017  both loops, one of three ends
        assert file.exists() == bool(wanted.metrics.prometheus_file)


def test_the_setting_is_taken(tmp_path: Path) -> None:
    """It was refused while nothing was written."""
    settings = load_settings(None, ["metrics.prometheus_file=/tmp/etl.prom"], {}, tmp_path)
    assert settings.metrics.prometheus_file == "/tmp/etl.prom"


# -- status and logs --------------------------------------------------------------------------------------------------


def test_status_prints_rounded_numbers_and_json_all_digits(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    """Coverage, lag, what is due, pace, time to go, rejects, the last error; durations in words, too; --max-lag: 1."""
    site.clock(3)
    site.create("1", "2", "3")
    site.clock(8)
    typed(site, "sync")
    capsys.readouterr()
    assert typed(site, "status", "--json", "--max-lag", "1h") == 1
    facts = json.loads(capsys.readouterr().out)
    assert list(facts) == [
        "coveredUntil", "lagSeconds", "windowsDue", "entriesPerSecond", "eta", "openRejects", "lastError",
        "lastErrorAt", "writer", "writerState",
    ]  # fmt: skip
    assert facts["coveredUntil"] == "2024-05-01T07:00:00Z"
    assert (facts["openRejects"], facts["lastError"]) == (0, None)
    assert (facts["writer"], facts["writerState"]) == (None, None)
    assert facts["windowsDue"] > 1000

    assert typed(site, "status", "--max-lag", "36500d") == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    printed = {line[0]: line[1] for line in lines if len(line) >= 2}
    assert re.fullmatch(r"\d+\.\d", printed["lagSeconds"])
    beside = {line[0]: " ".join(line[2:]) for line in lines if len(line) > 2 and line[2].startswith("(")}
    assert list(beside) == ["lagSeconds", "eta"]
    assert re.fullmatch(r"\(\d+ years?\)", beside["lagSeconds"]), "2024 is behind by years"
    assert re.fullmatch(r"\d+\.\d", printed["entriesPerSecond"])
    assert re.fullmatch(r"\d+\.\d", printed["eta"])
    assert printed["windowsDue"].isdigit()


def test_status_names_the_last_error(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    """The class of the error of a run that failed, and when: a sync that finds nothing due leaves no row."""
    typed(site, "sync")
    site.service.faults.add(Fault(status=403))
    site.clock(12)
    with pytest.raises(AccessDenied):
        typed(site, "sync")
    capsys.readouterr()
    typed(site, "status", "--json")
    row = json.loads(capsys.readouterr().out)
    assert row["lastError"] == "AccessDenied"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+Z", row["lastErrorAt"])


def test_status_says_who_writes_and_who_died(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a claim of its own: what it found is there afterwards."""
    typed(site, "sync")
    (file,) = (site.root / "_claims").glob("*.json")
    claim = json.loads(file.read_text())
    for pid, state in ((claim["pid"], "running"), (2**31 - 1, "died")):
        file.write_text(json.dumps(claim | {"released": False, "pid": pid}))
        capsys.readouterr()
        typed(site, "status", "--json")
        facts = json.loads(capsys.readouterr().out)
        assert facts["writerState"] == state
        assert "sync" in facts["writer"]
        assert json.loads(file.read_text())["released"] is False
    shutil.rmtree(file.parent)
    file.parent.write_text("")
    assert typed(site, "status") == 0


def leaves(command: click.Command, *above: str) -> Iterator[tuple[str, click.Command]]:
    if isinstance(command, click.Group):
        for name, below in command.commands.items():
            yield from leaves(below, *above, name)
    else:
        yield " ".join(above), command


def test_every_verb_takes_a_log_format() -> None:
    """text or json."""
    verbs = dict(leaves(cli))
    assert {"sync", "watch", "status", "runs", "verify", "repair", "maintain", "query", "doctor"} <= set(verbs)
    for name, command in verbs.items():
        (option,) = [one for one in command.params if one.name == "log_format"]
        assert isinstance(option.type, click.Choice), name
        assert list(option.type.choices) == ["text", "json"], name


def test_with_json_logs_results_and_errors_are_json_too(site: Site) -> None:
    """Of a process with both outputs in one file, as cron has it; as text, the broken twin, no line of them is."""
    site.service.clock.run()
    base, root = site.settings.dicom.base_url, site.folder / "none"
    typed = [sys.executable, "-m", "dicom_etl", "status", "--set", f"dicom.base_url={base}"]

    def lines(*more: str) -> tuple[int, list[str]]:
        done = subprocess.run([*typed, *more], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        return done.returncode, done.stdout.splitlines()

    said = f"no lake at {root}: mount its storage, or correct lake.root, or make a new lake by dicom-etl init"
    assert lines("--set", f"lake.root={root}")[1] == [f"dicom-etl: {said}"]
    code, (line,) = lines("--set", f"lake.root={root}", "--log-format", "json")
    event = json.loads(line)
    assert (code, event["level"], event["event"]) == (78, "ERROR", said)
    assert set(event) == {"time", "level", "logger", "event", "exit_code", "error_class", "run_id"}
    assert (event["exit_code"], event["error_class"], event["run_id"]) == (78, "ConfigurationError", None)
    # So does what cannot be parsed, wherever the option stands.
    code, (line,) = lines("--log-format=json", "--maxlag", "3h")
    assert (code, json.loads(line)["event"]) == (64, "No such option '--maxlag'. Did you mean '--max-lag'?")


def test_logs_are_json_when_asked(site: Site, logged: Callable[[], str], capsys: pytest.CaptureFixture[str]) -> None:
    """One object a line on standard error, and the results alone on standard output."""
    elsewhere = site.having(f"metrics.prometheus_file={site.folder / 'missing' / 'etl.prom'}")
    assert typed(elsewhere, "sync", "--log-format", "json") == 0
    said = capsys.readouterr()
    events = [json.loads(line) for line in said.err.splitlines()]
    assert {"time", "level", "logger", "event"} <= set(events[0])
    assert {"event": "metrics not written", "error": "FileNotFoundError"}.items() <= events[-1].items()
    assert [json.loads(line)["runId"] for line in said.out.splitlines()] == [1]
    assert logged() == ""
