"""Rows of the mapping: what an ImagingStudy says of an instance."""

from __future__ import annotations

from typing import Final

from dicom_etl.outputs.fhir.codes import URI, coding
from dicom_etl.outputs.fhir.facts import Facts, Json
from dicom_etl.outputs.fhir.reasons import Reason
from dicom_etl.outputs.fhir.rule import Context, Example, Rule
from dicom_etl.outputs.fhir.values import id_of_uid, text, unsigned, urn_of_uid

_UNKNOWN: Final = "http://hl7.org/fhir/StructureDefinition/data-absent-reason"
_TITLES: Final = ("DocumentTitle", "ConceptNameCodeSequence[0].CodeMeaning", "ContentLabel")


def _uid(instance: Facts, context: Context) -> str | None:
    return id_of_uid(instance.get("SOPInstanceUID"), context.left_out)


def _sop_class(instance: Facts, context: Context) -> Json:
    urn = urn_of_uid(instance.get("SOPClassUID"))
    if urn is None:
        context.left_out[Reason.SOP_CLASS] += 1
        return {"extension": [{"url": _UNKNOWN, "valueCode": "unknown"}]}
    return coding(URI, urn)


def _number(instance: Facts, context: Context) -> int | None:
    return unsigned(instance.get("InstanceNumber"), context.left_out)


def _title(instance: Facts, context: Context) -> str | None:
    titles = (text(instance.get(tag), context.left_out) for tag in _TITLES)
    return next((title for title in titles if title is not None), None)


RULES: Final = (
    Rule(
        resource="ImagingStudy", path="series.instance.uid", cardinality="1..1", tags=("SOPInstanceUID",),
        writes="as `series.uid`",
        source="PS3.3 C.12.1; R4 ImagingStudy.series.instance.uid, id",
        example=Example({"SOPInstanceUID": "1.2.3.4.5"}, "1.2.3.4.5"),
        make=_uid,
    ),
    Rule(
        resource="ImagingStudy", path="series.instance.sopClass", cardinality="1..1", tags=("SOPClassUID",),
        writes="the UID behind `urn:oid:`; an extension that says `unknown` when there is none",
        source="PS3.3 C.12.1; R4 ImagingStudy.series.instance.sopClass",
        example=Example(
            {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.2"},
            {"system": "urn:ietf:rfc:3986", "code": "urn:oid:1.2.840.10008.5.1.4.1.1.2"},
        ),
        make=_sop_class,
    ),
    Rule(
        resource="ImagingStudy", path="series.instance.number", cardinality="0..1", tags=("InstanceNumber",),
        writes="as `series.number`",
        source="PS3.3 C.7.6.1; R4 ImagingStudy.series.instance.number, unsignedInt",
        example=Example({"InstanceNumber": 12}, 12),
        make=_number,
    ),
    Rule(
        resource="ImagingStudy", path="series.instance.title", cardinality="0..1", tags=_TITLES,
        writes="of documents, reports and presentation states, the first of the three; ImageType of images is no title",
        source="PS3.3 C.24.2, C.17.3, C.11.10; R4 ImagingStudy.series.instance.title",
        example=Example({"ContentLabel": "LUNG WINDOW"}, "LUNG WINDOW"),
        make=_title,
    ),
)  # fmt: skip
