"""The history that `make compare-fhir` plays: studies of a CT that come, grow, are corrected and go, in two partitions.

Headers are made by pydicom. Times in them have no offset, as in most files; no header has ModalitiesInStudy.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage, generate_uid

from dicom_emulator.state.service import DicomService
from dicom_emulator.state.uids import InstanceKey

Json = dict[str, Any]
PARTITION, OTHER = "Microsoft.Default", "research"
SYSTEM = "https://hospital.example/patients"
# What the hospital's own system has written before; no image may change it.
EHR_PATIENT: Json = {
    "resourceType": "Patient",
    "id": "ehr-1",
    "identifier": [{"system": SYSTEM, "value": "MRN-0"}],
    "name": [{"use": "official", "family": "Grønlund-Ek", "given": ["Maria", "Elisabet"]}],
    "gender": "female",
    "birthDate": "1961-02-03",
}
_SERIES = 4
_MORE = 60
_SHARED = 6


@dataclass(frozen=True, slots=True)
class Phase:
    """What happens between two times that the feed is read."""

    title: str
    happen: Callable[[DicomService], None]


@dataclass(frozen=True, slots=True)
class Study:
    """A study that the story makes: its UID and PatientID are made of its number."""

    number: int
    partition: str = PARTITION

    @property
    def uid(self) -> str:
        return _uid(self.number)

    @property
    def patient(self) -> str:
        return f"MRN-{self.number}" if self.partition == PARTITION else f"R-{self.number}"

    def key(self, series: int, image: int) -> InstanceKey:
        return InstanceKey(self.partition, self.uid, _uid(self.number, series), _uid(self.number, series, image))

    def header(self, series: int, image: int, **changed: Any) -> Json:
        """DICOM JSON of one image; ``changed``: attributes by keyword, instead of the usual."""
        _, study_uid, series_uid, sop_uid = self.key(series, image)
        dataset = Dataset()
        values = {
            "SOPClassUID": CTImageStorage, "SOPInstanceUID": sop_uid, "StudyInstanceUID": study_uid,
            "SeriesInstanceUID": series_uid, "StudyDate": "20240501", "StudyTime": "101500", "SeriesDate": "20240501",
            "SeriesTime": f"10{15 + series:02}00", "AccessionNumber": f"A{self.number}", "Modality": "CT",
            "StudyDescription": "CT thorax", "SeriesDescription": f"Series {series}", "PatientID": self.patient,
            "PatientName": f"Gronlund^{self.number}", "PatientBirthDate": "19610203", "PatientSex": "F",
            "SeriesNumber": series, "InstanceNumber": image,
        }  # fmt: skip
        for name, value in {**values, **changed}.items():
            setattr(dataset, name, value)
        return dict(dataset.to_json_dict())

    def create(self, service: DicomService, series: int, images: int) -> None:
        for image in range(1, images + 1):
            service.create(self.key(series, image), self.header(series, image))


def _uid(*numbers: int) -> str:
    return str(generate_uid(entropy_srcs=["compare-fhir", *map(str, numbers)]))


def story(studies: int, instances: int) -> list[Phase]:
    """Five phases with ``studies`` (at least 4) of ``instances`` images in four series."""
    if studies < 4 or instances < 2 * _SERIES:
        raise ValueError(f"the story needs 4 studies of {2 * _SERIES} images")
    each = instances // _SERIES
    grown, thinned, deleted, corrected = (Study(number) for number in range(4))
    shared = [Study(studies, partition) for partition in (PARTITION, OTHER)]
    kept = [Study(studies + 1, partition) for partition in (PARTITION, OTHER)]

    def first(service: DicomService) -> None:
        for number in range(studies):
            for series in range(1, _SERIES + 1):
                Study(number).create(service, series, each)
        for one in (*shared, *kept):
            one.create(service, 1, _SHARED)

    def deletions(service: DicomService) -> None:
        for image in range(1, each // 2 + 1):
            service.delete(*thinned.key(1, image))
        service.delete(*thinned.key(2, 1)[:3])
        service.delete(PARTITION, deleted.uid)
        service.delete(OTHER, shared[1].uid)

    def correction(service: DicomService) -> None:
        places = [(series, image) for series in range(1, _SERIES + 1) for image in range(1, each + 1)]
        service.update_together(
            [(corrected.key(*place), corrected.header(*place, PatientID="MRN-CORRECTED"), None) for place in places]
        )

    def afterwards(service: DicomService) -> None:
        service.delete(PARTITION, thinned.uid)
        Study(studies + 2).create(service, 1, _SHARED)

    return [
        Phase(f"{studies} studies of {each * _SERIES} images, and two of {_SHARED} in two partitions", first),
        Phase(f"{_MORE} more images of a study", lambda service: grown.create(service, _SERIES + 1, _MORE)),
        Phase("deletions: images, a series, a study, a study in one of two partitions", deletions),
        Phase(f"a bulk update: PatientID of {each * _SERIES} images corrected", correction),
        Phase("a study deleted, a new one stored", afterwards),
    ]
