"""What bears the mark of our lake in a FHIR server, recorded or not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from dicom_etl.core.errors import ProtocolError
from dicom_etl.outputs.fhir.facts import MappingOptions
from dicom_etl.outputs.fhir.ids import LAKE
from dicom_etl.outputs.fhir.sent import Kind
from dicom_etl.outputs.fhir.server import FhirServer

# What refers to another resource goes before it.
DELETED_IN_ORDER: Final[tuple[Kind, ...]] = ("Observation", "ImagingStudy", "Patient", "Endpoint")


def marked(server: FhirServer, kind: str, options: MappingOptions) -> Iterator[str]:
    """The ids of all resources of a kind that bear this lake's mark, by the server's own search.

    Raises ProtocolError when the server gives a resource without it: one that does not know `_tag` gives all, and what
    is not ours is never to be deleted.
    """
    params = (("_tag", f"{LAKE}|{options.lake}"), ("_elements", "id,meta"), ("_count", "500"))
    for one in server.search(kind, params):
        meta = one.get("meta")
        tags = meta.get("tag") if isinstance(meta, dict) else None
        mark = {"system": LAKE, "code": options.lake}
        if not any(isinstance(tag, dict) and mark.items() <= tag.items() for tag in tags or ()):
            raise ProtocolError(f"the FHIR server gives a {kind} that was not searched for: it does not search by _tag")
        yield str(one.get("id", ""))
