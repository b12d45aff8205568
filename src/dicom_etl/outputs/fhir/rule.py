"""A row of the mapping: which element is written of which tags, how, why, and the function that does it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Literal

from dicom_etl.outputs.fhir.facts import Facts, Json, MappingOptions, SeriesFacts
from dicom_etl.outputs.fhir.reasons import LeftOut

Kind = Literal["ImagingStudy", "Patient", "Endpoint"]


@dataclass(frozen=True, slots=True)
class Context:
    """What a rule may read beside the facts, and where it counts what it leaves out."""

    options: MappingOptions
    left_out: LeftOut
    subject: Json = field(default_factory=dict)
    endpoints: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Example:
    """Values by tag of a study with one instance, and what a rule writes of them, with settings that are made up.

    The settings: service ``https://hospital.example.org/v2``, ``issuers`` ``{"HOSP": "urn:oid:1.2.3"}``, no zone.
    """

    given: Mapping[str, Any]
    value: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """``path`` is the element within the resource; ``series.instance.uid`` is read from an instance.

    ``cardinality`` is R4's: what lacks an element that R4 requires is not written. ``source`` is where the standards
    say so, ``r5`` what differs in R5. ``make`` takes the StudyFacts, SeriesFacts, values of an instance or name of a
    partition, and answers None for nothing, or the items of an element that repeats. A rule without ``make`` and
    ``example`` says why an element that has a DICOM attribute is left out.
    """

    resource: Kind
    path: str
    cardinality: Literal["0..1", "1..1", "0..*", "1..*"]
    tags: tuple[str, ...] = ()
    writes: str
    source: str
    r5: str = "same"
    example: Example | None = None
    make: Callable[[Any, Context], Any] | None = None

    @property
    def level(self) -> str:
        """``series.instance``, ``series`` or the empty text."""
        for level in (INSTANCE, SERIES):
            if self.path.startswith(f"{level}."):
                return level
        return ""

    @property
    def name(self) -> str:
        """The element within its level."""
        return self.path.removeprefix(f"{self.level}.")


SERIES: Final = "series"
INSTANCE: Final = "series.instance"
Filler = tuple[str, bool, bool, Callable[[Any, Context], Any]]


def fillers(rules: Iterable[Rule], level: str = "") -> tuple[Filler, ...]:
    """Of the rules of a level that write something: name, whether it repeats, whether it is required, the function."""
    return tuple(
        (rule.name, rule.cardinality.endswith("*"), rule.cardinality.startswith("1"), rule.make)
        for rule in rules
        if rule.level == level and rule.make is not None
    )


def filled(made_by: Sequence[Filler], facts: Any, context: Context) -> Json | None:
    """The elements that the rules make of the facts; None when one is missing that R4 requires."""
    body: Json = {}
    for name, repeats, required, make in made_by:
        value = make(facts, context)
        if value is None:
            if required:
                return None
        elif repeats and name in body:
            body[name].extend(value)
        else:
            body[name] = value
    return body


def latest(series: Iterable[SeriesFacts], tag: str) -> Any:
    """The latest value that is not null of an instance's tag, in the order of the tables' roll-ups; None without any.

    Time of the last change, sequence, SeriesInstanceUID, SOPInstanceUID; what is null comes first.
    """
    found = [
        (*_moment(instance), one.uid, instance["SOPInstanceUID"], value)
        for one in series
        for instance in one.instances
        if (value := instance.get(tag)) is not None
    ]
    return max(found, key=lambda row: row[:-1])[-1] if found else None


def _moment(instance: Facts) -> tuple[bool, datetime | None, bool, int | None]:
    """Nulls first: where both are null the values behind are equal, and never ordered."""
    moment, sequence = instance.get("lastModifiedTimestamp"), instance.get("sequence")
    return moment is not None, moment, sequence is not None, sequence
