"""A measured value of DICOM as a FHIR R4 Quantity, with a code only for a unit that UCUM has."""

from __future__ import annotations

from typing import Final

from dicom_etl.outputs.fhir.codes import SYSTEMS
from dicom_etl.outputs.fhir.content_tree import Code
from dicom_etl.outputs.fhir.facts import Json
from dicom_etl.outputs.fhir.reasons import LeftOut
from dicom_etl.outputs.fhir.values import text

UCUM: Final = SYSTEMS["UCUM"]
# What dose reports measure in, as UCUM spells it. A server that knows UCUM refuses a code that is none of it, such as
# the `mGycm` of some scanners.
_PREFIXED: Final = {
    "Gy": ("", "c", "d", "m", "u"),
    "Gy.m2": ("", "c", "d", "m", "u"),
    "Gy.cm2": ("", "c", "d", "m", "u"),
    "Gy.cm": ("", "c", "m", "u"),
    "Sv": ("", "m", "u"),
    "Bq": ("", "k", "M", "G"),
    "Ci": ("", "m", "u"),
    "s": ("", "m"),
    "m": ("", "c", "m"),
}
_UNITS: Final = frozenset(
    {prefix + unit for unit, prefixes in _PREFIXED.items() for prefix in prefixes}
    | {"1", "%", "min", "h", "cm3", "ml", "mL", "{events}"}
)


def quantity(value: float, unit: Code, expected: str | None, left_out: LeftOut) -> Json | None:
    """The value in the unit that it was measured in; None without any.

    A unit whose scheme the header does not tell is taken for UCUM's when it is the ``expected`` one.
    """
    name = text(unit.value or unit.meaning, left_out)
    if name is None:
        return None
    known = unit.scheme == "UCUM" or (unit.scheme is None and name == expected)
    if known and name in _UNITS:
        return {"value": value, "unit": name, "system": UCUM, "code": name}
    return {"value": value, "unit": text(unit.meaning, left_out) or name}
