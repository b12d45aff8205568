"""What an ImagingStudy must say, from pydicom's datasets of one study: read from the standards, without our code.

Compare with ``differences(expected_study(datasets), body)``: it names elements, never values.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Mapping, Sequence
from datetime import date, datetime, time
from typing import Any
from zoneinfo import ZoneInfo

from pydicom import Dataset
from pydicom.multival import MultiValue

Json = dict[str, Any]
DCM = "http://dicom.nema.org/resources/ontology/DCM"
SCT = "http://snomed.info/sct"
V2_0203 = "http://terminology.hl7.org/CodeSystem/v2-0203"
STUDY = ("identifier", "status", "modality", "started", "numberOfSeries", "numberOfInstances", "description")
SERIES = (
    "uid", "number", "modality", "description", "numberOfInstances", "bodySite", "laterality", "started", "instance",
)  # fmt: skip
# PS3.16 CID 244.
SIDES = {
    "R": {"system": SCT, "code": "24028007", "display": "Right"},
    "L": {"system": SCT, "code": "7771000", "display": "Left"},
    "B": {"system": SCT, "code": "51440002", "display": "Bilateral"},
    "U": {"system": SCT, "code": "66459002", "display": "Unilateral"},
}
# PS3.16 Annex L by hand, the terms that files of tests have. One that is missing here must be added.
SITES = {
    "ABDOMEN": ("818981001", "Abdomen"), "BRAIN": ("12738006", "Brain"), "BREAST": ("76752008", "Breast"),
    "CHEST": ("43799004", "Chest cavity"), "CSPINE": ("122494005", "Cervical spine"), "HEAD": ("69536005", "Head"),
    "HEART": ("80891009", "Heart"), "KNEE": ("72696002", "Knee"), "LSPINE": ("122496007", "Lumbar spine"),
    "NECK": ("45048000", "Neck"), "PELVIS": ("816092008", "Pelvis"), "PROSTATE": ("41216001", "Prostate"),
    "SHOULDER": ("16982005", "Shoulder"), "SKULL": ("89546000", "Skull"), "SPINE": ("421060004", "Spine"),
    "PHANTOM": ("706342009", "Phantom"), "HAND": ("85562004", "Hand"), "FOOT": ("56459004", "Foot"),
    "EYE": ("81745001", "Eye"), "LUNG": ("39607008", "Lung"), "WHOLEBODY": ("38266002", "Entire body"),
}  # fmt: skip


def expected_study(
    datasets: Sequence[Dataset], *, zone: ZoneInfo | None = None, systems: Mapping[str, str] | None = None
) -> Json:
    """The elements that the oracle knows, of a study's living datasets in the order of their last change.

    ``zone`` is that of times without offset, ``systems`` the URI of each IssuerOfPatientID. ``subject`` is the logical
    one. ``series`` have ``instance``, however many they are.
    """
    by_series: dict[str, list[Dataset]] = {}
    for dataset in datasets:
        by_series.setdefault(_uid(dataset, "SeriesInstanceUID"), []).append(dataset)
    series = [_series(uid, of, zone) for uid, of in by_series.items()]
    codes = sorted({one["modality"]["code"] for one in series})
    identifiers = [{"system": "urn:dicom:uid", "value": "urn:oid:" + _uid(datasets[0], "StudyInstanceUID")}]
    if accession := _last_text(datasets, "AccessionNumber"):
        identifiers.append({"type": {"coding": [{"system": V2_0203, "code": "ACSN"}]}, "value": accession})
    return _present(
        identifier=identifiers,
        status="available",
        modality=[{"system": DCM, "code": code} for code in codes],
        subject=_subject(datasets, systems or {}),
        started=_moment(datasets, "Study", zone),
        numberOfSeries=len(by_series),
        numberOfInstances=len(datasets),
        description=_last_text(datasets, "StudyDescription"),
        series=sorted(series, key=lambda one: (_order(by_series[one["uid"]], "SeriesNumber"), one["uid"])),
    )


def differences(expected: Json, body: Json) -> list[str]:
    """The elements in which a resource is not as expected; those that the oracle does not know are not compared.

    A subject that is a literal reference is not compared either.
    """
    found = [name for name in STUDY if body.get(name) != expected.get(name)]
    if "reference" not in body["subject"] and body["subject"] != expected["subject"]:
        found.append("subject")
    theirs = body.get("series", [])
    if len(theirs) != len(expected["series"]):
        return [*found, "series"]
    pairs = zip(expected["series"], theirs, strict=True)
    return found + sorted({f"series.{name}" for e, b in pairs for name in SERIES if e.get(name) != b.get(name)})


def _series(uid: str, datasets: Sequence[Dataset], zone: ZoneInfo | None) -> Json:
    modality = _last_text(datasets, "Modality") or "OT"
    legal = re.fullmatch(r"[A-Z0-9_]+( [A-Z0-9_]+)*", modality) and len(modality) <= 16
    site = _last_text(datasets, "BodyPartExamined")
    instances = sorted(datasets, key=lambda one: (_order([one], "InstanceNumber"), _uid(one, "SOPInstanceUID")))
    return _present(
        uid=uid,
        number=_unsigned(datasets, "SeriesNumber"),
        modality={"system": DCM, "code": modality if legal else "OT"},
        description=_last_text(datasets, "SeriesDescription"),
        numberOfInstances=len(datasets),
        bodySite=_site(site) if site else None,
        laterality=_side(datasets),
        started=_moment(datasets, "Series", zone),
        instance=[_instance(one) for one in instances],
    )


def _instance(dataset: Dataset) -> Json:
    concept = dataset.get("ConceptNameCodeSequence") or [Dataset()]
    titles = (
        _text(dataset, "DocumentTitle"), _text(concept[0], "CodeMeaning"), _text(dataset, "ContentLabel"),
    )  # fmt: skip
    return _present(
        uid=_uid(dataset, "SOPInstanceUID"),
        sopClass={"system": "urn:ietf:rfc:3986", "code": "urn:oid:" + _uid(dataset, "SOPClassUID")},
        number=_unsigned([dataset], "InstanceNumber"),
        title=next((title for title in titles if title), None),
    )


def _subject(datasets: Sequence[Dataset], systems: Mapping[str, str]) -> Json:
    number = _last_text(datasets, "PatientID")
    if number is None:
        name = _last_text(datasets, "PatientName") or ""
        family, given, middle, prefix, suffix = ([part.strip() for part in name.split("^")] + [""] * 5)[:5]
        shown = " ".join(part for part in (prefix, given, middle, family, suffix) if part)
        return {"type": "Patient", "display": shown or "Unknown"}
    system = systems.get(_last_text(datasets, "IssuerOfPatientID") or "")
    kind = {"coding": [{"system": V2_0203, "code": "MR"}]}
    return {"type": "Patient", "identifier": _present(type=kind, system=system, value=number)}


def _site(term: str) -> Json:
    code = SITES.get(term.replace(" ", "").upper())
    return {"system": SCT, "code": code[0], "display": code[1]} if code else {"display": term}


def _side(datasets: Sequence[Dataset]) -> Json | None:
    series = _last_text(datasets, "Laterality")
    sides = {series} if series else {side for one in datasets if (side := _text(one, "ImageLaterality"))}
    return SIDES.get(sides.pop()) if len(sides) == 1 else None


def _moment(datasets: Sequence[Dataset], level: str, zone: ZoneInfo | None) -> str | None:
    """R4 dateTime: with a zone, or the date alone."""
    days = [day for one in datasets if (day := _day(_text(one, f"{level}Date")))]
    if not days:
        return None
    clocks = [clock for one in datasets if (clock := _clock(_text(one, f"{level}Time")))]
    offset = _last_text(datasets, "TimezoneOffsetFromUTC")
    if not clocks or not (offset or zone):
        return days[-1].isoformat()
    clock, fraction = clocks[-1]
    if offset:
        zoned = f"{offset[:3]}:{offset[3:]}"
    else:
        moment = datetime.combine(days[-1], clock, zone)
        zoned = moment.isoformat()[-6:]
    return f"{days[-1].isoformat()}T{clock.strftime('%H:%M:%S')}{fraction}{zoned}"


def _day(text: str | None) -> date | None:
    try:
        return datetime.strptime(text or "", "%Y%m%d").date()  # noqa: DTZ007
    except ValueError:
        return None


def _clock(text: str | None) -> tuple[time, str] | None:
    """A TM with its fraction as written; one without minutes is too coarse for FHIR. Second 60 is 59."""
    plain, point, fraction = (text or "").replace(":", "").partition(".")
    if not re.fullmatch(r"([01][0-9]|2[0-3])[0-5][0-9]([0-5][0-9]|60)?", plain):
        return None
    leap = plain[4:] == "60"
    clock = time(int(plain[:2]), int(plain[2:4]), 59 if leap else int(plain[4:] or 0))
    return clock, "" if leap else point + fraction


def _last_text(datasets: Sequence[Dataset], keyword: str) -> str | None:
    return next((text for one in reversed(datasets) if (text := _text(one, keyword))), None)


def _text(dataset: Dataset, keyword: str) -> str | None:
    """The first value without padding and control characters."""
    value = dataset.get(keyword)
    if isinstance(value, MultiValue | list):
        value = value[0] if len(value) else None
    if value is None:
        return None
    text = str(getattr(value, "alphabetic", value)).strip(" \0")
    return "".join(one for one in text if unicodedata.category(one) != "Cc" or one in "\t\r\n").strip() or None


def _uid(dataset: Dataset, keyword: str) -> str:
    return str(dataset[keyword].value).strip(" \0")


def _integer(datasets: Sequence[Dataset], keyword: str) -> int | None:
    text = _last_text(datasets, keyword)
    return int(text) if text else None


def _unsigned(datasets: Sequence[Dataset], keyword: str) -> int | None:
    number = _integer(datasets, keyword)
    return number if number is not None and 0 <= number < 2**31 else None


def _order(datasets: Sequence[Dataset], keyword: str) -> float:
    number = _integer(datasets, keyword)
    return math.inf if number is None else number


def _present(**elements: Any) -> Json:
    return {name: value for name, value in elements.items() if value is not None}
