"""pydicom's own files as studies, for what is made of them in FHIR."""

from __future__ import annotations

from pathlib import Path

import pydicom
from pydicom import Dataset
from pydicom.data import get_testdata_files

from dicom_etl.core.attributes import ATTRIBUTES
from support.fhir_facts import COLUMNS

UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")


def corpus() -> list[list[Dataset]]:
    """pydicom's files that have UIDs, by study; of several files of one instance the last."""
    tags = [
        *UIDS,
        "SpecificCharacterSet",
        *(a.keyword for a in ATTRIBUTES),
        *(c.path.steps[0].keyword for c in COLUMNS),
    ]
    found: dict[str, dict[str, Dataset]] = {}
    for name in sorted(get_testdata_files()):
        if Path(name).is_file():
            dataset = pydicom.dcmread(name, force=True, specific_tags=[tag for tag in tags if tag])
            if all(dataset.get(uid) for uid in UIDS):
                found.setdefault(str(dataset.StudyInstanceUID), {})[str(dataset.SOPInstanceUID)] = dataset
    return [list(instances.values()) for instances in found.values()]
