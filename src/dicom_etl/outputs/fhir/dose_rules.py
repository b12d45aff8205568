"""What is taken of dose reports: one row a concept, with its FHIR code, its unit and the template it stands in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from dicom_etl.outputs.fhir.codes import DCM, SYSTEMS, coding
from dicom_etl.outputs.fhir.content_tree import Code
from dicom_etl.outputs.fhir.facts import Json

Kind = Literal["total", "event", "administration"]
Value = Literal["quantity", "count", "coded"]
Concept = tuple[str, str]
"""Scheme designator and code value."""


@dataclass(frozen=True, slots=True)
class DoseRule:
    """A concept name whose value becomes a component.

    ``kind`` says where: ``total`` in the report's Observation, ``event`` in an event's, ``administration`` in both
    when the report has one. ``value``: a NUM as Quantity or integer, ``coded`` a CODE or TEXT. ``unit`` is the
    template's, in UCUM; scanners write others. ``former`` is the SNOMED-RT code of older reports.
    """

    scheme: str
    code: str
    name: str
    kind: Kind
    value: Value
    unit: str | None
    source: str
    former: str | None = None

    @property
    def coding(self) -> Json:
        """The concept as it is; with DICOM's name where DICOM defines it, since a display must be the system's."""
        return coding(SYSTEMS[self.scheme], self.code, self.name if self.scheme == "DCM" else None)


@dataclass(frozen=True, slots=True)
class EventRule:
    """A container that becomes an Observation, with the codes of the items that have its UID and its start.

    ``also`` is a second code beside the container's own: DICOMcast, and the profile of HL7, write every irradiation
    as DCM 113852.
    """

    code: str
    name: str
    uid: str
    start: str
    also: tuple[str, str] | None
    source: str

    @property
    def codings(self) -> list[Json]:
        named = [(self.code, self.name), *((self.also,) if self.also else ())]
        return [coding(DCM, code, name) for code, name in named]


# Concept names of the root: TID 10001 and 10011, TID 10021.
TITLES: Final = frozenset({"113701", "113500"})
ADMINISTRATION: Final = "113502"
_ANY: Final = ("113852", "Irradiation Event")
EVENT_RULES: Final[tuple[EventRule, ...]] = (
    EventRule("113706", "Irradiation Event X-Ray Data", "113769", "111526", _ANY, "TID 10003"),
    EventRule("113819", "CT Acquisition", "113769", "111526", _ANY, "TID 10013"),
    EventRule(ADMINISTRATION, "Radiopharmaceutical Administration", "113503", "123003", None, "TID 10022"),
)

# Beside them: the start of the whole (TID 10011), the region irradiated (TID 10003, 10013), the plane whose totals
# a container has (TID 10002).
REPORT_START: Final = "113809"
TARGET_REGION: Final = "123014"
PLANE: Final = "113764"

# Sources: PS3.16 A, X-Ray, CT and Radiopharmaceutical Radiation Dose SR IOD Templates.
DOSE_RULES: Final[tuple[DoseRule, ...]] = (
    DoseRule("DCM", "121058", "Procedure reported", "total", "coded", None, "TID 10001, 10011"),
    DoseRule("SCT", "363589002", "Associated Procedure", "total", "coded", None, "TID 10021", "G-C2D0"),
    DoseRule("DCM", "113705", "Scope of Accumulation", "total", "coded", None, "TID 10001, 10011"),
    DoseRule("DCM", "113812", "Total Number of Irradiation Events", "total", "count", "{events}", "TID 10012"),
    DoseRule("DCM", "113813", "CT Dose Length Product Total", "total", "quantity", "mGy.cm", "TID 10012"),
    DoseRule("DCM", "113814", "CT Effective Dose Total", "total", "quantity", "mSv", "TID 10012"),
    DoseRule("DCM", "113722", "Dose Area Product Total", "total", "quantity", "Gy.m2", "TID 10007"),
    DoseRule("DCM", "113725", "Dose (RP) Total", "total", "quantity", "Gy", "TID 10007"),
    DoseRule("DCM", "113726", "Fluoro Dose Area Product Total", "total", "quantity", "Gy.m2", "TID 10004"),
    DoseRule("DCM", "113728", "Fluoro Dose (RP) Total", "total", "quantity", "Gy", "TID 10004"),
    DoseRule("DCM", "113730", "Total Fluoro Time", "total", "quantity", "s", "TID 10004"),
    DoseRule("DCM", "113727", "Acquisition Dose Area Product Total", "total", "quantity", "Gy.m2", "TID 10004"),
    DoseRule("DCM", "113729", "Acquisition Dose (RP) Total", "total", "quantity", "Gy", "TID 10004"),
    DoseRule("DCM", "113855", "Total Acquisition Time", "total", "quantity", "s", "TID 10004"),
    DoseRule("DCM", "111637", "Accumulated Average Glandular Dose", "total", "quantity", "mGy", "TID 10005"),
    DoseRule("DCM", "113731", "Total Number of Radiographic Frames", "total", "count", "1", "TID 10006"),
    DoseRule("DCM", "113764", "Acquisition Plane", "event", "coded", None, "TID 10003"),
    DoseRule("DCM", "113721", "Irradiation Event Type", "event", "coded", None, "TID 10003"),
    DoseRule("DCM", "125203", "Acquisition Protocol", "event", "coded", None, "TID 10003, 10013"),
    DoseRule("DCM", "122130", "Dose Area Product", "event", "quantity", "Gy.m2", "TID 10003"),
    DoseRule("DCM", "111636", "Entrance Exposure at RP", "event", "quantity", "mGy", "TID 10003"),
    DoseRule("DCM", "113738", "Dose (RP)", "event", "quantity", "Gy", "TID 10003B"),
    DoseRule("DCM", "111631", "Average Glandular Dose", "event", "quantity", "mGy", "TID 10003B"),
    DoseRule("DCM", "113742", "Irradiation Duration", "event", "quantity", "s", "TID 10003B"),
    DoseRule("DCM", "113820", "CT Acquisition Type", "event", "coded", None, "TID 10013"),
    DoseRule("DCM", "113830", "Mean CTDIvol", "event", "quantity", "mGy", "TID 10013"),
    DoseRule("DCM", "113835", "CTDIw Phantom Type", "event", "coded", None, "TID 10013"),
    DoseRule("DCM", "113838", "DLP", "event", "quantity", "mGy.cm", "TID 10013"),
    DoseRule("DCM", "113839", "Effective Dose", "event", "quantity", "mSv", "TID 10013"),
    DoseRule("DCM", "113930", "Size Specific Dose Estimate", "event", "quantity", "mGy", "TID 10013"),
    DoseRule("SCT", "349358000", "Radiopharmaceutical agent", "administration", "coded", None, "TID 10022", "F-61FDB"),
    DoseRule("SCT", "89457008", "Radionuclide", "administration", "coded", None, "TID 10022", "C-10072"),
    DoseRule("SCT", "304283002", "Radionuclide Half Life", "administration", "quantity", "s", "TID 10022", "R-42806"),
    DoseRule("DCM", "113507", "Administered activity", "administration", "quantity", "MBq", "TID 10022"),
    DoseRule("DCM", "113508", "Pre-Administration Measured Activity", "event", "quantity", "MBq", "TID 10022"),
    DoseRule("DCM", "113509", "Post-Administration Measured Activity", "event", "quantity", "MBq", "TID 10022"),
    DoseRule("DCM", "123005", "Radiopharmaceutical Volume", "administration", "quantity", "cm3", "TID 10022"),
    DoseRule("SCT", "410675002", "Route of administration", "administration", "coded", None, "TID 10022", "G-C340"),
    DoseRule("DCM", "113505", "Intravenous Extravasation Symptoms", "event", "coded", None, "TID 10022"),
    DoseRule("DCM", "113506", "Estimated Extravasation Activity", "event", "quantity", "%", "TID 10022"),
)

_RULES: Final[Mapping[Concept, DoseRule]] = {
    **{(rule.scheme, rule.code): rule for rule in DOSE_RULES},
    **{("SRT", rule.former): rule for rule in DOSE_RULES if rule.former},
}
_EVENTS: Final = {rule.code: rule for rule in EVENT_RULES}
# PS3.16 8: SNOMED-RT has three designators, and its codes are not those of SNOMED CT.
_SNOMED_RT: Final = frozenset({"SNM3", "99SDM"})


def rule_of(name: Code | None) -> DoseRule | None:
    """The row of a concept name."""
    if name is None:
        return None
    scheme = "SRT" if name.scheme in _SNOMED_RT else name.scheme
    return _RULES.get((scheme or "", name.value or ""))


def event_of(name: Code | None) -> EventRule | None:
    """What the container of this name becomes."""
    return _EVENTS.get(dcm(name) or "")


def dcm(name: Code | None) -> str | None:
    """The code value of a concept name of the scheme DCM."""
    return name.value if name and name.scheme == "DCM" else None
