"""Tells a refusal of one resource from a server that refuses, or fails with, all of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from dicom_etl.core.errors import AccessDenied, DicomEtlError, ServiceUnavailable
from dicom_etl.outputs.fhir.delivery import Result
from dicom_etl.outputs.fhir.responses import WRITER_ROLE

_DENIED = (401, 403)


class Verdicts:
    """Holds a bundle's outcomes back when all of them are 401, 403 or failures of the server.

    They are about their resources (a policy that denies one, a resource that the server stumbles over) once a bundle
    that was sent later is answered otherwise, or at the end when any was. They are about the identity's role (Azure
    answers each entry of a bundle 403 when the role does not cover writing), or about the server, when the next such
    bundle comes, or at the end when no bundle was answered otherwise: then ``failure`` says so, and nothing of it is a
    result.
    """

    def __init__(self, host: str) -> None:
        self.failure: DicomEtlError | None = None
        self._host = host
        self._ever_well = False
        self._held: list[Result] = []
        self._held_at = 0

    def judged(self, number: int, results: Sequence[Result], submitted: int) -> Iterator[Result]:
        """The outcomes of the bundle of that number, and those held before, as far as they are about their resources.

        ``submitted`` is how many bundles were sent so far: those after them are later ones.
        """
        if any(not _is_doubtful(outcome.status) for _, outcome in results):
            self._ever_well = True
            yield from results
            if number >= self._held_at:
                yield from self._released()
        elif results:
            if self._held:
                self.failure = self.failure or self._failure()
            else:
                self._held_at = submitted
            self._held += results

    @property
    def undecided(self) -> bool:
        """Whether all that was answered is held back."""
        return bool(self._held) and not self._ever_well

    def well(self) -> None:
        """The server has answered something else as it should."""
        self._ever_well = True

    def at_the_end(self) -> Iterator[Result]:
        """What was held back and is about its resources after all."""
        if self._held and not self._ever_well:
            self.failure = self.failure or self._failure()
        yield from self._released()

    def _released(self) -> Iterator[Result]:
        if self.failure is None:
            yield from self._held
        self._held = []

    def _failure(self) -> DicomEtlError:
        statuses = [outcome.status for _, outcome in self._held]
        denied = next((status for status in statuses if status in _DENIED), None)
        if denied is not None:
            return AccessDenied(
                f"{self._host} denies access to each resource ({denied}); assign the role {WRITER_ROLE} on the FHIR "
                "service to this identity"
            )
        return ServiceUnavailable(
            f"the FHIR server at {self._host} keeps failing: it answered each resource with an error of its own; "
            "run again later"
        )


def _is_doubtful(status: int) -> bool:
    return status in (0, 408, *_DENIED) or status >= 500
