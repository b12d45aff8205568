"""The output `fhir` measured: `python -m bench.fhir --instances 1000000 [--server ADDRESS]`.

On a lake that is written without Spark. Without an address the server is one that takes every bundle and keeps nothing,
so that what is measured is ours: reading, mapping, sending, recording. Beside it, in the same run, a client that posts
the same bundles from memory shows what the server itself takes.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
from deltalake import DeltaTable, write_deltalake

from bench.processes import run_process
from dicom_emulator.state.service import DicomService
from dicom_etl.commands.fhir.desired import Mapper, Tally
from dicom_etl.commands.fhir.options import mapping_options
from dicom_etl.commands.fhir.source import Source, source_of, study_tables
from dicom_etl.commands.fhir.subjects import Subjects
from dicom_etl.lake.open import existing_lake
from dicom_etl.outputs import execution
from dicom_etl.outputs.fhir.bundle import Entry, bundles, encode
from dicom_etl.outputs.fhir.rows import StudyKey, studies, study_keys
from support.handmade import HandmadeLake

INSTANCES_A_STUDY = 180
SERIES_A_STUDY = 3
NOW = datetime(2026, 5, 1, tzinfo=UTC)
_CLASS = "1.2.840.10008.5.1.4.1.1.2"


def grown(folder: Path, instances: int, *texts: str) -> HandmadeLake:
    """A lake with so many instances, 180 a study in three series, with the values that a CT's header has."""
    lake = HandmadeLake(folder, DicomService(), *texts)
    count = instances // INSTANCES_A_STUDY
    lake.run(NOW, columns=False)
    lake.run(NOW, mode="full")
    for name, rows in _tables(count).items():
        path = lake.lake.path(name)
        schema = pa.schema(DeltaTable(path).schema().to_arrow())
        write_deltalake(path, _fitted(rows, schema), mode="overwrite")
    lake.recorded(NOW, "full")
    return lake


def touched(lake: HandmadeLake, count: int) -> None:
    """A further run that has read entries of the last ``count`` studies."""
    rows = [
        {
            "runId": lake.runs + 1, "readAt": NOW, "sequence": 10**9 + number, "timestamp": NOW, "timestampTicks": 0,
            "partitionName": "Microsoft.Default", "studyInstanceUid": _study(number), "seriesInstanceUid": "1",
            "sopInstanceUid": "1", "action": "Update", "state": "Current",
        }
        for number in range(count)
    ]  # fmt: skip
    path = lake.lake.path("change")
    schema = pa.schema(DeltaTable(path).schema().to_arrow())
    write_deltalake(
        path, _fitted({name: [row.get(name) for row in rows] for name in schema.names}, schema), mode="append"
    )
    # Overwritten, and not updated: delta-rs would write types that Spark does not.
    study = DeltaTable(lake.lake.path("study"))
    changed = {_study(number) for number in range(count)}
    values = study.to_pyarrow_table().to_pylist()
    values = [
        row | {"studyDescription": f"changed {lake.runs}"} if row["studyInstanceUid"] in changed else row
        for row in values
    ]
    write_deltalake(
        study.table_uri, pa.Table.from_pylist(values, schema=pa.schema(study.schema().to_arrow())), mode="overwrite"
    )
    lake.recorded(NOW)


def _study(number: int) -> str:
    return f"1.2.840.113619.2.55.{number:07d}"


def _tables(count: int) -> dict[str, dict[str, Any]]:
    per_series = INSTANCES_A_STUDY // SERIES_A_STUDY
    study_uids = [_study(number) for number in range(count)]
    series_uids = [f"{uid}.{number}" for uid in study_uids for number in range(SERIES_A_STUDY)]
    sop_uids = [f"{uid}.{number}" for uid in series_uids for number in range(per_series)]
    patients = [f"P{number % (count // 2 + 1):06d}" for number in range(count)]
    study = {
        "studyInstanceUid": study_uids, "patientId": patients, "patientName": [f"Doe^{one}" for one in patients],
        "studyDescription": "CT Thorax", "studyDate": NOW.date(), "studyTime": "08:30:00",
        "accessionNumber": [f"A{number:07d}" for number in range(count)], "lastModifiedTimestamp": NOW,
        "instanceCount": INSTANCES_A_STUDY, "seriesCount": SERIES_A_STUDY, "modalitiesInStudy": "CT",
        "referringPhysicianName": "Roe^Jo", "patientSex": "F",
    }  # fmt: skip
    series = {
        "studyInstanceUid": [uid for uid in study_uids for _ in range(SERIES_A_STUDY)],
        "seriesInstanceUid": series_uids,
        "modality": "CT", "seriesNumber": [number for _ in study_uids for number in range(SERIES_A_STUDY)],
        "seriesDescription": "Lung 1.0", "bodyPartExamined": "CHEST", "lastModifiedTimestamp": NOW,
        "instanceCount": per_series,
    }  # fmt: skip
    instance = {
        "studyInstanceUid": [uid for uid in study_uids for _ in range(INSTANCES_A_STUDY)],
        "seriesInstanceUid": [uid for uid in series_uids for _ in range(per_series)], "sopInstanceUid": sop_uids,
        "sopClassUid": _CLASS, "sequence": list(range(1, len(sop_uids) + 1)), "lastModifiedTimestamp": NOW,
        "instanceNumber": [number for _ in series_uids for number in range(per_series)],
    }  # fmt: skip
    return {
        "study": study, "study_tags": study, "series": series, "series_tags": series, "instance": instance,
        "instance_tags": instance,
    }  # fmt: skip


