"""The one table of facts about the DICOM attributes that become columns.

It drives parsing, the schemas of ``change``, ``instance``, ``series`` and ``study``, the roll-ups and
docs/tables.md. A lake whose tables lack a column is refused. A new one needs an
example in ``lake.column_facts``, too. A test compares it with pydicom's data dictionary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Level = Literal["study", "series", "instance"]


@dataclass(frozen=True, slots=True)
class Attribute:
    """One DICOM attribute that we keep.

    ``level`` is the highest table that carries it: a study attribute stands in all three tables, a series
    attribute in ``series`` and ``instance``, an instance attribute in ``instance`` only. (Patient
    attributes are kept at study level, as the Data Factory template has them.)
    """

    column: str
    keyword: str
    tag: str
    vr: str
    level: Level

    @property
    def is_date(self) -> bool:
        return self.vr == "DA"


# In the order of the template's columns (design/service-protocol.md: Data Factory template), which readers rely on.
ATTRIBUTES: tuple[Attribute, ...] = (
    Attribute("studyDate", "StudyDate", "00080020", "DA", "study"),
    Attribute("studyDescription", "StudyDescription", "00081030", "LO", "study"),
    Attribute("issuerOfPatientId", "IssuerOfPatientID", "00100021", "LO", "study"),
    Attribute("patientId", "PatientID", "00100020", "LO", "study"),
    Attribute("patientName", "PatientName", "00100010", "PN", "study"),
    Attribute("modality", "Modality", "00080060", "CS", "series"),
    Attribute("sopClassUid", "SOPClassUID", "00080016", "UI", "instance"),
)

SERIES_ATTRIBUTES: tuple[Attribute, ...] = tuple(a for a in ATTRIBUTES if a.level in ("study", "series"))
STUDY_ATTRIBUTES: tuple[Attribute, ...] = tuple(a for a in ATTRIBUTES if a.level == "study")

STUDY_KEY: tuple[str, ...] = ("partitionName", "studyInstanceUid")
SERIES_KEY: tuple[str, ...] = (*STUDY_KEY, "seriesInstanceUid")
INSTANCE_KEY: tuple[str, ...] = (*SERIES_KEY, "sopInstanceUid")

DEFAULT_PARTITION = "Microsoft.Default"
