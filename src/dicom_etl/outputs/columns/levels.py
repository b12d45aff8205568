"""The level at which a value is one: study, series or instance, by the module of the attribute (PS3.3 C.7).

Patient and study modules: study, as ``core.attributes`` has it; general series, equipment and frame of reference:
series; all else, private attributes included: instance. What is in a sequence has the sequence's level. Writers may
vary most of them, so this is the default, and ``level=`` overrides it.
"""

from __future__ import annotations

from typing import Final

from dicom_etl.core.attributes import ATTRIBUTES, Level
from dicom_etl.outputs.columns.tagpath import TagPath

LEVELS: Final[tuple[Level, ...]] = ("instance", "series", "study")

# PS3.3 C.7.2.1 General Study, C.7.2.2 Patient Study, C.7.2.3 Clinical Trial Study; group 0010 is C.7.1.
_STUDY: Final = frozenset(
    """
    StudyInstanceUID StudyDate StudyTime ReferringPhysicianName ReferringPhysicianIdentificationSequence
    ConsultingPhysicianName ConsultingPhysicianIdentificationSequence StudyID AccessionNumber
    IssuerOfAccessionNumberSequence StudyDescription PhysiciansOfRecord PhysiciansOfRecordIdentificationSequence
    NameOfPhysiciansReadingStudy PhysiciansReadingStudyIdentificationSequence RequestingServiceCodeSequence
    ReferencedStudySequence ProcedureCodeSequence ReasonForPerformedProcedureCodeSequence AdmissionID
    IssuerOfAdmissionIDSequence ServiceEpisodeID IssuerOfServiceEpisodeIDSequence ServiceEpisodeDescription
    AdmittingDiagnosesDescription AdmittingDiagnosesCodeSequence ReasonForVisit ReasonForVisitCodeSequence
    PatientState ClinicalTrialTimePointID ClinicalTrialTimePointDescription ModalitiesInStudy
    NumberOfStudyRelatedSeries NumberOfStudyRelatedInstances
    """.split()  # noqa: SIM905
)
# C.7.3.1 General Series, C.7.3.2 Clinical Trial Series, C.7.4.1 Frame of Reference, C.7.5.1 General Equipment.
_SERIES: Final = frozenset(
    """
    Modality SeriesInstanceUID SeriesNumber Laterality SeriesDate SeriesTime PerformingPhysicianName
    PerformingPhysicianIdentificationSequence ProtocolName SeriesDescription SeriesDescriptionCodeSequence
    OperatorsName OperatorIdentificationSequence ReferencedPerformedProcedureStepSequence RelatedSeriesSequence
    BodyPartExamined PatientPosition SmallestPixelValueInSeries LargestPixelValueInSeries RequestAttributesSequence
    PerformedProcedureStepID PerformedProcedureStepStartDate PerformedProcedureStepStartTime
    PerformedProcedureStepEndDate PerformedProcedureStepEndTime PerformedProcedureStepDescription
    PerformedProtocolCodeSequence CommentsOnThePerformedProcedureStep TreatmentSessionUID ClinicalTrialSeriesID
    ClinicalTrialSeriesDescription FrameOfReferenceUID PositionReferenceIndicator Manufacturer InstitutionName
    InstitutionAddress InstitutionalDepartmentName StationName ManufacturerModelName DeviceSerialNumber
    SoftwareVersions GantryID SpatialResolution DateOfLastCalibration TimeOfLastCalibration PixelPaddingValue
    NumberOfSeriesRelatedInstances
    """.split()  # noqa: SIM905
)
_FIXED: Final = {attribute.keyword: attribute.level for attribute in ATTRIBUTES}


def default_level(path: TagPath) -> Level:
    """The level of a path's first attribute."""
    step = path.steps[0]
    keyword = step.keyword or ""
    if keyword in _FIXED:
        return _FIXED[keyword]
    if step.tag.startswith("0010") or keyword in _STUDY:
        return "study"
    return "series" if keyword in _SERIES else "instance"
