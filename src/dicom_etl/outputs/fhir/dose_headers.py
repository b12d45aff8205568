"""The headers of dose reports, from `change`: their content tree is in no column."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pyarrow.compute as pc
from deltalake import DeltaTable

from dicom_etl.core.attributes import INSTANCE_KEY
from dicom_etl.lake.delta.table import iterate_rows
from dicom_etl.outputs.fhir.dose import is_dose_report
from dicom_etl.outputs.fhir.facts import StudyFacts
from dicom_etl.outputs.fhir.observation import ReportKey


def dose_headers(change: DeltaTable, studies: Iterable[StudyFacts]) -> dict[ReportKey, bytes | None]:
    """The header of each living dose report of these studies; None where `change` does not have it any more.

    An instance's header is that of the entry with its key and sequence that was Current; of several reads of one entry
    the highest run's counts. Raises as ``iterate_rows`` does.
    """
    wanted = {
        ReportKey(study.partition, study.uid, series.uid, row["SOPInstanceUID"]): row["sequence"]
        for study in studies
        for series in study.series
        for row in series.instances
        if is_dose_report(row["SOPClassUID"])
    }
    sequences = sorted({sequence for sequence in wanted.values() if sequence is not None})
    if not sequences:
        return dict.fromkeys(wanted)
    newest: dict[ReportKey, tuple[int, bytes]] = {}
    sequence = pc.field("sequence")
    # Bounds for the files that lie apart; Arrow skips none by a set.
    only = (sequence >= sequences[0]) & (sequence <= sequences[-1]) & sequence.isin(sequences)
    columns = [*INSTANCE_KEY, "sequence", "runId", "metadata"]
    for batch in iterate_rows(change, columns, only & (pc.field("state") == "Current")):
        for row in batch.to_pylist():
            key = ReportKey(*(row[name] for name in INSTANCE_KEY))
            fits = row["metadata"] is not None and wanted.get(key) == row["sequence"]
            if fits and (key not in newest or newest[key][0] < row["runId"]):
                newest[key] = (row["runId"], row["metadata"].encode())
    return {key: newest[key][1] if key in newest else None for key in wanted}


def by_study(headers: Mapping[ReportKey, bytes | None]) -> dict[tuple[str, str], dict[ReportKey, bytes | None]]:
    """The same by partition and Study UID."""
    found: dict[tuple[str, str], dict[ReportKey, bytes | None]] = {}
    for key, header in headers.items():
        found.setdefault((key.partition, key.study), {})[key] = header
    return found
