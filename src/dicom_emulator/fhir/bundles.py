"""Batch bundles: each entry is an interaction of its own, answered in the order of the entries (FHIR R4, http.html)."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl, unquote

from dicom_emulator.fhir.answers import Answer, Ask, Refusal, outcome
from dicom_emulator.fhir.primitives import is_absolute
from dicom_emulator.fhir.rules import Problem
from dicom_emulator.fhir.service import FhirService
from dicom_emulator.fhir.store import references

Json = dict[str, Any]
_REASONS = {200: "OK", 201: "Created", 204: "No Content", 400: "Bad Request", 404: "Not Found"}


def entries_of(bundle: object, service: FhirService) -> list[Ask]:
    """What a bundle asks. Raises Refusal for what is no batch, and for more entries than are taken."""
    if not isinstance(bundle, dict) or bundle.get("resourceType") != "Bundle":
        raise Refusal(400, "structure", "Bundle")
    if bundle.get("type") != "batch":
        raise Refusal(400, "not-supported", "Bundle.type", bundle.get("type"))
    entries = bundle.get("entry", [])
    if not isinstance(entries, list) or not entries:
        raise Refusal(400, "required", "Bundle.entry")
    if len(entries) > service.options.most_entries:
        raise Refusal(413, "too-costly", "Bundle.entry")
    return [_ask(entry) for entry in entries]


def _ask(entry: object) -> Ask:
    request = entry.get("request") if isinstance(entry, dict) else None
    if not isinstance(entry, dict) or not isinstance(request, dict):
        raise Refusal(400, "required", "Bundle.entry.request")
    if set(entry) - {"fullUrl", "resource", "request"} or set(request) - {"method", "url", "ifMatch"}:
        raise Refusal(400, "structure", "Bundle.entry")
    url = str(request.get("url", ""))
    full_url = entry.get("fullUrl")
    if full_url is None and any(not is_absolute(one) for one in references(entry.get("resource"))):
        # As HAPI's validator: what is relative is so to the address of the resource.
        raise Refusal(422, "processing", "Bundle.entry.fullUrl")
    if full_url is not None and not (is_absolute(full_url) and full_url.endswith(f"/{url}")):
        raise Refusal(422, "processing", "Bundle.entry.fullUrl", full_url)
    path, _, query = url.partition("?")
    headers = {"if-match": request["ifMatch"]} if "ifMatch" in request else {}
    parameters = tuple(parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query)))
    return Ask(str(request.get("method")), unquote(path), parameters, entry.get("resource"), headers)


def answer_batch(asks: list[Ask], service: FhirService, base: str, authorization: str | None, minimal: bool) -> Answer:
    """The batch-response; `minimal` leaves out what was put. An entry that no role of the token covers is 403."""
    before = service.store.snapshot()
    answers: list[tuple[Ask, Answer]] = []
    headers: dict[str, str] = {}
    for ask in asks:
        answer = _forbidden(ask, service, authorization) or _faulty(ask, service, base) or service.answer(ask, base)
        headers |= {name: value for name, value in answer.headers.items() if name == "retry-after"}
        answers.append((ask, answer))
    refused = [answer for _, answer in answers if 400 <= answer.status < 500]
    if service.options.refuse_whole and refused:
        service.store.restore(before)
        return Answer(422, refused[0].resource)
    entries = [_entry(answer, minimal and ask.method != "GET") for ask, answer in answers]
    return Answer(200, {"resourceType": "Bundle", "type": "batch-response", "entry": entries}, headers)


def _forbidden(ask: Ask, service: FhirService, authorization: str | None) -> Answer | None:
    if service.tokens.refusal(authorization, ask.method, service.clock.now_ticks()) is None:
        return None
    return Answer(403, outcome([Problem("forbidden", "")], service.options.quoting))


def _faulty(ask: Ask, service: FhirService, base: str) -> Answer | None:
    for fault in service.entry_faults:
        if fault.strikes(ask):
            if fault.late:
                service.answer(ask, base)
            headers = {} if fault.retry_after is None else {"retry-after": str(fault.retry_after)}
            problem = Problem(fault.code, ask.path.partition("/")[0], ask.path)
            return Answer(fault.status, outcome([problem], service.options.quoting), headers)
    return None


def _entry(answer: Answer, minimal: bool) -> Json:
    response: Json = {"status": f"{answer.status} {_REASONS.get(answer.status, '')}".strip()}
    if "etag" in answer.headers:
        response["etag"] = answer.headers["etag"]
    entry: Json = {"response": response}
    if answer.status >= 400:
        response["outcome"] = answer.resource
    elif answer.resource is not None and not minimal:
        entry["resource"] = answer.resource
    return entry
