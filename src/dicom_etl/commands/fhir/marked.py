"""What bears the mark of our lake in a FHIR server, recorded or not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from dicom_etl.outputs.fhir.facts import MappingOptions
from dicom_etl.outputs.fhir.ids import LAKE
from dicom_etl.outputs.fhir.sent import Kind
from dicom_etl.outputs.fhir.server import FhirServer

# What refers to another resource goes before it.
DELETED_IN_ORDER: Final[tuple[Kind, ...]] = ("Observation", "ImagingStudy", "Patient", "Endpoint")


def marked(server: FhirServer, kind: str, options: MappingOptions) -> Iterator[str]:
    """The ids of all resources of a kind that bear this lake's mark, by the server's own search."""
    params = (("_tag", f"{LAKE}|{options.lake}"), ("_elements", "id"), ("_count", "500"))
    return (str(one["id"]) for one in server.search(kind, params))
