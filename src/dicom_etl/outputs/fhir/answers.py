"""Reads a server's JSON without trusting its shape: objects, and what a search found."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from dicom_etl.core.errors import ProtocolError
from dicom_etl.outputs.fhir.facts import Json
from dicom_etl.remote.http.response import NOT_JSON, HttpResponse
from dicom_etl.remote.http.retry import FailureKind, RetryableError

_OBJECT = msgspec.json.Decoder(dict[str, Any])


def json_object(response: HttpResponse) -> Json:
    """The body as an object. Raises RetryableError for what is no JSON, as a cut body, ProtocolError for other JSON."""
    try:
        return _OBJECT.decode(response.body)
    except msgspec.ValidationError as error:
        raise ProtocolError("the FHIR server's answer is no JSON object") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RetryableError(NOT_JSON, FailureKind.FAILING) from error


def objects(value: Any) -> list[Json]:
    """The objects of a list; none where there is no list."""
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def matches(page: Json, kind: str) -> Iterator[Json]:
    """The resources of a searchset that match, without what else a server puts into it."""
    for entry in objects(page.get("entry")):
        resource, how = entry.get("resource"), entry.get("search")
        mode = how.get("mode", "match") if isinstance(how, dict) else "match"
        if mode == "match" and isinstance(resource, dict) and resource.get("resourceType") == kind:
            yield resource


def next_link(page: Json) -> str | None:
    """The link to the next page of a searchset. Raises ProtocolError for what is no searchset."""
    if page.get("resourceType") != "Bundle":
        raise ProtocolError("the FHIR server's answer to a search is no Bundle")
    links = (link.get("url") for link in objects(page.get("link")) if link.get("relation") == "next")
    return next((link for link in links if isinstance(link, str) and link), None)
