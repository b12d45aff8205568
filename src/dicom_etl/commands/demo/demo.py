"""The story of ``dicom-etl demo``: real DICOM files into a service, through its change feed, into three tables."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pydicom

from dicom_etl.commands.demo.fhir import PATIENTS, correct_number, print_study, show_gone
from dicom_etl.commands.demo.plan import PYDICOM_FILES, DemoFailed, Instance, Plan, plan
from dicom_etl.lake.delta.table import open_table, read_rows
from dicom_etl.tables.engine.jars import installed_jars

FOLDER = Path("demo-lake")
CONFIG = FOLDER / "demo.toml"
STEP_TICKS = 60 * 10_000_000  # the demo's service makes one change a minute
KILLED_BEHIND = "instance merged"
SHOWN_NAMES = 3  # of the files that the service refused, for each reason

_COMMAND = [sys.executable, "-m", "dicom_etl"]


def main(fhir_address: str | None = None) -> int:
    """The exit code of the demo; the FHIR server at ``fhir_address`` is filled, or else a local one of our own."""
    if not installed_jars() and (code := subprocess.run([*_COMMAND, "setup"], check=False).returncode):
        return code  # it has said why
    for name in [name for name in os.environ if name.startswith("DICOM_ETL")]:
        del os.environ[name]  # the demo's settings are the demo's
    _fresh_folder()
    with _service() as (address, local_fhir):
        _write_config(address)
        say("1. Upload every DICOM file that the pydicom package ships (a service refuses the odd ones: expected)")
        _upload([PYDICOM_FILES])
        say("2. Sync: the change feed, window by window, into a new lake (--until: this hour is still open)")
        _run("sync", "--init", "--until", _now(address))
        before = _sizes()
        _print_sizes(before)
        _run("query", "SELECT modality, count(*) AS instances, count(DISTINCT studyInstanceUid) AS studies "
             "FROM instance GROUP BY modality ORDER BY instances DESC LIMIT 6")  # fmt: skip
        say("3. An hour later things change in the service")
        _control(address, "PUT", "clock", {"advance": 60 * STEP_TICKS})
        _change(address, plan(_instances(address)))
        say("4. Sync again, and kill -9 it between the first MERGE and the others")
        _killed_sync("--until", _now(address))
        say("5. Run it once more: it takes over the dead run's claim and completes its work")
        _run("sync", "--until", _now(address))
        _print_changes(before, _sizes())
        _run("runs")
        _open_one_file()
        say("6. Do the tables equal the service?")
        _verify()
        say("7. Any tag a column: choose one, fill it from the headers that the lake has, and ask for it")
        _run("columns", "add", "KVP")
        _run("columns", "backfill")
        _run("query", "SELECT manufacturer, kvp, sliceThickness, count(*) AS instances FROM instance_tags "
             "WHERE kvp IS NOT NULL GROUP BY ALL ORDER BY instances DESC LIMIT 6")  # fmt: skip
        say("8. ImagingStudy in a FHIR server, kept equal to the tables")
        _show_fhir(address, fhir_address or local_fhir)
    _say_what_next()
    return 0


def _show_fhir(service: str, server: str) -> None:
    """Fill a FHIR server, let a patient's number be corrected and a study be deleted, and show that it follows."""
    print(f"A FHIR R4 server answers at {server}", flush=True)
    with CONFIG.open("a") as config:
        config.write(f'[fhir]\nbase_url = "{server}"\npatients = "find_or_create"\ndefault_system = "{PATIENTS}"\n')
    _run("fhir")
    studies = sorted(Counter(one.study for one in _instances(service)).items(), key=lambda one: (-one[1], one[0]))
    corrected, deleted = studies[0][0], studies[1][0]
    print_study(server, corrected)
    print("In the service that patient's number is corrected by a bulk update, and another study is deleted.")
    correct_number(service, corrected)
    _delete(f"{service}/v2/studies/{deleted}", "a whole study was deleted")
    _run("sync", "--until", _now(service), "--set", 'outputs.after_sync=["columns", "fhir"]')
    print_study(server, corrected)
    show_gone(server, deleted)
    _run("fhir", "verify")


def is_there() -> bool:
    """Whether the folder of an earlier demo is in the working folder, which ``main`` replaces."""
    return CONFIG.exists()


