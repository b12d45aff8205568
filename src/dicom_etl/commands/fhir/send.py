"""Sends what differs to the FHIR server, takes back what is gone, and records each answer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime

from dicom_etl.commands.fhir.desired import Wanted
from dicom_etl.core.settings.model import Fhir
from dicom_etl.outputs.execution import Counts
from dicom_etl.outputs.fhir.bundle import Entry, Outcome
from dicom_etl.outputs.fhir.sending import sent
from dicom_etl.outputs.fhir.sent import Kind, Recorder, Sent, State
from dicom_etl.outputs.fhir.server import FhirServer


@dataclass
class Sender:
    """Puts and deletes resources of one execution; ``counts`` tells what became of each.

    ``server`` is None for a dry run: what would be sent is counted, and nothing is recorded. ``retry``: what was
    refused is sent again although it is the same. ``trusted_from``: of rows that an earlier execution recorded, a later
    one that died may have sent something else since, so they do not tell what stands.
    """

    fhir: Fhir
    server: FhirServer | None
    recorder: Recorder
    clock: Callable[[], datetime]
    retry: bool
    trusted_from: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)

    def totals(self) -> Counts:
        """What became of the resources that were looked at."""
        parts = {name: self.counts[name] for name in ("unchanged", "written", "withdrawn", "refused", "failed")}
        return Counts(touched=self.counts["touched"], **parts)

    def stands(self, one: Wanted) -> bool:
        """Whether the server has it as it is."""
        known = self._known(one)
        return known is not None and known.state == "sent"

    def lacks(self, kind: Kind, key: str) -> State | None:
        """``failed`` or ``refused`` where the server did not take a resource that others refer to; else None."""
        row = self.recorder.record.get((kind, key))
        return row.state if row is not None and row.state in ("failed", "refused") else None

    def _known(self, one: Wanted) -> Sent | None:
        """The row that tells of it as it is to stand; None where there is none, or it is not to be trusted."""
        known = self.recorder.record.get((one.kind, one.key))
        if known is None or known.execution_id < self.trusted_from:
            return None
        return known if (known.digest, known.parent) == (one.digest, one.parent) else None

    def put(self, wanted: Iterable[Wanted]) -> None:
        """Send those that differ from the record."""
        for _ in self.answers(wanted):
            pass

    def answers(self, wanted: Iterable[Wanted]) -> Iterator[tuple[Wanted, bool]]:
        """Each resource that was sent, as its answer comes, and whether it stands now."""
        pending: dict[tuple[str, str], Wanted] = {}

        def entries() -> Iterator[Entry]:
            for one in wanted:
                if self._differs(one):
                    pending[one.kind, one.id] = one
                    yield Entry("PUT", one.kind, one.id, one.body)

        for entry, outcome in self._sent(entries()):
            one = pending.pop((entry.kind, entry.id))
            state = _state(outcome)
            self._note(one, state, outcome)
            yield one, state == "sent"

    def hold_back(self, wanted: Iterable[Wanted], state: State) -> None:
        """Count as refused, or failed, what cannot be sent, since the resource that it refers to was not taken."""
        rows = [self._row(one, state, None, None) for one in wanted]
        self.counts.update({"touched": len(rows), state: len(rows)})
        self._record(rows)

    def delete(self, rows: Iterable[Sent]) -> None:
        """Take these back; one that another of them refers to, and the server keeps for it, after the others."""
        rows = list(rows)
        self.counts["touched"] += len(rows)
        self.kinds.update(row.kind for row in rows)
        refused = self._deleted(rows)
        if len(refused) < len(rows):
            refused = self._deleted(refused)
        self.counts["refused"] += len(refused)

    def _deleted(self, rows: Iterable[Sent]) -> list[Sent]:
        """Those of these rows that the server refuses to delete."""
        refused: list[Sent] = []
        pending: dict[tuple[str, str], Sent] = {}

        def entries() -> Iterator[Entry]:
            for row in rows:
                pending[row.kind, str(row.resource_id)] = row
                yield Entry("DELETE", row.kind, str(row.resource_id), None)

        for entry, outcome in self._sent(entries()):
            row = pending.pop((entry.kind, entry.id))
            state: State = "deleted" if outcome.accepted(entry) else _state(outcome)
            if state == "refused":
                refused.append(row)
            else:
                self.counts["withdrawn" if state == "deleted" else state] += 1
            self._record(
                [Sent(row.kind, row.key, row.resource_id, state, self.clock(), row.parent, None, *_answer(outcome))]
            )
        return refused

    def _differs(self, one: Wanted) -> bool:
        self.counts["touched"] += 1
        if self.stands(one):
            self.counts["unchanged"] += 1
            return False
        known = self._known(one)
        if known is not None and known.state == "refused" and not self.retry:
            self.counts["refused"] += 1
            return False
        self.kinds[one.kind] += 1
        return True

    def _sent(self, entries: Iterator[Entry]) -> Iterator[tuple[Entry, Outcome]]:
        if self.server is None:
            for entry in entries:
                self.counts["withdrawn" if entry.method == "DELETE" else "written"] += 1
            return
        yield from sent(self.server, entries, self.fhir)

    def _note(self, one: Wanted, state: State, outcome: Outcome) -> None:
        self.counts["written" if state == "sent" else state] += 1
        status, issue = _answer(outcome)
        self._record([self._row(one, state, status, issue, one.digest)])

    def _row(self, one: Wanted, state: State, status: int | None, issue: str | None, digest: str | None = None) -> Sent:
        return Sent(one.kind, one.key, one.id, state, self.clock(), one.parent, digest, status, issue)

    def _record(self, rows: list[Sent]) -> None:
        if self.server is not None:
            self.recorder.add(rows)


def _state(outcome: Outcome) -> State:
    if 200 <= outcome.status < 300:
        return "sent"
    return "failed" if outcome.may_pass else "refused"


def _answer(outcome: Outcome) -> tuple[int, str | None]:
    return outcome.status, outcome.issue
