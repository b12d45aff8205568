"""The ImagingStudy of pydicom's files, and of made-up ones, against an oracle that reads the datasets; broken twins."""

from __future__ import annotations

import ast
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from pydicom import Dataset

from dicom_etl.outputs.fhir.endpoint import endpoint
from dicom_etl.outputs.fhir.mapping import STUDY
from dicom_etl.outputs.fhir.patient import identifier, logical_subject, patient
from dicom_etl.outputs.fhir.rule import Rule
from dicom_etl.outputs.fhir.study import imaging_study
from support import fhir_oracle
from support.fhir_corpus import corpus
from support.fhir_facts import OPTIONS, study_of
from support.fhir_oracle import differences, expected_study
from support.fhir_types import problems

UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
NEW_YORK = ZoneInfo("America/New_York")


@pytest.mark.parametrize("zone", [None, NEW_YORK], ids=["no zone", "a zone"])
def test_pydicoms_files_are_as_the_oracle_says(zone: ZoneInfo | None) -> None:
    """Each study, and the Patients and Endpoint beside it, are valid."""
    options = replace(OPTIONS, zone=zone)
    seen: Counter[str] = Counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for datasets in corpus():
            facts, at = study_of(datasets), endpoint("Microsoft.Default", options)
            found = imaging_study(facts, logical_subject(facts, options), [at.id], options)
            expected = expected_study(datasets, zone=zone, systems=options.issuers)
            assert differences(expected, found.body) == []
            resources = [found.body, at.body]
            if identifier(facts, options) is not None:
                resources.append(patient(facts, options).body)
            assert [problems(body) for body in resources] == [[]] * len(resources)
            seen.update(studies=1, instances=len(datasets), patients=len(resources) - 2)
            seen.update(name for one in expected["series"] for name in one)
            seen["timed"] += "T" in expected.get("started", "")
    assert (seen["studies"], seen["instances"]) == (31, 118)
    assert seen["patients"] > 20
    assert seen["timed"] == (10 if zone is None else 22)
    assert min(seen[name] for name in ("number", "description", "started", "bodySite")) > 5


def dataset(uid: str, **values: Any) -> Dataset:
    made = Dataset()
    made.StudyInstanceUID, made.SeriesInstanceUID, made.SOPInstanceUID = "1.2", uid.rsplit(".", 1)[0], uid
    made.SOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
    for keyword, value in values.items():
        setattr(made, keyword, value)
    return made


def odd_study() -> list[Dataset]:
    """Three living instances of headers that say nine, with values that the twins get wrong."""
    common = {
        "NumberOfStudyRelatedInstances": "9", "NumberOfStudyRelatedSeries": "4", "NumberOfSeriesRelatedInstances": "8",
        "StudyDate": "20260329", "StudyTime": "101530", "PatientID": "P7", "AccessionNumber": "A17",
        "StudyDescription": "old",
    }  # fmt: skip
    return [
        dataset("1.2.1.1", **common, Modality="CT", SeriesNumber="-1", InstanceNumber="-5", BodyPartExamined="CHEST"),
        dataset("1.2.1.2", **common, Modality="CT", SeriesNumber="-1", InstanceNumber="10", Laterality="R"),
        dataset(
            "1.2.2.1", **{**common, "StudyDescription": "new"}, Modality="SR", SeriesNumber="2", SeriesDate="20260329",
            SeriesTime="1016", TimezoneOffsetFromUTC="+0530", ContentLabel="LABEL",
        ),
    ]  # fmt: skip


def check(rules: Sequence[Rule], zone: ZoneInfo | None = None) -> list[str]:
    """What oracle and R4 find wrong in the odd study, mapped by these rules."""
    facts = study_of(odd_study())
    options = replace(OPTIONS, zone=zone)
    found = imaging_study(facts, logical_subject(facts, options), [], options, rules)
    return sorted({*differences(expected_study(odd_study(), zone=zone), found.body), *problems(found.body)})


def test_the_odd_study_is_as_the_oracle_says() -> None:
    assert check(STUDY) == []
    assert check(STUDY, NEW_YORK) == []


@dataclass(frozen=True)
class Twin:
    """A row of the table made wrong, and the element that the check must name."""

    path: str
    make: Callable[[Any, Any], Any]
    caught: str


TWINS = {
    "modality system DCM": Twin(
        "modality", lambda *_: [{"system": "DCM", "code": "CT"}, {"system": "DCM", "code": "SR"}], "modality"
    ),
    "series modality system DCM": Twin(
        "series.modality", lambda series, _: {"system": "DCM", "code": series.values["Modality"]}, "series.modality"
    ),
    "system DCM is no URI": Twin(
        "series.modality", lambda *_: {"system": "DCM", "code": "CT"}, "ImagingStudy.series.modality.system"
    ),
    "time without zone": Twin("series.started", lambda *_: "2026-03-29T10:16:00", "ImagingStudy.series.started"),
    "zone taken for UTC": Twin("started", lambda *_: "2026-03-29T10:15:30+00:00", "started"),
    "instances counted by headers": Twin(
        "numberOfInstances", lambda study, _: study.values["NumberOfStudyRelatedInstances"], "numberOfInstances"
    ),
    "series counted by headers": Twin("numberOfSeries", lambda *_: 4, "numberOfSeries"),
    "series' instances counted by headers": Twin("series.numberOfInstances", lambda *_: 8, "series.numberOfInstances"),
    "negative numbers": Twin(
        "series.number", lambda series, _: series.values["SeriesNumber"], "ImagingStudy.series.number"
    ),
    "number of an instance without a check": Twin(
        "series.instance.number", lambda instance, _: instance["InstanceNumber"], "series.instance"
    ),
    "UID of a series as URN": Twin("series.uid", lambda series, _: f"urn:oid:{series.uid}", "ImagingStudy.series.uid"),
    "SOP class bare": Twin(
        "series.instance.sopClass", lambda instance, _: {"code": instance["SOPClassUID"]}, "series.instance"
    ),
    "study's UID bare": Twin(
        "identifier", lambda study, _: [{"system": "urn:dicom:uid", "value": study.uid}], "identifier"
    ),
    "first description": Twin("description", lambda *_: "old", "description"),
    "body part without code": Twin("series.bodySite", lambda *_: {"display": "CHEST"}, "series.bodySite"),
    "no subject": Twin("subject", lambda *_: {}, "subject"),
    "no laterality": Twin("series.laterality", lambda *_: None, "series.laterality"),
    "no title": Twin("series.instance.title", lambda *_: None, "series.instance"),
}


@pytest.mark.parametrize("twin", TWINS.values(), ids=TWINS)
def test_a_broken_row_is_caught(twin: Twin) -> None:
    """The broken twins: each by the element that is wrong."""
    broken = [replace(rule, make=twin.make) if rule.path == twin.path and rule.make else rule for rule in STUDY]
    assert [rule.path for rule in broken if rule not in STUDY][:1] == [twin.path]
    assert twin.caught in check(broken)


def test_the_oracle_shares_no_code_with_the_mapping() -> None:
    tree = ast.parse(Path(fhir_oracle.__file__).read_text(encoding="utf-8"))
    imported = [name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names]
    imported += [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    assert "pydicom" in imported
    assert [name for name in imported if name.split(".")[0] in ("dicom_etl", "support", "tests")] == []