def say(text: str) -> None:
    print(f"\n== {text}", flush=True)


def _fresh_folder() -> None:
    if FOLDER.exists() and not CONFIG.exists():
        raise DemoFailed(f"the folder {FOLDER} is there and not the demo's: move it away and run again")
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir()


def _write_config(address: str) -> None:
    start = _yesterday().isoformat().replace("+00:00", "Z")
    CONFIG.write_text(
        f"""[dicom]
base_url = "{address}"
[feed]
start = "{start}"
delay = "0s"  # nothing is late in a service that stands still; a real one needs its 15m
[lake]
root = {json.dumps(str((FOLDER / "tables").absolute()))}
[files]
root = {json.dumps(str((FOLDER / "files").absolute()))}
"""
    )


def _yesterday() -> datetime:
    return datetime.now(UTC).replace(hour=8, minute=0, second=0, microsecond=0) - timedelta(days=1)


@contextmanager
def _service() -> Iterator[tuple[str, str]]:
    """The addresses of a DICOM service and of a FHIR server of our own; the files lie in the demo's folder."""
    command = [*_COMMAND, "emulator", "--fhir", "--port", "0", "--lake", str(FOLDER / "files")]
    CONFIG.touch()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            fhir, address = (process.stdout.readline().rpartition(" ")[2].strip() for _ in range(2))
            if not address.startswith("http"):
                raise DemoFailed("the local DICOM service did not start")
            print(f"A DICOM service answers at {address}, its files lie in {FOLDER / 'files'}", flush=True)
            _control(address, "PUT", "clock", {"freeze": _yesterday().isoformat(), "step": STEP_TICKS})
            yield address, fhir
        finally:
            process.terminate()


def _control(address: str, method: str, what: str, body: Any = None) -> Any:
    return httpx.request(method, f"{address}/_emulator/{what}", json=body).raise_for_status().json()


def _now(address: str) -> str:
    """The service's time."""
    date = httpx.get(f"{address}/v2/changefeed", params={"limit": 1}).headers["date"]
    moment = datetime.strptime(date, "%a, %d %b %Y %H:%M:%S GMT").replace(tzinfo=UTC)
    return moment.isoformat().replace("+00:00", "Z")


def _typed(*words: str) -> list[str]:
    """A command as it would be typed, printed; the words to run it."""
    verb = 2 if words[0] in ("columns", "fhir") and len(words) > 1 else 1  # a group of commands
    words = (*words[:verb], "--config", str(CONFIG), *words[verb:])
    shown = (shlex.quote(word) if '"' in word else f'"{word}"' if " " in word else word for word in words)
    print("\n$ dicom-etl " + " ".join(shown), flush=True)
    return [*_COMMAND, *words]


def _run(*words: str) -> None:
    if code := subprocess.run(_typed(*words), check=False).returncode:
        raise DemoFailed(f"dicom-etl {words[0]} ended with exit code {code}")


def _upload(paths: list[Path]) -> None:
    """Upload by the command line, and print what came of it: counts, and the service's reason for each refusal."""
    words = _typed("upload", "--json", *map(str, paths))
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    outcomes = [json.loads(line) for line in done.stdout.splitlines()]
    if not outcomes:
        raise DemoFailed("nothing was uploaded: " + done.stderr.strip())
    for kind, count in Counter(outcome["outcome"] for outcome in outcomes).most_common():
        print(f"{count:5} {kind}")
    reasons = defaultdict(list)
    for outcome in outcomes:
        if outcome["outcome"] == "refused":
            reasons[outcome["reason"]].append(Path(outcome["path"]).name)
    for reason, names in reasons.items():
        shown = ", ".join(sorted(set(names))[:SHOWN_NAMES]) + (", ..." if len(names) > SHOWN_NAMES else "")
        print(f"      refused, {reason}: {len(names)} ({shown})")


def _instances(address: str) -> list[Instance]:
    return [
        Instance(row["studyInstanceUid"], row["seriesInstanceUid"], row["sopInstanceUid"])
        for row in _control(address, "GET", "instances")
    ]