def _fitted(columns: dict[str, Any], schema: pa.Schema) -> pa.Table:
    columns = {"partitionName": "Microsoft.Default", **columns}
    size = next(len(values) for values in columns.values() if isinstance(values, list))
    arrays = []
    for field in schema:
        values = columns.get(field.name)
        arrays.append(pa.array(values if isinstance(values, list) else [values] * size, field.type))
    return pa.table(arrays, schema=schema)


@contextmanager
def sink() -> Iterator[str]:
    """A FHIR server in a process of its own that takes every entry of every bundle, and keeps nothing."""
    import subprocess

    command = [sys.executable, "-m", "bench.fhirsink"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


def bodies(lake: HandmadeLake, most: int) -> Iterator[Entry]:
    """The entries of the first ``most`` studies, as the output makes them."""
    snapshot = existing_lake(lake.settings)
    source: Source = source_of(snapshot, execution.executions(execution.open_executions(snapshot.lake)))
    tables = study_tables(snapshot, source)
    options = mapping_options(lake.settings, snapshot.lake.identity)
    mapper = Mapper(options, {}, Subjects(options), Tally(), lambda *_: None)
    if most:
        yield from (Entry("PUT", one.kind, one.id, one.body) for one in mapper.endpoints(["Microsoft.Default"]))
    keys: Sequence[tuple[StudyKey, int]] = study_keys(tables.fixed["study"])[:most]
    for part in studies(tables, keys):
        for study in part:
            made = mapper.desired(study, {}).study
            yield Entry("PUT", made.kind, made.id, made.body)


def mapped(lake: HandmadeLake) -> float:
    """Instances a second that are read and mapped, nothing sent, on one core."""
    began, count = time.monotonic(), 0
    for one in bodies(lake, 10**9):
        count += INSTANCES_A_STUDY if one.kind == "ImagingStudy" else 0
    return count / (time.monotonic() - began)


def own_rate(lake: HandmadeLake, address: str, most: int, connections: int) -> float:
    """Instances a second that the server takes of ready-made bundles; what they refer to is sent before."""
    endpoints, *entries = bodies(lake, most)
    ready = [encode(bundle, address) for bundle in bundles(entries, 50)]
    headers = {"Content-Type": "application/fhir+json", "Accept": "application/fhir+json", "Prefer": "return=minimal"}
    with httpx.Client(headers=headers, timeout=300, trust_env=False) as client, ThreadPoolExecutor(connections) as pool:
        client.post(address, content=encode([endpoints], address)).raise_for_status()
        began = time.monotonic()
        for answer in pool.map(lambda body: client.post(address, content=body), ready):
            taken = answer.raise_for_status().json()["entry"]
            assert all(one["response"]["status"].startswith("20") for one in taken)
        return len(entries) * INSTANCES_A_STUDY / (time.monotonic() - began)


def fhir(lake: HandmadeLake, folder: Path, *words: str) -> dict[str, Any]:
    """One `dicom-etl fhir` as a process: its seconds, memory, and row."""
    texts = [word for text in lake.texts for word in ("--set", text)]
    ended = run_process(["-m", "dicom_etl", "fhir", *words, *texts, "--json"], folder / "work")
    (row,) = ended.objects
    return {
        "seconds": round(ended.seconds, 2), "pythonMiB": round(ended.python_bytes / 2**20), "jvm": ended.jvm_bytes > 0,
        "touched": row.get("touched", 0), "written": row.get("written", 0),
        "requests": json.loads(row["details"])["requests"] if row.get("details") else 0,
    }  # fmt: skip


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--instances", type=int, default=100_080)
    options.add_argument("--patients", default="find", help="fhir.patients")
    options.add_argument("--server", help="the address of a FHIR server")
    given = options.parse_args()
    with tempfile.TemporaryDirectory() as name, sink() as address:
        folder, server = Path(name), given.server or address
        lake = grown(
            folder,
            given.instances,
            f"fhir.base_url={server}",
            "fhir.default_system=urn:oid:1.2.3",
            f"fhir.patients={given.patients}",
        )
        _say("mapping alone", {"instancesPerSecond": round(mapped(lake))})
        # Before and after, as a server gets slower while it fills; other ids each, and a first round to warm it.
        rates = [_own(folder / str(number), given.instances, server) for number in range(2)]
        load = fhir(lake, folder)
        rates = [rates[1], _own(folder / "after", given.instances, server)]
        rate = given.instances / load["seconds"]
        share = round(2 * rate / sum(rates), 2)
        _say("first load", load | {"instancesPerSecond": round(rate), "ofTheServersOwn": share})
        _say("nothing changed", fhir(lake, folder))
        touched(lake, 6)
        _say("window of 6 studies, 1 080 instances", fhir(lake, folder))
        _say("everything compared", fhir(lake, folder, "--full"))


def _own(folder: Path, instances: int, server: str) -> float:
    """The server's own rate for a lake of the same size, said."""
    lake = grown(folder, instances, f"fhir.base_url={server}")
    rate = own_rate(lake, server, min(2_000, instances // INSTANCES_A_STUDY), 8)
    _say("the server's own rate for ready-made bundles", {"instancesPerSecond": round(rate)})
    return rate


def _say(what: str, figures: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps({"what": what, **figures}) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
