"""Rows of the mapping: the Endpoint of a partition of the DICOM service."""

from __future__ import annotations

from typing import Final

from dicom_etl.core.attributes import DEFAULT_PARTITION
from dicom_etl.dicomweb.resources import VERSION, route
from dicom_etl.outputs.fhir.codes import CONNECTION, DCM, coding
from dicom_etl.outputs.fhir.facts import Json
from dicom_etl.outputs.fhir.ids import meta, resource_id
from dicom_etl.outputs.fhir.rule import Context, Example, Rule


def _id(partition: str, context: Context) -> str:
    return resource_id(context.options.key, "Endpoint", context.options.source, partition)


def _meta(_: str, context: Context) -> Json:
    return meta(context.options)


def _status(_: str, __: Context) -> str:
    return "active"


def _connection(_: str, __: Context) -> Json:
    return coding(CONNECTION, "dicom-wado-rs")


def _payload_type(_: str, __: Context) -> list[Json]:
    return [{"coding": [coding(DCM, "113014", "Study")]}]


def _mime_type(_: str, __: Context) -> list[str]:
    return ["application/dicom"]


def _address(partition: str, context: Context) -> str:
    path = route(None if partition == DEFAULT_PARTITION else partition)
    return context.options.service_url.rstrip("/") + path.removeprefix(VERSION)


RULES: Final = (
    Rule(
        resource="Endpoint", path="id", cardinality="0..1",
        writes="HMAC-SHA-256 of the service and the partition, in hexadecimal",
        source="R4 Resource.id",
        example=Example({}, "8f87bfb08b834683ab09d1a6cf968b9517b6b26e3c744fb8fbac226ff7b1f708"),
        make=_id,
    ),
    Rule(
        resource="Endpoint", path="meta", cardinality="0..1",
        writes="as that of ImagingStudy",
        source="R4 Meta",
        example=Example({}, {
            "source": "https://hospital.example.org", "tag": [{"system": "urn:dicom-etl:lake", "code": "8d3f2c6a"}],
        }),
        make=_meta,
    ),
    Rule(
        resource="Endpoint", path="status", cardinality="1..1",
        writes="`active`",
        source="R4 Endpoint.status",
        example=Example({}, "active"),
        make=_status,
    ),
    Rule(
        resource="Endpoint", path="connectionType", cardinality="1..1",
        writes="`dicom-wado-rs`; a viewer (`ihe-iid`) would be an Endpoint of its own",
        source="R4 Endpoint.connectionType",
        r5="1..* CodeableConcept",
        example=Example({}, {
            "system": "http://terminology.hl7.org/CodeSystem/endpoint-connection-type", "code": "dicom-wado-rs",
        }),
        make=_connection,
    ),
    Rule(
        resource="Endpoint", path="payloadType", cardinality="1..*",
        writes="DCM 113014, a study",
        source="PS3.16 D; IHE RAD IMR; R4 Endpoint.payloadType",
        r5="payload.type",
        example=Example({}, [{"coding": [
            {"system": "http://dicom.nema.org/resources/ontology/DCM", "code": "113014", "display": "Study"},
        ]}]),
        make=_payload_type,
    ),
    Rule(
        resource="Endpoint", path="payloadMimeType", cardinality="0..*",
        writes="`application/dicom`",
        source="PS3.18 8.7.3; R4 Endpoint.payloadMimeType",
        r5="payload.mimeType",
        example=Example({}, ["application/dicom"]),
        make=_mime_type,
    ),
    Rule(
        resource="Endpoint", path="address", cardinality="1..1",
        writes="the service's address with its version, and that of the partition unless it is `Microsoft.Default`; a "
        "client appends `/studies/` and the UID",
        source="PS3.18 10.4; R4 Endpoint.address",
        example=Example({"partitionName": "North wing"}, "https://hospital.example.org/v2/partitions/North%20wing"),
        make=_address,
    ),
)  # fmt: skip
