"""The mapping from DICOM to FHIR R4: one table of rules, which drives the code, docs/fhir-mapping.md and the tests."""

from __future__ import annotations

from typing import Final

from dicom_etl.outputs.fhir import (
    endpoint_rules,
    identity_rules,
    instance_rules,
    patient_rules,
    series_rules,
    study_rules,
)
from dicom_etl.outputs.fhir.rule import Rule

MAPPING_VERSION: Final = 1
"""Goes into every digest: to be raised with each change of what is written, so that everything is sent again."""

STUDY: Final[tuple[Rule, ...]] = (
    *identity_rules.RULES,
    *study_rules.RULES,
    *series_rules.RULES,
    *instance_rules.RULES,
)
PATIENT: Final[tuple[Rule, ...]] = patient_rules.RULES
ENDPOINT: Final[tuple[Rule, ...]] = endpoint_rules.RULES
RULES: Final[tuple[Rule, ...]] = (*STUDY, *PATIENT, *ENDPOINT)