def _change(address: str, planned: Plan) -> None:
    body = {
        "studyInstanceUids": [planned.updated_study],
        "changeDataset": {"00100010": {"vr": "PN", "Value": [{"Alphabetic": "Updated^In^Bulk"}]}},
    }
    httpx.post(f"{address}/v2/studies/$bulkUpdate", json=body).raise_for_status()
    print("a study's patient name was changed by a bulk update")
    studies = f"{address}/v2/studies"
    _delete(f"{studies}/{planned.deleted_study}", "a whole study was deleted")
    for instance, what in (
        (planned.last_of_series, "the last instance of a series was deleted"),
        (planned.one_of_many, "one instance of a series was deleted"),
    ):
        _delete(f"{studies}/{instance.study}/series/{instance.series}/instances/{instance.sop}", what)
    print("one file of the deleted study was uploaded again")
    _upload([planned.uploaded_again])


def _delete(url: str, what: str) -> None:
    httpx.delete(url).raise_for_status()
    print(what)


def _killed_sync(*words: str) -> None:
    """Run sync and kill it as soon as it says that the first MERGE is done."""
    with subprocess.Popen(_typed("sync", *words), stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            print(line, end="", file=sys.stderr, flush=True)
            if KILLED_BEHIND in line:
                os.kill(process.pid, signal.SIGKILL)
                break
    if process.returncode != -signal.SIGKILL:
        raise DemoFailed("the sync ended before it could be killed")
    print(f"killed -9 (exit {process.returncode}): instance is new, series and study are old.")
    print(
        "It wrote no row in the ledger: the next run writes one for it, killed, with what it had committed.", flush=True
    )


def _sizes() -> dict[str, int]:
    """The rows of each table, read by delta-rs: what Spark writes, others read."""
    return {name: len(_read(name, "studyInstanceUid")) for name in ("instance", "series", "study")}


def _read(table: str, *columns: str) -> list[dict[str, Any]]:
    opened = open_table(str((FOLDER / "tables" / table).absolute()))
    if opened is None:
        raise DemoFailed(f"there is no table {table}")
    rows: list[dict[str, Any]] = read_rows(opened, columns).to_pylist()
    return rows


def _print_sizes(sizes: dict[str, int]) -> None:
    print("the tables hold " + ", ".join(f"{count} rows in {name}" for name, count in sizes.items()))


def _print_changes(before: dict[str, int], after: dict[str, int]) -> None:
    for name, count in after.items():
        print(f"{name}: {before[name]} rows before, {count} now")
    count = sum(row["patientName"] == "Updated^In^Bulk" for row in _read("study", "patientName"))
    print(f"study: {count} row carries the updated name", flush=True)
    if count != 1:
        raise DemoFailed("the bulk update is not in the table study")


def _open_one_file() -> None:
    row = next(row for row in _read("instance", "filePath", "modality") if row["modality"] == "CT")
    dataset = pydicom.dcmread(FOLDER / "files" / row["filePath"])
    print(
        f"\nfilePath {row['filePath']}\n  opened with pydicom: {dataset.Modality}, {dataset.Rows} x {dataset.Columns}"
    )


def _verify() -> None:
    done = subprocess.run([*_typed("verify"), "--json"], stdout=subprocess.PIPE, text=True, check=False)
    result = json.loads(done.stdout or "{}")
    for name, value in result.items():
        if value is not None:
            print(f"  {name:20} {value}")
    if done.returncode or not result.get("equal") or result.get("pending") or not result.get("lakeInstances"):
        raise DemoFailed("the tables differ from the service")
    print("the tables equal the service", flush=True)


def _say_what_next() -> None:
    program = Path(sys.executable).parent / "dicom-etl"
    shown = program.relative_to(Path.cwd()) if program.is_relative_to(Path.cwd()) else program
    print(
        f"""
The demo's DICOM service has stopped. So sync, verify and upload say that it cannot be reached, and status says that the
tables are behind, by a day and more: both are expected. (dicom-etl emulator starts another service, an empty one.)
The tables lie in {FOLDER / "tables"}, the DICOM files in {FOLDER / "files"}. What to type next:
  {shown} query --config {CONFIG} "SELECT * FROM study LIMIT 5"
  {shown} status --config {CONFIG}
  {shown} --help
In a checkout, make notebook opens JupyterLab on these tables."""
    )
