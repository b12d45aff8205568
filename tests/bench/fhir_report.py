"""What `make compare-fhir` prints: what each phase took each side, and what is wrong in the end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.fhir_story import Phase

if TYPE_CHECKING:
    from tests.fhir.hapi import Counters

_WIDTH = 68


@dataclass(frozen=True, slots=True)
class Figures:
    """What one phase took a side; ``before``: seconds for what is written from, which are no part of ``seconds``."""

    traffic: Counters
    seconds: float
    before: float


def report(
    phases: Sequence[Phase],
    figures: Mapping[str, Sequence[Figures]],
    wrong: Mapping[str, Mapping[str, int]],
    ended_at: int | None,
) -> str:
    """Two tables and what must be said of them."""
    return "\n".join([
        "One history in phases, each followed by all; bytes are those of bodies, counted by the servers.",
        "",
        *_traffic(phases, figures),
        "",
        "What is wrong in the end, counted; 0 is right.",
        "",
        *_verdict(wrong),
        "",
        *_notes(figures, ended_at),
        "",
    ])  # fmt: skip


def _traffic(phases: Sequence[Phase], figures: Mapping[str, Sequence[Figures]]) -> list[str]:
    rows = []
    for place, phase in enumerate(phases):
        rows.append(phase.title)
        rows.append(f"  {'':<18}{'requests':>10}{'bytes sent':>14}{'bytes received':>16}{'seconds':>10}")
        for name, of_side in figures.items():
            one = of_side[place]
            amounts = f"{one.traffic.requests:>10,}{one.traffic.received:>14,}{one.traffic.sent:>16,}"
            rows.append(f"  {_writer(name):<18}{amounts}{one.seconds:>10.1f}")
        if len(figures) == 2 and (times := _times(*(of_side[place] for of_side in figures.values()))).strip():
            rows.append(times)
    return rows


def _writer(name: str) -> str:
    return name if name == "ours" else "DICOMcast"


def _times(theirs: Figures, ours: Figures) -> str:
    """How many times as much theirs took; nothing where one of both did nothing."""

    def ratio(one: float, other: float) -> str:
        return f"{one / other:,.0f} x" if one and other else ""

    requests = ratio(theirs.traffic.requests, ours.traffic.requests)
    sent = ratio(theirs.traffic.received, ours.traffic.received)
    received = ratio(theirs.traffic.sent, ours.traffic.sent)
    seconds = ratio(theirs.seconds, ours.seconds) if theirs.traffic.requests else ""
    return f"  {'':<18}{requests:>10}{sent:>14}{received:>16}{seconds:>10}"


def _verdict(wrong: Mapping[str, Mapping[str, int]]) -> list[str]:
    columns = list(wrong)
    head = f"{'':<{_WIDTH}}" + "".join(f"{name:>17}" for name in columns)
    lines = next(iter(wrong.values()))
    return [head, *(f"{what:<{_WIDTH}}" + "".join(f"{wrong[name][what]:>17,}" for name in columns) for what in lines)]


def _notes(figures: Mapping[str, Sequence[Figures]], ended_at: int | None) -> list[str]:
    notes = []
    if ended_at is not None:
        notes.append(
            f"DICOMcast ends at entry {ended_at}, an Update, and at each start again. `Updates skipped` is the same\n"
            "after somebody has moved it past every Update by hand, and so are its figures from there on."
        )
    notes.append("Answers to DICOMcast are not compressed, as its client does not ask for that.")
    if "ours" in figures:
        seconds = sum(one.before for one in figures["ours"])
        notes.append(
            "Ours: the seconds are those of `dicom-etl fhir`; "
            f"sync and columns, which make the tables, took {seconds:.0f} s before."
        )
    return notes
