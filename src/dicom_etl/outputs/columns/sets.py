"""The sets of tags: ``imaging``, which is always there, and ``all``, what the archive's headers have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from dicom_etl.core.attributes import ATTRIBUTES
from dicom_etl.core.errors import UsageError
from dicom_etl.outputs.columns.naming import camel, check_name
from dicom_etl.outputs.columns.profile import marks_of
from dicom_etl.outputs.columns.tagpath import TagPath, tag_path

Use = Literal["fhir", "score", "deid", "geometry", "settled"]
MOST_COLUMNS: Final = 1000


@dataclass(frozen=True, slots=True)
class Built:
    """A tag of ``imaging``, as it is written in settings, and which outputs read it."""

    tag: str
    uses: tuple[Use, ...]


def _built(uses: str, tags: str) -> tuple[Built, ...]:
    names: dict[str, Use] = {"f": "fhir", "s": "score", "d": "deid", "g": "geometry", "q": "settled"}
    return tuple(Built(tag, tuple(names[use] for use in uses)) for tag in tags.split())


# Beside the seven attributes that `instance` has. Sources: R4 ImagingStudy's and Patient's own mapping (fhir), PS3.3
# C.7.6.2, C.7.6.3 and C.11 (score, geometry), the risk of burnt-in text by class and device (deid).
IMAGING: Final[tuple[Built, ...]] = (
    *_built("f", "StudyTime AccessionNumber ReferringPhysicianName NameOfPhysiciansReadingStudy"),
    *_built("f", "PatientBirthDate PatientSex SeriesDate SeriesTime TimezoneOffsetFromUTC"),
    *_built("f", "SeriesNumber SeriesDescription PerformingPhysicianName OperatorsName"),
    *_built("f", "Laterality ImageLaterality"),
    *_built("fs", "BodyPartExamined"),
    *_built("f", "ProcedureCodeSequence[0].CodeValue ProcedureCodeSequence[0].CodingSchemeDesignator"),
    *_built(
        "f", "ProcedureCodeSequence[0].CodeMeaning ConceptNameCodeSequence[0].CodeMeaning ContentLabel DocumentTitle"
    ),
    *_built("fq", "InstanceNumber"),
    *_built("q", "NumberOfStudyRelatedInstances"),
    *_built("d", "Manufacturer ManufacturerModelName BurnedInAnnotation"),
    *_built("sd", "ImageType[*]"),
    *_built("sd", "Rows Columns NumberOfFrames SamplesPerPixel PhotometricInterpretation"),
    *_built("s", "BitsAllocated BitsStored PixelRepresentation RescaleSlope RescaleIntercept"),
    *_built("s", "WindowCenter WindowWidth VOILUTFunction PresentationLUTShape"),
    *_built("sg", "PixelSpacing[0] PixelSpacing[1]"),
    *_built("g", "SliceThickness SpacingBetweenSlices FrameOfReferenceUID ImageOrientationPatient[*]"),
    *_built("g", "ImagePositionPatient[0] ImagePositionPatient[1] ImagePositionPatient[2]"),
)

_FIXED: Final = frozenset(attribute.tag for attribute in ATTRIBUTES)


def all_tags(seen: Mapping[str, int], *, identifying: bool, most: int = MOST_COLUMNS) -> tuple[TagPath, ...]:
    """The set ``all``: of the tags that headers have, each with how many have it, those that can be columns.

    The most frequent ones, at most ``most``, in the order of the tags. Left out are sequences, private and binary tags,
    those that no dictionary has, the keys, the seven that ``instance`` has, and unless ``identifying``, what is in
    PS3.15 Table E.1-1.
    """
    found = [(count, path) for tag, count in seen.items() if (path := _column(tag)) is not None]
    wanted = [(count, path) for count, path in found if identifying or not marks_of(path)]
    frequent = sorted(wanted, key=lambda one: (-one[0], one[1].steps[0].tag))[:most]
    return tuple(sorted((path for _, path in frequent), key=lambda path: path.steps[0].tag))


def _column(tag: str) -> TagPath | None:
    if tag in _FIXED:
        return None
    try:
        path = tag_path(tag)
        check_name(camel(path.steps[0].keyword or tag))
    except UsageError:
        return None
    return path
