"""Sends entries to a FHIR server, several bundles at a time, and tells what became of each entry."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from threading import Event

from dicom_etl.core.errors import DicomEtlError
from dicom_etl.core.settings.model import Fhir
from dicom_etl.outputs.fhir.bundle import Entry, bundles
from dicom_etl.outputs.fhir.delivery import Result, deliver
from dicom_etl.outputs.fhir.server import FhirServer
from dicom_etl.outputs.fhir.verdicts import Verdicts
from dicom_etl.remote.http.client import Cancelled

# Nobody's id.
PROBE = "dicom-etl-probe"


@dataclass(frozen=True, slots=True)
class _Done:
    """What came of the bundle of that number: results, until the error if any."""

    number: int
    results: list[Result] = field(default_factory=list)
    errors: list[DicomEtlError] = field(default_factory=list)


def sent(server: FhirServer, entries: Iterable[Entry], fhir: Fhir) -> Iterator[Result]:
    """Each entry with its outcome, in any order; the results of a bundle come as soon as it is done.

    ``entries`` are taken as they are needed, in the caller's thread: no more than two bundles for each of
    ``fhir.connections`` are under way, and two with the same resource never at once. What the server refuses is an
    outcome and no error (``verdicts`` says which refusals are about the server). An error, such as ServiceUnavailable
    (``delivery``), is raised after all results that came before it or were under way with it; no further bundle is sent
    then, nor when the caller stops early or ``entries`` raise.
    """
    stop = Event()
    verdicts = Verdicts(server.client.host)
    ahead = _Ahead(bundles(entries, fhir.bundle_entries), most=2 * fhir.connections)
    pool = ThreadPoolExecutor(fhir.connections, thread_name_prefix="fhir")
    failure: DicomEtlError | None = None
    try:
        while True:
            while failure is None and (bundle := ahead.take()) is not None:
                ahead.began(pool.submit(_done, server, ahead.submitted, bundle, stop), bundle)
            if not ahead.under_way:
                break
            for done in ahead.finished():
                failure = failure or next(iter(done.errors), None)
                yield from verdicts.judged(done.number, done.results, ahead.submitted)
                failure = failure or verdicts.failure
            if failure is not None:
                stop.set()
        if failure is None:
            if verdicts.undecided and _is_well(server):
                verdicts.well()
            yield from verdicts.at_the_end()
        if failure := failure or verdicts.failure:
            raise failure
    finally:
        stop.set()
        pool.shutdown(wait=False, cancel_futures=True)


def _is_well(server: FhirServer) -> bool:
    """Whether the server takes the deletion of a resource that nobody has: then what it does not take is to blame.

    Else one resource that it stumbles over, alone in its window, would be taken for a server that fails.
    """
    try:
        (outcome,) = server.batch([Entry("DELETE", "ImagingStudy", PROBE)])
    except DicomEtlError:
        return False
    return outcome.accepted(Entry("DELETE", "ImagingStudy", PROBE))


class _Ahead:
    """The bundles still to be sent, and those under way; ``submitted`` counts all that were sent."""

    def __init__(self, rest: Iterator[tuple[Entry, ...]], most: int) -> None:
        self.under_way: dict[Future[_Done], tuple[Entry, ...]] = {}
        self.submitted = 0
        self._rest = rest
        self._most = most
        self._next: tuple[Entry, ...] | None = None

    def take(self) -> tuple[Entry, ...] | None:
        """The next bundle; None when there is none, enough are under way, or one of them holds a resource of it.

        Two writes of one resource at once may end in either order, and servers answer one of them with a conflict.
        """
        if len(self.under_way) >= self._most:
            return None
        self._next = self._next or next(self._rest, None)
        if self._next is None or not {entry.url for entry in self._next}.isdisjoint(self._held()):
            return None
        bundle, self._next = self._next, None
        return bundle

    def _held(self) -> set[str]:
        return {entry.url for bundle in self.under_way.values() for entry in bundle}

    def began(self, future: Future[_Done], bundle: tuple[Entry, ...]) -> None:
        self.under_way[future] = bundle
        self.submitted += 1

    def finished(self) -> Iterator[_Done]:
        """What came of those that are done; waits for the first."""
        done, _ = wait(self.under_way, return_when=FIRST_COMPLETED)
        for future in done:
            del self.under_way[future]
            yield future.result()


def _done(server: FhirServer, number: int, bundle: tuple[Entry, ...], stop: Event) -> _Done:
    done = _Done(number)
    try:
        done.results.extend(deliver(server, bundle, stop.is_set))
    except Cancelled:
        pass
    except DicomEtlError as error:  # raised in the caller's thread, after the results
        done.errors.append(error)
    return done
