"""What a search looks at: studies, series and instances with their attributes, newest first.

Attributes of a study or series are those of its instances, the latest that is not null
(design/service-protocol.md: DICOM JSON).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from dicom_emulator.dicom.indexing import Attribute
from dicom_emulator.http.jsontext import loads
from dicom_emulator.state.instances import Instance, Series, Study
from dicom_emulator.state.querytags import QueryTag
from dicom_emulator.state.service import DicomService

STUDY, SERIES, INSTANCE = "study", "series", "instance"

LEVELS_OF_ROUTE: dict[str, tuple[str, ...]] = {
    "studies": (STUDY,),
    "series": (STUDY, SERIES),
    "instances": (STUDY, SERIES, INSTANCE),
    "studies/series": (SERIES,),
    "studies/instances": (SERIES, INSTANCE),
    "studies/series/instances": (INSTANCE,),
}
"""Of which levels a route searches and returns attributes (QueryLimit.cs)."""

MODALITIES_IN_STUDY = 0x00080061
STUDY_INSTANCES = 0x00201208
SERIES_INSTANCES = 0x00201209
_MODALITY = 0x00080060
_KEY_PLACES = {0x0020000D: 1, 0x0020000E: 2, 0x00080018: 3}

DEFAULT_TAGS: dict[str, tuple[int, ...]] = {
    STUDY: (
        0x00080020, 0x00080050, 0x00081030, 0x00080090, 0x00100010, 0x00100020, 0x00100030, 0x0020000D,
    ),
    SERIES: (_MODALITY, 0x00081090, 0x0020000E, 0x00400244),
    INSTANCE: (0x00080018,),
}  # fmt: skip
MORE_TAGS: dict[str, tuple[int, ...]] = {
    STUDY: (
        0x00080005, 0x00080030, 0x00080056, 0x00080201, 0x00080063, 0x00081032, 0x00081060, 0x00081080,
        0x00081110, 0x00101010, 0x00101020, 0x00101030, 0x00102180, 0x001021B0, 0x00100040, 0x00200010,
    ),
    SERIES: (
        0x00080005, 0x00080201, 0x00200011, 0x00200060, 0x00080021, 0x00080031, 0x0008103E, 0x00400245,
        0x00400275,
    ),
    INSTANCE: (
        0x00080005, 0x00080016, 0x00080056, 0x00080201, 0x00200013, 0x00280010, 0x00280011, 0x00280100,
        0x00280008,
    ),
}  # fmt: skip
"""What `includefield=all` adds, and all that includefield can name (conformance statement v2)."""

COMPUTED: dict[str, tuple[int, ...]] = {
    STUDY: (MODALITIES_IN_STUDY, STUDY_INSTANCES),
    SERIES: (SERIES_INSTANCES,),
    INSTANCE: (),
}
SEARCHABLE: dict[str, tuple[int, ...]] = {
    STUDY: (*DEFAULT_TAGS[STUDY], MODALITIES_IN_STUDY),
    SERIES: DEFAULT_TAGS[SERIES],
    INSTANCE: DEFAULT_TAGS[INSTANCE],
}


@dataclass(frozen=True)
class Found:
    """One study, series or instance: its instances, the newest last, and those of its series and study."""

    instances: Sequence[Instance]
    study: Study
    series: Series | None = None

    def values(self, tag: int) -> list[str]:
        """The attribute's values as texts to compare; empty when it has none. A name gives its groups too."""
        element = self.element(tag) or {}
        return [text for value in element.get("Value", ()) for text in _texts(value)]

    def dataset(self, fields: set[int]) -> dict[str, Any]:
        """DICOM JSON of those fields that the resource has."""
        elements = {tag: self.element(tag) for tag in sorted(fields)}
        return {f"{tag:08X}": element for tag, element in elements.items() if element is not None}

    def element(self, tag: int) -> dict[str, Any] | None:
        """The attribute as DICOM JSON, None when absent. The three UIDs come from the key."""
        if tag in _KEY_PLACES:
            return {"vr": "UI", "Value": [self.instances[-1].key[_KEY_PLACES[tag]]]}
        if tag == MODALITIES_IN_STUDY:
            values = sorted({text for one in _of_study(self.study) for text in _modalities(one)})
            return {"vr": "CS", "Value": values} if values else {"vr": "CS"}
        if tag == STUDY_INSTANCES:
            return {"vr": "IS", "Value": [sum(len(one.instances) for one in self.study.series.values())]}
        if tag == SERIES_INSTANCES:
            return {"vr": "IS", "Value": [len(self.series.instances if self.series else ())]}
        of_study = tag in DEFAULT_TAGS[STUDY]
        return _latest(_of_study(self.study) if of_study else self.instances, f"{tag:08X}")

    def indexed(self, tag: QueryTag) -> list[str]:
        """What an extended query tag finds it by: the latest value on the tag's level that the index has taken."""
        of_level: Sequence[Instance] = self.instances
        if tag.level == "Study":
            of_level = _of_study(self.study)
        elif tag.level == "Series" and self.series is not None:
            of_level = _by_watermark(self.series.instances.values())
        values = (tag.attribute.value(attributes(instance.current.metadata)) for instance in reversed(of_level))
        return _texts(next((value for value in values if value is not None), None))

    def named_element(self, attribute: Attribute) -> dict[str, Any]:
        """DICOM JSON of an attribute that an extended query tag names; empty when the newest instance has none."""
        dataset = attributes(self.instances[-1].current.metadata)
        name = attribute.place(dataset)
        return {name: dataset[name]} if name is not None and name in dataset else {}


