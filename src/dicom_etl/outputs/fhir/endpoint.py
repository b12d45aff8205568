"""The Endpoint of a partition of the DICOM service: where the images of its studies are got."""

from __future__ import annotations

from dicom_etl.outputs.fhir.facts import Json, MappingOptions, Resource
from dicom_etl.outputs.fhir.mapping import ENDPOINT
from dicom_etl.outputs.fhir.reasons import LeftOut
from dicom_etl.outputs.fhir.rule import Context, filled, fillers

_MADE_BY = fillers(ENDPOINT)


def endpoint(partition: str, options: MappingOptions) -> Resource:
    """FHIR R4 Endpoint: one for a service and a partition."""
    body: Json = {"resourceType": "Endpoint", **(filled(_MADE_BY, partition, Context(options, LeftOut())) or {})}
    return Resource("Endpoint", body["id"], body, {})
