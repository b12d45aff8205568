"""No value of a patient leaves the tables that hold patients, and no token leaves the program.

design/architecture.md: Patient data.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import signal
import stat
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable

from dicom_emulator.http.tokens import OWNER
from dicom_emulator.state.uids import instance_key
from dicom_emulator.testing.faults import Fault
from dicom_etl.cli.process import run_command
from dicom_etl.commands.maintain import maintain
from dicom_etl.commands.repair.repair import repair
from dicom_etl.commands.sync import sync
from dicom_etl.commands.sync_request import request
from dicom_etl.commands.verify.verify import verify
from dicom_etl.core.errors import AccessDenied, DataError, DicomEtlError, StorageError, Superseded
from dicom_etl.lake.delta.folder import TableFolder
from dicom_etl.run import merge, roll_up
from dicom_etl.tables.merge import MergeResult
from support.site import SECOND, Site, at, metadata
from support.stopping import children
from support.template import write_template_table

MARKER = "CANARY"
# UIDs are digits and dots; this run of digits is in each of them.
UID_MARKER = "9417530286"
STUDY = f"1.2.{UID_MARKER}"
# The bearer token is marked as the patients are.
TOKEN = f"{MARKER}-token"
SHARED = ("instance", "series", "study")
PRIVATE = ("change", "rejected")
# Columns whose bounds may stand in a log: nothing that identifies a patient by itself.
BOUNDS = {
    "partitionName", "studyInstanceUid", "seriesInstanceUid", "sopInstanceUid", "sequence", "lastModifiedTimestamp",
    "studyDate",
}  # fmt: skip


def identifying(number: int) -> dict[str, Any]:
    """DICOM JSON in which every value is marked."""
    kept = metadata(
        name=f"{MARKER}^{number}", id=f"{MARKER} {number}", issuer=f"{MARKER}-issuer", date="20240131",
        description=f"{MARKER} description", modality="CT", sop_class=f"1.2.{UID_MARKER}.9",
    )  # fmt: skip
    other = {
        "00080050": {"vr": "SH", "Value": [f"{MARKER}-accession"]},
        "00100030": {"vr": "DA", "Value": [f"{MARKER}-birth"]},
        "00101001": {"vr": "PN", "Value": [{"Alphabetic": f"{MARKER}^Other"}]},
        "00400275": {"vr": "SQ", "Value": [{"00321060": {"vr": "LO", "Value": [f"{MARKER} nested"]}}]},
    }
    return kept | other


@pytest.fixture
def library_log() -> Iterator[list[str]]:
    """What libraries and ours would say at INFO and above, formatted with its traceback."""
    said: list[str] = []

    class Ear(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(str(record.__dict__))

    ear = Ear(logging.INFO)
    ours = logging.getLogger("dicom_etl")
    ours.addHandler(ear)
    yield said
    ours.removeHandler(ear)


@pytest.fixture
def open_umask() -> Iterator[None]:
    """What is created without a mode of its own may be read and written by everybody."""
    before = os.umask(0)
    yield
    os.umask(before)


def with_token(make_site: Callable[..., Site], monkeypatch: pytest.MonkeyPatch, *overrides: str) -> Site:
    """A service that wants the marked token, and settings that have it."""
    monkeypatch.setenv("DICOM_ETL_TOKEN", TOKEN)
    return make_site("dicom.auth=token", *overrides, tokens={TOKEN: OWNER})


def failed(error: type[DicomEtlError], act: Callable[[], object]) -> str:
    with pytest.raises(error) as caught:
        act()
    return str(caught.value)


@pytest.mark.usefixtures("open_umask")
def test_marked_values_stay_in_the_tables(
    make_site: Callable[..., Site],
    monkeypatch: pytest.MonkeyPatch,
    logged: Callable[[], str],
    library_log: list[str],
) -> None:
    """Syncs, rejects, a failing page, a broken MERGE, a full disk, a newer run, a refused token, verify.

    Nothing in logs, errors, ledger, claims, _delta_log; and private files are private under any umask.
    """
    site = with_token(make_site, monkeypatch)
    errors: list[str] = []
    for number in range(3):
        site.create(STUDY, f"{STUDY}.1", f"{STUDY}.1.{number}", document=identifying(number))
    site.create(STUDY, f"{STUDY}.2", f"{STUDY}.2.1", document=f'["{MARKER} no object"]'.encode())
    site.create(STUDY, f"{STUDY}.2", f"{STUDY}.2.2", document=identifying(9)).action = f"{MARKER}"
    site.service.faults.add(Fault(sequences=(2,), body=f"could not read {MARKER} {STUDY}"))
    site.service.faults.add(Fault(times=2, body=f"busy with {MARKER} {STUDY}"))
    site.clock(9.5)
    (run,) = site.sync()
    assert (run.inserted, run.rejected) == (2, 3)

    site.service.faults.clear()
    site.update(STUDY, f"{STUDY}.1", f"{STUDY}.1.0", document=None, name=f"{MARKER}^New")
    site.clock(11)
    for owner, name, broken, error in (
        (roll_up, "merge_rollup", _failing_in_spark, StorageError),
        (TableFolder, "create", _full, StorageError),
        (merge, "merge_instance", lambda *_, **__: MergeResult(0, 0, 0, None), Superseded),
    ):
        with monkeypatch.context() as patched:
            patched.setattr(owner, name, broken)
            errors.append(failed(error, site.sync))
    site.service.faults.add(Fault(status=403, body=f"not for {MARKER}"))
    errors.append(failed(AccessDenied, site.sync))
    site.service.faults.clear()
    site.sync()
    assert verify(site.settings, spark=site.spark).service_instances == 5
    site.service.tokens.revoke()
    errors.append(failed(AccessDenied, site.sync))
    assert site.service.tokens.refused > 0

    # The last line of a command, also for a bug whose message quotes a patient.
    assert run_command(lambda: _fail(ValueError(f"{MARKER} {STUDY}"))) == 70
    assert run_command(lambda: _fail(OSError(5, f"{MARKER}", f"/lake/{STUDY}"))) == 74

    # The positive control: the tables hold what they must hold.
    rows = site.rows("instance")
    assert {row["patientName"] for row in rows} == {f"{MARKER}^New", f"{MARKER}^1", f"{MARKER}^2"}
    assert all(UID_MARKER in row["sopInstanceUid"] for row in rows)
    assert any(MARKER in (row["metadata"] or "") for row in site.rows("change"))

    spoken = logged() + "".join(library_log) + "".join(errors)
    assert "instance merged" in spoken
    assert "internal error (ValueError at" in spoken
    assert {row["errorClass"] for row in site.ledger()} == {None, "StorageError", "Superseded", "AccessDenied"}
    assert_private_files_are_private(site.root)
    assert stat.S_IMODE((site.root / "run").stat().st_mode) == 0o777, "the umask was open"
    assert_silent(site, spoken)
    # In checkpoints the log is told once more.
    for name in ("run", *PRIVATE, *SHARED):
        DeltaTable(site.root / name).create_checkpoint()
    assert_silent(site, spoken)


def _failing_in_spark(
    spark: Any, table: Any, path: str, rows: Any, *rest: Any, real: Any = roll_up.merge_rollup
) -> Any:
    """Spark itself fails, with rows and UIDs in its message."""
    return real(spark, table, path, rows.where(f"raise_error('{MARKER} {STUDY}') IS NULL"), *rest)


def _full(*_: Any) -> Any:
    raise OSError(errno.ENOSPC, f"no space for {MARKER}", f"/lake/{STUDY}")


def assert_silent(site: Site, spoken: str) -> None:
    """No marked value in what was said, in the ledger, the claims and the logs of the tables; no bounds of names."""
    told = {"what was said": spoken, "ledger": str(site.ledger()), "claims": _texts(site.root / "_claims")}
    told |= {f"_delta_log of {name}": _texts(site.root / name / "_delta_log") for name in ("run", *PRIVATE)}
    for where, text in told.items():
        assert len(text) > 100, where
        assert MARKER not in text, where
        assert UID_MARKER not in text, where
    # MERGE predicates and bounds put study UIDs there, and nothing else of a patient.
    for name in SHARED:
        log = _texts(site.root / name / "_delta_log")
        assert len(log) > 1000
        assert MARKER not in log, name
        assert {"studyInstanceUid"} <= _bounds(site.root / name) <= BOUNDS
    assert [_bounds(site.root / name) for name in ("run", *PRIVATE)] == [
        {"runId"}, {"runId", "sequence"}, {"runId", "sequence"},
    ]  # fmt: skip


def assert_private_files_are_private(root: Path, *, compacted: bool = False) -> None:
    """Folders 0700 and files 0600; what `maintain` has ``compacted`` is reached through its folders only."""
    for name in PRIVATE:
        inside = [root / name, *(root / name).rglob("*")]
        assert len(inside) >= 3
        folders = {stat.S_IMODE(path.stat().st_mode) for path in inside if path.is_dir()}
        assert folders == {0o700}, name
        files = {stat.S_IMODE(path.stat().st_mode) for path in inside if path.is_file()}
        assert compacted or files == {0o600}, name


def _fail(error: Exception) -> int:
    raise error


def _texts(folder: Path) -> str:
    """All files below a folder, as text; of Parquet (checkpoints) the rows as well as the bytes."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files
    rows = [str(pq.read_table(path).to_pylist()) for path in files if path.suffix == ".parquet"]
    return "".join([*rows, *(path.read_bytes().decode(errors="replace") for path in files)])


