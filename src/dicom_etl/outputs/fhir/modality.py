"""The modality of a series as a DICOM code (PS3.3 C.7.3.1.1.1), one that every validator of R4 knows if wanted."""

from __future__ import annotations

import re
from typing import Final

from dicom_etl.outputs.fhir.codes import DCM, coding
from dicom_etl.outputs.fhir.facts import Json
from dicom_etl.outputs.fhir.reasons import LeftOut, Reason

OTHER: Final = "OT"
# PS3.5 6.2, CS. A backslash stands between values, and R4 has one code a series.
_LEGAL: Final = re.compile(r"(?=.{1,16}$)[A-Z0-9_]+( [A-Z0-9_]+)*")
# PS3.16 CID 33 as far as R4's copy of the code system DCM, which is of 2019, has it.
IN_R4: Final = frozenset(
    """
    AR AU BDUS BI BMD CR CT DG DX ECG EPS ES GM HC HD IO IVOCT IVUS KER KO LEN LS MG MR NM OAM OCT OP OPM OPT OPV OSS OT
    PR PT PX REG RF RG RTDOSE RTIMAGE RTPLAN RTRECORD RTSTRUCT SEG SM SMR SR SRF TG US VA XA XC
    """.split()  # noqa: SIM905
)


def modality(value: str | None, left_out: LeftOut, *, strict: bool) -> Json:
    """A Coding; ``OT`` when there is no modality or no legal one, since a series must have one.

    ``strict``: a modality that R4's copy of the code system lacks is ``OT`` with the modality as display.
    """
    if value is None:
        return coding(DCM, OTHER)
    if not _LEGAL.fullmatch(value):
        left_out[Reason.MODALITY] += 1
        return coding(DCM, OTHER)
    if strict and value not in IN_R4:
        left_out[Reason.MODALITY_NOT_IN_R4] += 1
        return coding(DCM, OTHER, value)
    return coding(DCM, value)