def search_resources(service: DicomService, partition: str, route: str, uids: Mapping[str, str]) -> Iterator[Found]:
    """All resources of a route, newest first; `uids` of the path narrow it. Hold the service's lock."""
    studies = [study for uid, study in service.studies(partition) if uids.get("study", uid) == uid]
    level = LEVELS_OF_ROUTE[route][-1]
    if level == STUDY:
        return (Found(_of_study(study), study) for study in studies)
    series = [(one, study) for study in studies for uid, one in study.series.items() if uids.get("series", uid) == uid]
    if level == SERIES:
        series.sort(key=lambda pair: -pair[0].order)
        return (Found(_by_watermark(one.instances.values()), study, one) for one, study in series)
    instances = [(instance, study, one) for one, study in series for instance in one.instances.values()]
    instances.sort(key=lambda triple: -triple[0].current.watermark)
    return (Found([instance], study, one) for instance, study, one in instances)


def _of_study(study: Study) -> list[Instance]:
    return _by_watermark(one for series in study.series.values() for one in series.instances.values())


def _by_watermark(instances: Iterable[Instance]) -> list[Instance]:
    return sorted(instances, key=lambda instance: instance.current.watermark)


def _latest(instances: Sequence[Instance], name: str) -> dict[str, Any] | None:
    """The newest element with a value, else an empty one, else None."""
    empty = None
    for instance in reversed(instances):
        element: dict[str, Any] | None = attributes(instance.current.metadata).get(name)
        if element is not None and any(value is not None for value in element.get("Value", ())):
            return element
        empty = empty or element
    return empty


def _modalities(instance: Instance) -> list[str]:
    element = attributes(instance.current.metadata).get(f"{_MODALITY:08X}", {})
    return [str(value) for value in element.get("Value", ()) if value]


def _texts(value: Any) -> list[str]:
    if isinstance(value, dict):
        groups = [str(value[name]) for name in ("Alphabetic", "Ideographic", "Phonetic") if value.get(name)]
        return [*groups, "=".join(groups)]
    return [] if value is None else [str(value)]


@lru_cache(maxsize=20_000)
def attributes(metadata: bytes) -> dict[str, Any]:
    """The parsed metadata; not to be changed. Numbers keep their digits (Number)."""
    parsed = loads(metadata)
    return parsed if isinstance(parsed, dict) else {}
