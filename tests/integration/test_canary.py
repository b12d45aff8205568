"""No value of a patient leaves the tables that hold patients (architecture §8)."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dicom_etl import merging
from dicom_etl.emulator.faults import Fault
from dicom_etl.errors import DicomEtlError, StorageError
from dicom_etl.exits import ended
from dicom_etl.verify import verify
from support.site import Site, metadata

MARKER = "CANARY"
# UIDs are digits and dots; this run of digits is in each of them.
UID_MARKER = "9417530286"
STUDY = f"1.2.{UID_MARKER}"


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


def test_marked_values_stay_in_the_tables(
    make_site: Callable[..., Site],
    monkeypatch: pytest.MonkeyPatch,
    logged: Callable[[], str],
    library_log: list[str],
) -> None:
    """Syncs, rejects, a failing page, a broken MERGE, verify: nothing in logs, errors, ledger, claims, _delta_log."""
    site = make_site()
    errors: list[str] = []

    def expect(error: type[DicomEtlError], act: Callable[[], object]) -> None:
        with pytest.raises(error) as caught:
            act()
        errors.append(str(caught.value))

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
    real = merging.merge_rollup

    def broken(spark: Any, table: Any, path: str, source: Any, *rest: Any, **options: Any) -> Any:
        # Spark itself fails, with rows and UIDs in its message.
        def failing(session: Any) -> Any:
            return source(session).where(f"raise_error('{MARKER} {STUDY}') IS NULL")

        return real(spark, table, path, failing, *rest, **options)

    with monkeypatch.context() as patched:
        patched.setattr(merging, "merge_rollup", broken)
        expect(StorageError, site.sync)
    site.service.faults.add(Fault(status=403, body=f"not for {MARKER}"))
    expect(DicomEtlError, site.sync)
    site.service.faults.clear()
    site.sync()
    assert verify(site.settings, spark=site.spark).service_instances == 4

    # The last line of a command, also for a bug whose message quotes a patient.
    assert ended(lambda: _fail(ValueError(f"{MARKER} {STUDY}"))) == 70
    assert ended(lambda: _fail(OSError(5, f"{MARKER}", f"/lake/{STUDY}"))) == 74

    # The positive control: the tables hold what they must hold.
    rows = site.rows("instance")
    assert {row["patientName"] for row in rows} == {f"{MARKER}^New", f"{MARKER}^1", f"{MARKER}^2"}
    assert all(UID_MARKER in row["sopInstanceUid"] for row in rows)
    assert any(MARKER in (row["metadata"] or "") for row in site.rows("change"))

    spoken = logged() + "".join(library_log) + "".join(errors)
    assert "instance merged" in spoken
    assert "internal error (ValueError at" in spoken
    told = {
        "log": spoken,
        "ledger": str(site.ledger()),
        "claims": _texts(site.root / "_claims"),
        "_delta_log of run, change, rejected": "".join(
            _texts(site.root / name / "_delta_log") for name in ("run", "change", "rejected")
        ),
    }
    for where, text in told.items():
        assert len(text) > 100, where
        assert MARKER not in text, where
        assert UID_MARKER not in text, where
    # MERGE predicates and bounds put study UIDs there, and nothing else of a patient.
    logs = "".join(_texts(site.root / name / "_delta_log") for name in ("instance", "series", "study"))
    assert len(logs) > 1000
    assert MARKER not in logs


def _fail(error: Exception) -> int:
    raise error


def _texts(folder: Path) -> str:
    """All files below a folder, as text; checkpoints would be Parquet, and there is none yet."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files
    assert not [path for path in files if path.suffix == ".parquet"]
    return "".join(path.read_bytes().decode(errors="replace") for path in files)


@pytest.mark.usefixtures("logged")
def test_tracebacks_are_not_printed(capsys: pytest.CaptureFixture[str]) -> None:
    """A bug ends as one line: its class and the place in our code."""
    assert ended(lambda: _fail(KeyError(MARKER))) == 70
    printed = capsys.readouterr()
    assert (printed.out, len(printed.err.splitlines())) == ("", 1)
    assert "KeyError" in printed.err
    assert MARKER not in printed.err + traceback.format_exc()
