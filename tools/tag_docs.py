"""docs/tags.md, from the table of value representations and the set of tags that is always there."""

from __future__ import annotations

from dicom_etl.outputs.columns.design import imaging_columns
from dicom_etl.outputs.columns.sets import IMAGING
from dicom_etl.outputs.columns.vr import LOST, OUTCOME_TEXTS, TYPES, VRS, VrRule

_HEAD = """# Tags and types

For people who choose columns. `make docs` generates this page from the code; do not edit it.

## How a tag is written

| written | is |
|---|---|
| `SliceThickness` | a keyword of PS3.6; a wrong one is answered with the nearest right one |
| `(0018,0050)`, `0018,0050` | its number |
| `PixelSpacing`, `PixelSpacing[1]`, `PixelSpacing[*]` | the first value, the second, all joined by a backslash |
| `RequestAttributesSequence[0].RequestedProcedureID` | an attribute of a sequence's first item, which `[0]` may be left out for; `[*]`: of all items |
| `0019,xx0C@SIEMENS MR HEADER` | a private tag with its creator, whatever its block; a creator with `.`, `:`, `@`, `[` or `]` in double quotes |
| `SliceThickness:text` | another type than the default: see the table |
| `KVP name=tubeVoltage level=series` | another name than `kvp`, another level than the default |

Columns are named as in `instance`: `frameOfReferenceUid`. `_` joins attributes of a path; `_1` is an index, `_all` is `[*]`,
and a private tag is `siemensMrHeader_0019_0c`. A type is no part of a name.

A tag of PS3.15 Table E.1-1, on the path too, is refused without `--identifying`. So is every private tag.

## Types

The first is the default. Padding is no part of a value. `[*]` is always a text.

| VR | types | how it is read |
|---|---|---|
"""
_BINARY = "| OB OD OF OL OV OW | none | not in the service's headers |\n| SQ | none | name an attribute in it |\n"
_OUTCOMES = """
## What becomes of a value

Each column of each header has one outcome. The value is null in those marked so, and in no other.

| outcome | null | meaning |
|---|---|---|
"""
_SET = """
## The set `imaging`

Always there, beside the seven attributes that `instance` has. What outputs need it: FHIR, scoring, de-identification,
geometry, and whether a study is settled.

| column | tag | type | level | for |
|---|---|---|---|---|
"""


def tags_document() -> str:
    """The whole of docs/tags.md."""
    rules: dict[str, list[str]] = {}
    for vr, rule in VRS.items():
        rules.setdefault(_types(rule) + rule.note, []).append(vr)
    types = [f"| {' '.join(vrs)} | {_types(VRS[vrs[0]])} | {VRS[vrs[0]].note} |\n" for vrs in rules.values()]
    outcomes = [
        f"| `{outcome.name.lower()}` | {'null' if outcome in LOST else ''} | {text} |\n"
        for outcome, text in OUTCOME_TEXTS.items()
    ]
    columns = [
        f"| `{column.name}` | `{column.path.text}` | {column.type} | {column.level} | {', '.join(built.uses)} |\n"
        for column, built in zip(imaging_columns(), IMAGING, strict=True)
    ]
    return "".join([_HEAD, *types, _BINARY, _OUTCOMES, *outcomes, _SET, *columns])


def _types(rule: VrRule) -> str:
    return ", ".join(f"{TYPES[form]} (`:{name}`)" for name, form in rule.forms.items())
