"""The resources as DICOMcast makes and changes them, of a header in DICOM JSON (bench.dicomcast)."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bench.dicomcast import FeedEntry

Json = dict[str, Any]
Header = Mapping[str, Any]
_GENDERS = {"M": "male", "F": "female", "O": "other"}
_TM_FORMATS = {2: "%H", 4: "%H%M", 6: "%H%M%S"}


def has_value(header: Header, tag: str) -> bool:
    return _first(header, tag) is not None


def _first(header: Header, tag: str) -> Any:
    """The first value of an attribute, or None."""
    values = header.get(tag, {}).get("Value") or [None]
    return None if values[0] == "" else values[0]


def _number(header: Header, tag: str) -> int | None:
    try:
        return int(_first(header, tag))
    except (TypeError, ValueError):
        return None


def study_identifier(uid: str) -> Json:
    return {"system": "urn:dicom:uid", "value": f"urn:oid:{uid}"}


def endpoint_of(dicom_url: str) -> Json:
    """One a service, whatever its partitions."""
    system = "http://terminology.hl7.org/CodeSystem/endpoint-connection-type"
    return {
        "resourceType": "Endpoint",
        "status": "active",
        "connectionType": {"system": system, "code": "dicom-wado-rs"},
        "name": "DICOM WADO-RS endpoint",
        "payloadType": [{"text": "DICOM WADO-RS"}],
        "payloadMimeType": ["application/dicom"],
        "address": dicom_url,
    }


def patient_of(header: Header, existing: Json | None, identifier: Json) -> Json:
    """A new Patient, or what is there with name and gender of this header; its birth date is set at creation only."""
    patient = deepcopy(existing) if existing else {"resourceType": "Patient", "identifier": [identifier]}
    name = _first(header, "00100010")
    text = name.get("Alphabetic") if isinstance(name, Mapping) else None
    if text:
        patient["name"] = [_human_name(text)]
    gender = _GENDERS.get(_first(header, "00100040"))
    if gender:
        patient["gender"] = gender
    birth = _date(_first(header, "00100030"))
    if existing is None and birth:
        patient["birthDate"] = birth
    return patient


def _human_name(text: str) -> Json:
    family, given, middle, prefix, suffix = (text.split("^") + [""] * 4)[:5]
    name = {
        "family": family,
        "given": [*given.split(), *middle.split()],
        "prefix": prefix.split(),
        "suffix": suffix.split(),
    }
    return {part: value for part, value in name.items() if value}


def _date(text: Any) -> str | None:
    try:
        return datetime.strptime(str(text), "%Y%m%d").date().isoformat()  # noqa: DTZ007
    except ValueError:
        return None


def new_study(uid: str, patient: str, source: str) -> Json:
    return {
        "resourceType": "ImagingStudy",
        "meta": {"source": source},
        "identifier": [study_identifier(uid)],
        "status": "available",
        "subject": {"reference": patient},
    }


def add_instance(existing: Json, entry: FeedEntry, endpoint: str) -> Json:
    """The study with what this entry's header says of it, of its series and of its instance."""
    study, header = deepcopy(existing), entry.header or {}
    _set(study, "started", _started(header, "00080020", "00080030"))
    _append(study, "endpoint", {"reference": endpoint})
    modality = _first(header, "00080060")
    if modality and has_value(header, "00080061"):
        _append(study, "modality", {"system": "DCM", "code": modality})
    if description := _first(header, "00081030"):
        _append(study, "note", {"text": description})
    if accession := _first(header, "00080050"):
        system = "http://terminology.hl7.org/CodeSystem/v2-0203"
        _append(study, "identifier", {"type": {"coding": [{"system": system, "code": "ACSN"}]}, "value": accession})
    series = _named(study.setdefault("series", []), entry.series)
    if (number := _number(header, "00200011")) is not None:
        series["number"] = number
    if description := _first(header, "0008103E"):
        series["description"] = description
    if modality:
        series["modality"] = {"system": "DCM", "code": modality}
    _set(series, "started", _started(header, "00080021", "00080031"))
    instance = _named(series.setdefault("instance", []), entry.sop)
    if sop_class := _first(header, "00080016"):
        instance["sopClass"] = {"code": sop_class}
    if (number := _number(header, "00200013")) is not None:
        instance["number"] = number
    return study


def remove_instance(existing: Json, series_uid: str, sop: str) -> Json | None:
    """The study without the instance, and without its series when that is empty; None when it is not there."""
    study = deepcopy(existing)
    for series in study.get("series", []):
        left = [one for one in series.get("instance", []) if one["uid"] != sop]
        if series["uid"] == series_uid and len(left) < len(series.get("instance", [])):
            series["instance"] = left
            study["series"] = [one for one in study["series"] if one.get("instance")]
            return study if study["series"] else {name: value for name, value in study.items() if name != "series"}
    return None


def _named(parts: list[Json], uid: str) -> Json:
    """The part with this UID, which is put at the end when it is new."""
    for part in parts:
        if part["uid"] == uid:
            return part
    parts.append({"uid": uid})
    return parts[-1]


def _append(resource: Json, name: str, value: Json) -> None:
    if value not in resource.setdefault(name, []):
        resource[name].append(value)


def _set(resource: Json, name: str, value: Any) -> None:
    if value is None:
        resource.pop(name, None)
    else:
        resource[name] = value


def _started(header: Header, date: str, moment: str) -> str | None:
    """Both or none; without (0008,0201) it is UTC."""
    day, clock, offset = (_first(header, tag) for tag in (date, moment, "00080201"))
    whole, _, fraction = str(clock).partition(".")
    try:
        found = datetime.strptime(f"{day} {whole}", f"%Y%m%d {_TM_FORMATS[len(whole)]}")  # noqa: DTZ007
        zone = datetime.strptime(str(offset), "%z").tzinfo if offset else UTC
    except (KeyError, ValueError):
        return None
    microseconds = timedelta(microseconds=int(fraction[:6].ljust(6, "0")) if fraction.isdecimal() else 0)
    return (found + microseconds).replace(tzinfo=zone).isoformat()
