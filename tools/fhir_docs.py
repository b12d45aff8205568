"""docs/fhir-mapping.md, from the table of rules and the reasons for what is left out."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import date
from typing import Any

from dicom_etl.outputs.fhir.body_part import body_parts
from dicom_etl.outputs.fhir.codes import SYSTEMS
from dicom_etl.outputs.fhir.mapping import ENDPOINT, MAPPING_VERSION, PATIENT, STUDY
from dicom_etl.outputs.fhir.reasons import REASON_TEXTS
from dicom_etl.outputs.fhir.rule import Rule

_HEAD = """# From DICOM to FHIR

For people who read our resources in a FHIR server, or check what they say. `make docs` generates this page from the table that
the code runs on; do not edit it. FHIR is R4 (4.0.1); what differs in R5 stands beside it. This is version {version} of the
mapping: it is part of each resource's digest, so that a new version sends everything again.

Values are those of the tables: of several headers the latest value that is not null. Texts have no control characters and no
blanks at their ends, and an empty one is left out. The examples are made up: the service is
`https://hospital.example.org/v2`, and `fhir.issuers` is `{{"HOSP" = "urn:oid:1.2.3"}}`.

**Times.** A FHIR time has a zone. That of a DICOM time is in the header (0008,0201), or it is that of `fhir.timezone`, with
summer time; where an hour stands twice on the clocks, the first is taken. Else the date alone is written. So it is for a time
without minutes. Seconds that are missing are 00, and second 60 is 59.

**Order.** Series stand by number and UID, instances too. Equal rows give equal bytes.
"""
_COLUMNS = "| element | R4 | from | what is written | example | R5 | source |\n|---|---|---|---|---|---|---|\n"
_STUDY = "One for a study that has living instances. Counts are those of living rows, also of what cannot be written.\n"
_PATIENT = """One of our own, where the settings let us make it (`fhir.patients`). Partitions share it: the number of one issuer is the same
person in all of them. Where partitions use the same numbers for different people, `fhir.issuers` must tell them apart.
"""
_ENDPOINT = "One for a service and a partition.\n"
_LEFT_OUT = """## What is left out, and counted

What a resource cannot hold is left out, so that the resource is valid. It is counted by these words; no count and no log has a
value.

| word | what there was: what is written |
|---|---|
"""
_SYSTEMS = """## Coding schemes

The systems of the schemes in ProcedureCodeSequence. Other schemes, private ones among them, have none.

| designator | system |
|---|---|
"""
_BODY_PARTS = """## Body parts

The {terms} terms of PS3.16 Annex L that have a code, compared in capitals and without blanks. The display is the code's meaning in
CID 4, where CID 4 has it.

| term | SNOMED CT | display |
|---|---|---|
"""


def fhir_mapping_document() -> str:
    """The whole of docs/fhir-mapping.md."""
    reasons = [f"| `{reason}` | {text} |\n" for reason, text in REASON_TEXTS.items()]
    systems = [f"| `{designator}` | `{system}` |\n" for designator, system in SYSTEMS.items()]
    parts = [f"| `{term}` | {code} | {display or ''} |\n" for term, (code, display) in body_parts().items()]
    sections = (
        _HEAD.format(version=MAPPING_VERSION),
        _section("ImagingStudy", _STUDY, STUDY),
        _section("Patient", _PATIENT, PATIENT),
        _section("Endpoint", _ENDPOINT, ENDPOINT),
        _LEFT_OUT + "".join(reasons),
        _SYSTEMS + "".join(systems),
        _BODY_PARTS.format(terms=len(parts)) + "".join(parts),
    )
    return "\n".join(sections)


def _section(name: str, about: str, rules: Iterable[Rule]) -> str:
    return f"## {name}\n\n{about}\n{_COLUMNS}" + "".join(map(_row, rules))


def _row(rule: Rule) -> str:
    cells = (
        f"`{rule.path}`",
        rule.cardinality,
        ", ".join(f"`{tag}`" for tag in rule.tags) or "-",
        rule.writes,
        _example(rule),
        rule.r5,
        rule.source,
    )
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"


def _example(rule: Rule) -> str:
    if rule.example is None:
        return "-"
    given = ", ".join(f"{tag} `{_shown(value)}`" for tag, value in rule.example.given.items())
    return f"{given}: `{_shown(rule.example.value)}`" if given else f"`{_shown(rule.example.value)}`"


def _shown(value: Any) -> str:
    if isinstance(value, str | date):
        return str(value)
    return json.dumps(value, ensure_ascii=False)