def _bounds(table: Path) -> set[str]:
    """The columns whose least or greatest value stands in the table's log, checkpoints included."""
    files = list((table / "_delta_log").rglob("*"))
    actions = [json.loads(line) for path in files if path.suffix == ".json" for line in path.read_text().splitlines()]
    for path in files:
        if path.suffix == ".parquet":
            actions += pq.read_table(path, columns=["add"]).to_pylist()
    found: set[str] = set()
    for add in (action["add"] for action in actions if action.get("add")):
        stats = [json.loads(add["stats"])] if add.get("stats") else []
        for one in [*stats, add.get("stats_parsed") or {}]:
            for kind in ("minValues", "maxValues"):
                found |= {name for name, value in (one.get(kind) or {}).items() if value is not None}
    return found


@pytest.mark.usefixtures("logged")
def test_tracebacks_are_not_printed(capsys: pytest.CaptureFixture[str]) -> None:
    """A bug ends as one line: its class and the place in our code."""
    assert run_command(lambda: _fail(KeyError(MARKER))) == 70
    printed = capsys.readouterr()
    assert (printed.out, len(printed.err.splitlines())) == ("", 1)
    assert "KeyError" in printed.err
    assert MARKER not in printed.err + traceback.format_exc()


@pytest.mark.soak
def test_repairs_voids_and_maintenance_say_nothing(
    make_site: Callable[..., Site],
    monkeypatch: pytest.MonkeyPatch,
    logged: Callable[[], str],
    library_log: list[str],
) -> None:
    """Changed UIDs, a repair with its void, compaction, purge, vacuum, and Spark's own checkpoint after each commit."""
    site = with_token(make_site, monkeypatch)
    keys = [instance_key(STUDY, f"{STUDY}.1", f"{STUDY}.1.{number}") for number in range(3)]
    for number, key in enumerate(keys):
        site.create(*key[1:], document=identifying(number))
    site.clock(9.5)
    site.sync()
    moved = instance_key(f"{STUDY}.8", f"{STUDY}.8.1", f"{STUDY}.8.1.1")
    site.service.clock.freeze(at(9.6), step=SECOND)
    site.service.change_uids([(keys[0], moved, identifying(7), None)])
    site.clock(11)
    site.sync()
    assert site.spark is not None
    for name in SHARED:
        site.spark.sql(f"ALTER TABLE delta.`{site.root / name}` SET TBLPROPERTIES ('delta.checkpointInterval' = '1')")
    assert not verify(site.settings, metadata=True, spark=site.spark, clock=lambda: at(11)).equal
    done = repair(site.settings, spark=site.spark, clock=lambda: at(11))
    assert (done.equal, done.voided) == (True, 1)
    assert [row["status"] for row in site.rows("rejected")] == ["void"]
    site.update(*keys[1][1:], document=None, name=f"{MARKER}^New")
    site.clock(13)
    site.sync()
    maintained = maintain(site.settings, spark=site.spark, clock=lambda: at(13))
    assert {one.table: one.files_compacted for one in maintained}["change"] > 1
    headers = len(site.rows("change"))
    purging = ("maintenance.change_retention_days=1", "maintenance.keep_live_headers=false", "feed.look_back=0s")
    later = site.having(*purging)
    assert list(maintain(later.settings, spark=site.spark, clock=lambda: at(100)))
    assert (headers > 4, len(site.rows("change"))) == (True, 1), "headers go in time, but for the newest entry"
    assert site.tables() == site.expected()
    assert {row["patientName"] for row in site.rows("instance")} == {f"{MARKER}^{what}" for what in ("New", "2", "7")}
    for name in SHARED:
        assert list((site.root / name / "_delta_log").glob("*.checkpoint*.parquet")), "Spark has made checkpoints"
    assert_private_files_are_private(site.root, compacted=True)
    assert_silent(site, logged() + "".join(library_log))


