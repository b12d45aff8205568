"""How far the ImagingStudy of pydicom's files meets two profiles: what each asks for, and what its studies lack.

IHE RAD IMR (R4, 2024) asks for identifier, modality, started and endpoint; HL7 EU imaging for one Study UID, the
accession number in `basedOn`, and performers with a function. Whole profiles are not validated: no registry that can be
had here has their packages.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable
from typing import Any

from dicom_etl.outputs.fhir.endpoint import endpoint
from dicom_etl.outputs.fhir.patient import logical_subject
from dicom_etl.outputs.fhir.study import imaging_study
from support.fhir_corpus import corpus
from support.fhir_facts import OPTIONS, study_of

Body = dict[str, Any]


def _study_uids(body: Body) -> int:
    return sum(one.get("system") == "urn:dicom:uid" for one in body["identifier"])


def _accession_in_both(body: Body) -> bool:
    numbers = [one["value"] for one in body["identifier"] if "type" in one]
    return numbers == [one["identifier"]["value"] for one in body.get("basedOn", [])]


def _performers_have_a_function(body: Body) -> bool:
    return all("function" in one for series in body["series"] for one in series.get("performer", []))


IMR: dict[str, Callable[[Body], bool]] = {
    name: lambda body, name=name: bool(body.get(name)) for name in ("identifier", "modality", "started", "endpoint")
}
EU: dict[str, Callable[[Body], bool]] = {
    "identifier:studyInstanceUid 1..1": lambda body: _study_uids(body) == 1,
    "basedOn: the accession number": _accession_in_both,
    "series.performer.function": _performers_have_a_function,
}


def test_the_studies_of_pydicoms_files_meet_all_rows_but_one() -> None:
    """`started` is asked for by IMR, and a study without StudyDate has none: DICOM lets it be empty."""
    failed: Counter[str] = Counter()
    count = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for datasets in corpus():
            facts, at = study_of(datasets), endpoint("Microsoft.Default", OPTIONS)
            body = imaging_study(facts, logical_subject(facts, OPTIONS), [at.id], OPTIONS).body
            failed.update(name for name, row in (IMR | EU).items() if not row(body))
            count += 1
            undated = facts.values.get("StudyDate") is None
            assert ("started" in body) is not undated
    assert count == 31
    assert failed == {"started": 9}
