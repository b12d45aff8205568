"""Searches by id, identifier, tag, source and patient, page by page (FHIR R4, search.html)."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import urlencode

from dicom_emulator.fhir.answers import Answer, Ask, Refusal
from dicom_emulator.fhir.options import FhirOptions
from dicom_emulator.fhir.store import ResourceStore

Json = dict[str, Any]
Matches = Callable[[Json, str], bool]
_PAGING = frozenset({"_count", "_elements", "_summary", "_total", "ct"})
_SHOWN_ANYHOW = frozenset({"resourceType", "id", "meta"})


def search(store: ResourceStore, kind: str, ask: Ask, options: FhirOptions, base: str) -> Answer:
    """A searchset Bundle. Raises Refusal (400) for a parameter that is not known: nothing is ignored in silence."""
    tests = [(_test(name, options), value) for name, value in ask.query if name not in _PAGING]
    paging = {name: value for name, value in ask.query if name in _PAGING}
    found = [one for one in store.living(kind) if all(test(one, value) for test, value in tests)]
    bundle: Json = {"resourceType": "Bundle", "type": "searchset", "total": len(found)}
    if paging.get("_summary") == "count":
        return Answer(200, bundle)
    after = _after(paging.get("ct"))
    rest = [one for one in found if one["id"] > after]
    size = min(_count(paging.get("_count")), options.page_size)
    page = rest[:size]
    bundle["link"] = list(_links(base, kind, ask, page[-1]["id"] if len(rest) > size else None))
    if page:
        bundle["entry"] = [
            {"fullUrl": f"{base}/{kind}/{one['id']}", "resource": _shown(one, paging), "search": {"mode": "match"}}
            for one in page
        ]
    return Answer(200, bundle)


def _test(name: str, options: FhirOptions) -> Matches:
    if name == "identifier" and options.loose_identifiers:
        return _loosely
    if name not in _TESTS:
        raise Refusal(400, "not-supported", name)
    return _TESTS[name]


def _links(base: str, kind: str, ask: Ask, last: str | None) -> Iterator[Json]:
    yield {"relation": "self", "url": f"{base}/{kind}?{urlencode(ask.query)}"}
    if last is not None:
        token = base64.b64encode(last.encode()).decode()
        query = [(name, value) for name, value in ask.query if name != "ct"]
        yield {"relation": "next", "url": f"{base}/{kind}?{urlencode([*query, ('ct', token)])}"}


def _after(token: str | None) -> str:
    if token is None:
        return ""
    try:
        return base64.b64decode(token, validate=True).decode()
    except ValueError as error:
        raise Refusal(400, "invalid", "ct") from error


def _count(text: str | None) -> int:
    if text is None:
        return 1 << 30
    if not text.isdigit() or int(text) < 1:
        raise Refusal(400, "invalid", "_count", text)
    return int(text)


def _shown(resource: Json, paging: Mapping[str, str]) -> Json:
    """With `_elements`, those only, marked as a part of the whole."""
    if "_elements" not in paging:
        return resource
    wanted = _SHOWN_ANYHOW | set(paging["_elements"].split(","))
    part = {name: value for name, value in resource.items() if name in wanted}
    subsetted = {"system": "http://terminology.hl7.org/CodeSystem/v3-ObservationValue", "code": "SUBSETTED"}
    meta = part["meta"]
    return {**part, "meta": {**meta, "tag": [*meta.get("tag", []), subsetted]}}


def _parts(text: str, separator: str) -> list[str]:
    """Split where the separator is not escaped by a backslash; what is escaped stays so."""
    parts = [""]
    for piece in re.findall(r"\\.|.", text, re.DOTALL):
        if piece == separator:
            parts.append("")
        else:
            parts[-1] += piece
    return parts


def _plain(text: str) -> str:
    return re.sub(r"\\([\\,|$])", r"\1", text)


def _tokens(query: str) -> Iterator[tuple[str | None, str]]:
    """The alternatives of a token parameter: system (None: any, "": none) and code ("": any)."""
    for one in _parts(query, ","):
        parts = [_plain(part) for part in _parts(one, "|")]
        yield (None, parts[0]) if len(parts) == 1 else (parts[0], "|".join(parts[1:]))


def _is_token(system: str, code: str, query: str) -> bool:
    return any(
        (wanted_system is None or wanted_system == system) and wanted in ("", code)
        for wanted_system, wanted in _tokens(query)
    )


def _by_identifier(resource: Json, query: str) -> bool:
    return any(_is_token(one.get("system", ""), one.get("value", ""), query) for one in resource.get("identifier", ()))


def _loosely(resource: Json, query: str) -> bool:
    wanted = {code.casefold() for _, code in _tokens(query)}
    return any(one.get("value", "").casefold() in wanted for one in resource.get("identifier", ()))


def _by_tag(resource: Json, query: str) -> bool:
    return any(_is_token(one.get("system", ""), one.get("code", ""), query) for one in resource["meta"].get("tag", ()))


def _by_subject(resource: Json, query: str) -> bool:
    reference = resource.get("subject", {}).get("reference", "")
    return any(reference in (one, f"Patient/{one}") for one in _parts(query, ","))


_TESTS: Mapping[str, Matches] = {
    "_id": lambda resource, query: resource["id"] in _parts(query, ","),
    "_source": lambda resource, query: resource["meta"].get("source") in map(_plain, _parts(query, ",")),
    "_tag": _by_tag,
    "identifier": _by_identifier,
    "patient": _by_subject,
    "subject": _by_subject,
}