@pytest.mark.soak
def test_what_we_write_into_an_adopted_log_names_nobody(
    make_site: Callable[..., Site], logged: Callable[[], str], library_log: list[str]
) -> None:
    """The template's own entries do (docs/phi.md); ours do not, nor does what is said when it is refused."""
    site = make_site()
    site.create(STUDY, f"{STUDY}.1", f"{STUDY}.1.0", document=identifying(0))
    site.clock(11)
    row = {
        "partitionName": "Microsoft.Default", "studyInstanceUid": STUDY, "patientName": f"{MARKER}^Template",
        "patientId": f"{MARKER} 0",
    }  # fmt: skip
    keys = {"instance": ("seriesInstanceUid", "sopInstanceUid"), "series": ("seriesInstanceUid",), "study": ()}
    for name, more in keys.items():
        rows = [{**row, **dict.fromkeys(more, f"{STUDY}.1.{number}")} for number in range(2 if more else 1)]
        write_template_table(site.root, name, rows)
        assert MARKER in _texts(site.root / name / "_delta_log"), "the template's statistics"
    theirs = {path for name in SHARED for path in (site.root / name / "_delta_log").iterdir()}
    errors = failed(DataError, site.sync)
    wanted = request(None, None, None, None, adopt=True)
    runs = list(sync(site.settings, wanted, spark=site.spark, clock=lambda: at(11), sleep=lambda _: None))
    assert [run.verb for run in runs] == ["adopt", "sync"]
    assert repair(site.settings, spark=site.spark, clock=lambda: at(11)).equal
    assert site.tables() == site.expected()
    ours = [p for n in SHARED for p in (site.root / n / "_delta_log").rglob("*.json") if p not in theirs]
    assert len(ours) >= 9
    for path in ours:
        assert MARKER not in path.read_text(), path.name
    spoken = logged() + "".join(library_log) + errors
    assert "merged" in spoken
    assert MARKER not in spoken + str(site.ledger())
    assert UID_MARKER not in spoken + str(site.ledger())


