"""What the server does with each interaction (FHIR R4, http.html), and all that tests can look at or switch."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dicom_emulator.fhir.answers import Answer, Ask, Refusal, outcome
from dicom_emulator.fhir.capability import capability_statement
from dicom_emulator.fhir.faults import EntryFault
from dicom_emulator.fhir.options import FhirOptions
from dicom_emulator.fhir.rules import misplaced, problems
from dicom_emulator.fhir.searching import search
from dicom_emulator.fhir.store import ResourceStore
from dicom_emulator.http.tokens import Tokens
from dicom_emulator.state.clock import Clock
from dicom_emulator.testing.faults import Faults

Json = dict[str, Any]
_KIND = re.compile(r"[A-Z][A-Za-z]+")
# What is no resource, or leads nowhere, is 400; what breaks a rule of its content is 422.
_MALFORMED = ("structure", "invalid", "not-found")


@dataclass(frozen=True)
class LoggedExchange:
    """One answered request; `entries` is None where it was no bundle, `bytes` is the length of its body."""

    method: str
    path: str
    status: int
    entries: int | None
    bytes: int


class FhirService:
    """A server's state. `requests` are its exchanges in order, `capability` is what GET metadata answers.

    `most_in_flight` is how many bundles were under way at once, `collisions` names the resources that two of them held.
    """

    def __init__(self, options: FhirOptions | None = None) -> None:
        self.options = options or FhirOptions()
        self.clock = Clock()
        self.store = ResourceStore(self.options, self.clock)
        self.faults = Faults()
        self.entry_faults: list[EntryFault] = []
        self.tokens = Tokens(self.options.tokens)
        self.requests: list[LoggedExchange] = []
        self.capability = capability_statement(self.options.fhir_version)
        self.most_in_flight = 0
        self.collisions: list[str] = []
        self._operations: dict[str, int] = {}

    def resources(self, kind: str) -> dict[str, Json]:
        """The living resources of a kind by id."""
        return {one["id"]: one for one in self.store.living(kind)}

    def answer(self, ask: Ask, base: str) -> Answer:
        """The answer to one interaction that is no bundle; an OperationOutcome for what is refused."""
        try:
            return self._answer(ask, base)
        except Refusal as refusal:
            return Answer(refusal.status, outcome(refusal.problems, self.options.quoting))

    def _answer(self, ask: Ask, base: str) -> Answer:
        if ask.path == "metadata" and ask.method == "GET":
            return Answer(200, self.capability)
        if ask.path == "$import" and ask.method == "POST":
            return self._start(ask, base)
        kind, _, rest = ask.path.partition("/")
        if kind == "_operations":
            return self._operation(rest)
        if not _KIND.fullmatch(kind):
            raise Refusal(404, "not-found", ask.path)
        if not rest:
            if ask.method != "GET":
                raise Refusal(405, "not-supported", ask.method)
            return search(self.store, kind, ask, self.options, base)
        return self._by_id(kind, rest, ask)

    def _by_id(self, kind: str, resource_id: str, ask: Ask) -> Answer:
        if_match = ask.headers.get("if-match")
        if ask.method == "GET":
            return self.store.read(kind, resource_id)
        if ask.method == "DELETE":
            return self.store.delete(kind, resource_id, if_match)
        if ask.method != "PUT":
            raise Refusal(405, "not-supported", ask.method)
        if not isinstance(ask.resource, dict):
            raise Refusal(400, "structure", kind)
        found = misplaced(ask.resource, kind, resource_id) or problems(ask.resource, self.store.exists)
        if found:
            refusal = Refusal(400 if found[0].code in _MALFORMED else 422, found[0].code)
            refusal.problems = found
            raise refusal
        return self.store.put(kind, resource_id, ask.resource, if_match)

    def _start(self, ask: Ask, base: str) -> Answer:
        """An `$import` begins: it reads nothing, and is done after some polls."""
        parameters = ask.resource if isinstance(ask.resource, dict) else {}
        if ask.headers.get("prefer") != "respond-async" or parameters.get("resourceType") != "Parameters":
            raise Refusal(400, "invalid", "Parameters")
        number = str(len(self._operations) + 1)
        self._operations[number] = self.options.operation_polls
        return Answer(202, None, {"content-location": f"{base}/_operations/import/{number}"})

    def _operation(self, rest: str) -> Answer:
        number = rest.removeprefix("import/")
        if number not in self._operations:
            raise Refusal(404, "not-found", "_operations")
        self._operations[number] -= 1
        if self._operations[number] >= 0:
            return Answer(202, None, {"retry-after": "1"})
        return Answer(200, {"transactionTime": "2026-01-01T00:00:00Z", "output": [], "error": []})


def lower_case(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}
