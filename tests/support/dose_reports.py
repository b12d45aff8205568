"""Dose reports as scanners write them, built of pydicom's datasets item by item."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pydicom.dataset import Dataset
from pydicom.uid import UID

STUDY, SERIES = "1.2.826.0.1.3680043.8.498.1", "1.2.826.0.1.3680043.8.498.1.1"
CONTAINS, MODIFIES, CONTEXT, PROPERTY = "CONTAINS", "HAS CONCEPT MOD", "HAS OBS CONTEXT", "HAS PROPERTIES"


def code(text: str) -> Dataset:
    """``DCM 113819 CT Acquisition``: designator, value, meaning."""
    scheme, value, meaning = text.split(" ", 2)
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


def content(name: str, value_type: str, relationship: str, children: Iterable[Dataset] = ()) -> Dataset:
    item = Dataset()
    item.RelationshipType, item.ValueType = relationship, value_type
    item.ConceptNameCodeSequence = [code(name)]
    below = list(children)
    if below:
        item.ContentSequence = below
    return item


def container(name: str, *children: Dataset) -> Dataset:
    item = content(name, "CONTAINER", CONTAINS, children)
    item.ContinuityOfContent = "SEPARATE"
    return item


def num(name: str, value: Any, unit: str, *children: Dataset) -> Dataset:
    """A number in ``unit``, a code of UCUM."""
    item = content(name, "NUM", CONTAINS, children)
    measured = Dataset()
    measured.NumericValue = value
    measured.MeasurementUnitsCodeSequence = [code(f"UCUM {unit} {unit}")]
    item.MeasuredValueSequence = [measured]
    return item


def coded(name: str, value: str, *children: Dataset, relationship: str = CONTAINS) -> Dataset:
    item = content(name, "CODE", relationship, children)
    item.ConceptCodeSequence = [code(value)]
    return item


def text(name: str, value: str) -> Dataset:
    item = content(name, "TEXT", CONTAINS)
    item.TextValue = value
    return item


def uid(name: str, value: str) -> Dataset:
    item = content(name, "UIDREF", CONTAINS)
    item.UID = UID(value)
    return item


def moment(name: str, value: str, relationship: str = CONTAINS) -> Dataset:
    item = content(name, "DATETIME", relationship)
    item.DateTime = value
    return item


def report(title: str, *children: Dataset, instance: str, flags: str = "COMPLETE UNVERIFIED") -> Dataset:
    """The whole instance, without what no test reads."""
    dataset = Dataset()
    dataset.SOPClassUID = f"1.2.840.10008.5.1.4.1.1.88.{68 if '113500' in title else 67}"
    dataset.SOPInstanceUID, dataset.Modality = instance, "SR"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = STUDY, SERIES
    dataset.PatientName, dataset.PatientID = "Canary^Dose", "CANARY-1"
    dataset.CompletionFlag, dataset.VerificationFlag = flags.split()
    dataset.ValueType = "CONTAINER"
    dataset.ConceptNameCodeSequence = [code(title)]
    dataset.ContentSequence = list(children)
    return dataset


X_RAY = "DCM 113701 X-Ray Radiation Dose Report"
NUCLEAR = "DCM 113500 Radiopharmaceutical Radiation Dose Report"


def acquisition(event: str, ctdi: Any, dlp: Any, *more: Dataset) -> Dataset:
    """A CT Acquisition (TID 10013), its doses in the containers that the template has."""
    return container(
        "DCM 113819 CT Acquisition",
        text("DCM 125203 Acquisition Protocol", "Abdomen ABC"),
        coded("DCM 123014 Target Region", "SCT 818983003 Abdomen"),
        coded("DCM 113820 CT Acquisition Type", "SCT 116152004 Spiral Acquisition"),
        uid("DCM 113769 Irradiation Event UID", event),
        *more,
        container("DCM 113822 CT Acquisition Parameters", num("DCM 113824 Exposure Time", "4.5", "s")),
        container(
            "DCM 113829 CT Dose",
            num("DCM 113830 Mean CTDIvol", ctdi, "mGy"),
            coded("DCM 113835 CTDIw Phantom Type", "DCM 113691 IEC Body Dosimetry Phantom"),
            num("DCM 113838 DLP", dlp, "mGy.cm"),
        ),
    )


def ct(instance: str = "1.2.3.10", *, flags: str = "COMPLETE UNVERIFIED", events: Iterable[Dataset] = ()) -> Dataset:
    """TID 10011 with two acquisitions, or those of ``events``."""
    intent = coded("SCT 363703001 Has Intent", "SCT 261004008 Diagnostic Intent", relationship=MODIFIES)
    return report(
        X_RAY,
        coded("DCM 121058 Procedure reported", "SCT 77477000 Computed Tomography X-Ray", intent, relationship=MODIFIES),
        moment("DCM 113809 Start of X-Ray Irradiation", "20240131101500.500000+0100", CONTEXT),
        coded("DCM 113705 Scope of Accumulation", "DCM 113014 Study", relationship=CONTEXT),
        container(
            "DCM 113811 CT Accumulated Dose Data",
            num("DCM 113812 Total Number of Irradiation Events", "2", "{events}"),
            num("DCM 113813 CT Dose Length Product Total", "203.12", "mGy.cm"),
        ),
        *(
            list(events)
            or [
                acquisition(
                    "1.2.3.77.1", "1.25", "157.07", moment("DCM 111526 DateTime Started", "20240131101530+0100")
                ),
                acquisition("1.2.3.77.2", "2.25", "46.05"),
            ]
        ),
        instance=instance,
        flags=flags,
    )


def plane(letter: str, total: str) -> Dataset:
    """Accumulated X-Ray Dose Data of one plane (TID 10002, 10004, 10007)."""
    number = {"A": "113620", "B": "113621"}[letter]
    return container(
        "DCM 113702 Accumulated X-Ray Dose Data",
        coded("DCM 113764 Acquisition Plane", f"DCM {number} Plane {letter}", relationship=MODIFIES),
        num("DCM 113722 Dose Area Product Total", total, "Gy.m2"),
        num("DCM 113725 Dose (RP) Total", "0.212", "Gy"),
        num("DCM 113730 Total Fluoro Time", "450", "s"),
        num("DCM 113731 Total Number of Radiographic Frames", "36", "1"),
    )


def angiography(instance: str = "1.2.3.20") -> Dataset:
    """TID 10001 of a biplane system, with codes of SNOMED-RT as in reports before 2018."""
    return report(
        X_RAY,
        coded("DCM 121058 Procedure reported", "DCM 113704 Projection X-Ray", relationship=MODIFIES),
        plane("A", "1.3639E-3"),
        plane("B", "0.0002"),
        *(
            container(
                "DCM 113706 Irradiation Event X-Ray Data",
                coded("DCM 113764 Acquisition Plane", f"DCM {number} {name}", relationship=MODIFIES),
                uid("DCM 113769 Irradiation Event UID", "1.2.3.88.1"),
                moment("DCM 111526 DateTime Started", "20240131093000"),
                coded("DCM 113721 Irradiation Event Type", "SRT P5-06000 Fluoroscopy"),
                coded("DCM 123014 Target Region", "SRT T-32000 Heart"),
                num("DCM 122130 Dose Area Product", "0.00001", "Gy.m2"),
                num("DCM 113738 Dose (RP)", "0.001", "Gy"),
            )
            for number, name in (("113620", "Plane A"), ("113621", "Plane B"))
        ),
        instance=instance,
    )


def mammography(instance: str = "1.2.3.30") -> Dataset:
    """TID 10001 with TID 10005: one total for each breast."""
    sides = (("SCT 7771000 Left", "2.5"), ("SCT 24028007 Right", "2.25"))
    return report(
        X_RAY,
        coded("DCM 121058 Procedure reported", "SCT 71651007 Mammography", relationship=MODIFIES),
        container(
            "DCM 113702 Accumulated X-Ray Dose Data",
            *(
                num("DCM 111637 Accumulated Average Glandular Dose", dose, "mGy", laterality(side))
                for side, dose in sides
            ),
        ),
        container(
            "DCM 113706 Irradiation Event X-Ray Data",
            uid("DCM 113769 Irradiation Event UID", "1.2.3.99.1"),
            coded("DCM 123014 Target Region", "SCT 76752008 Breast", laterality("SCT 7771000 Left")),
            num("DCM 111631 Average Glandular Dose", "0.0125", "dGy"),
            num("DCM 111636 Entrance Exposure at RP", "6.1", "mGy"),
        ),
        instance=instance,
    )


def laterality(side: str) -> Dataset:
    return coded("SCT 272741003 Laterality", side, relationship=MODIFIES)


def administration(event: str = "1.2.3.66.1") -> Dataset:
    """Radiopharmaceutical Administration (TID 10022)."""
    return container(
        "DCM 113502 Radiopharmaceutical Administration",
        coded(
            "SCT 349358000 Radiopharmaceutical agent",
            "SCT 35321007 Fluorodeoxyglucose F^18^",
            coded("SCT 89457008 Radionuclide", "SCT 77004003 ^18^Fluorine", relationship=PROPERTY),
            num("SCT 304283002 Radionuclide Half Life", "6586.2", "s"),
        ),
        uid("DCM 113503 Radiopharmaceutical Administration Event UID", event),
        moment("DCM 123003 Radiopharmaceutical Start DateTime", "20240131080000+0000"),
        num("DCM 113507 Administered activity", "154", "MBq"),
        num("DCM 113508 Pre-Administration Measured Activity", "160", "MBq"),
        coded("SCT 410675002 Route of administration", "SCT 47625008 Intravenous route"),
    )


def nuclear(instance: str = "1.2.3.40", administrations: int = 1) -> Dataset:
    """TID 10021; the template has one administration."""
    procedure = "SCT 44139004 PET study for localization of tumor"
    return report(
        NUCLEAR,
        coded("SCT 363589002 Associated Procedure", procedure, relationship=MODIFIES),
        *(administration(f"1.2.3.66.{number}") for number in range(1, administrations + 1)),
        instance=instance,
    )