@pytest.mark.soak
def test_processes_show_neither_token_nor_patient(
    make_site: Callable[..., Site], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The command lines of a sync and of its JVM, the JVM's environment, the spill folder, and what a kill leaves."""
    site = with_token(make_site, monkeypatch)
    for number in range(3):
        site.create(STUDY, f"{STUDY}.1", f"{STUDY}.1.{number}", document=identifying(number))
    site.clock(9.5)
    (tmp_path / "tmp").mkdir()
    words = [word for text in (*site.texts, "spark.driver_memory=1g") for word in ("--set", text)]
    seen: list[str] = []
    with subprocess.Popen(
        [sys.executable, "-m", "dicom_etl", "sync", "--init", *words], cwd=tmp_path, umask=0, text=True,
        env={**os.environ, "TMPDIR": str(tmp_path / "tmp")}, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as running:  # fmt: skip
        assert running.stderr is not None
        for line in running.stderr:
            seen.append(line)
            if "instance merged" in line:
                break
        family = _family(running.pid)
        lines = subprocess.run(["ps", "-ef"], capture_output=True, text=True, check=True).stdout
        commands = [_of_process(pid, "cmdline") for pid in family]
        environments = [text for pid in family if pid != running.pid and (text := _of_process(pid, "environ"))]
        spill = [path for path in (tmp_path / "tmp").iterdir() if path.name.startswith("dicom-etl-spark-")]
        modes = [stat.S_IMODE(path.stat().st_mode) for path in spill]
        for pid in reversed(family):
            with suppress(ProcessLookupError):  # one that has ended by itself meanwhile
                os.kill(pid, signal.SIGKILL)
        out, err = running.communicate(timeout=60)
    assert running.returncode == -signal.SIGKILL, seen
    assert "dicom_etl" in commands[0]
    assert any("java" in command for command in commands[1:])
    assert str(running.pid) in lines
    assert all("PATH=" in environment for environment in environments)
    assert environments
    assert modes == [0o700]
    assert_private_files_are_private(site.root)
    log = "".join([*seen, out, err])
    for text in (*commands, *environments, lines, log, str(site.ledger()), _texts(site.root / "_claims")):
        assert MARKER not in text
        assert UID_MARKER not in text
    # What it left behind in its spill folder is encrypted, or nothing of a patient.
    left = b"".join(path.read_bytes() for path in spill[0].rglob("*") if path.is_file())
    assert MARKER.encode() not in left
    (run,) = site.sync()
    assert run.entries_read == 3
    assert site.tables() == site.expected()


def _family(pid: int) -> list[int]:
    """A process and all that it has started, parents first."""
    return [pid, *(one for child in children(pid) for one in _family(child))]


def _of_process(pid: int, what: str) -> str:
    """Nothing for a process that has ended meanwhile."""
    try:
        return Path(f"/proc/{pid}/{what}").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""
