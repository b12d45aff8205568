"""Divides a search for studies by the two dates that the service searches in ranges.

design/service-protocol.md: QIDO-RS.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import date
from itertools import pairwise

# Decades where studies and births lie; the two ends take all else that is a date.
_EDGES = (date.min, *(date(year, 1, 1) for year in range(1900, 2050, 10)), date.max)


@dataclass(frozen=True, slots=True)
class Days:
    """The days from ``first`` to ``last``, both included."""

    first: date
    last: date

    @property
    def single(self) -> bool:
        return self.first == self.last

    @property
    def value(self) -> str:
        """The range as a search takes it."""
        return f"{_text(self.first)}-{_text(self.last)}"

    def halves(self) -> tuple[Days, Days]:
        middle = (self.first.toordinal() + self.last.toordinal()) // 2
        return Days(self.first, date.fromordinal(middle)), Days(date.fromordinal(middle + 1), self.last)


@dataclass(frozen=True, slots=True)
class Part:
    """The studies of some days, and of patients born in some days; None: whatever the date is, also without one."""

    study: Days | None = None
    birth: Days | None = None

    @property
    def filters(self) -> dict[str, str]:
        days = {"StudyDate": self.study, "PatientBirthDate": self.birth}
        return {name: range_.value for name, range_ in days.items() if range_ is not None}

    def divided(self) -> tuple[Part, ...]:
        """Smaller parts: of its days or, for a single day, of its patients' days of birth; none when it has one each.

        They lack the studies without a date of study where this part is of any, and likewise those without a birth.
        """
        if self.study is None:
            return tuple(Part(days) for days in _decades())
        if not self.study.single:
            return tuple(Part(half) for half in self.study.halves())
        if self.birth is None:
            return tuple(replace(self, birth=days) for days in _decades())
        return () if self.birth.single else tuple(replace(self, birth=half) for half in self.birth.halves())

    @property
    def exceeds_its_parts(self) -> bool:
        """Whether it may hold studies that none of its parts holds."""
        return self.study is None or (self.study.single and (self.birth is None or self.birth.single))


def _decades() -> tuple[Days, ...]:
    return tuple(
        Days(first, end if end == date.max else date.fromordinal(end.toordinal() - 1))
        for first, end in pairwise(_EDGES)
    )


def _text(day: date) -> str:
    return day.isoformat().replace("-", "")  # strftime writes the year 1 as "1"
