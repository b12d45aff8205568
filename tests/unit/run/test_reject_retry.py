"""Asking again for open rejects: what that may cost a run."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest

from dicom_etl.core.settings.load import load_settings
from dicom_etl.core.timerange import Window
from dicom_etl.dicomweb.connect import connect
from dicom_etl.lake.rejected import Reject
from dicom_etl.run.plan import RunPlan
from dicom_etl.run.rejects import RejectRetry

NOW = datetime(2026, 1, 2, tzinfo=UTC)
REJECTS = [
    Reject(1, 100 + n, datetime(2026, 1, 1, 0, 0, n, tzinfo=UTC), "p", "1", "2", str(n), "state-unknown", "open", NOW)
    for n in range(20)
]


class Service:
    """A feed that answers, and beside it partitions and metadata with one status each."""

    def __init__(self, partitions: int, metadata: int) -> None:
        self.statuses = {"/v2/partitions": partitions}
        self.metadata = metadata
        self.asked: Counter[str] = Counter()
        self.slept = 0.0

    def __call__(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path
        self.asked["metadata" if path.endswith("/metadata") else path] += 1
        if path != "/v2/changefeed":
            return httpx.Response(self.statuses.get(path, self.metadata))
        second = int(request.url.params["startTime"][17:19])
        entry = {
            "sequence": 100 + second, "timestamp": f"2026-01-01T00:00:{second:02d}.0000000+00:00",
            "partitionName": "p", "studyInstanceUid": "1", "seriesInstanceUid": "2",
            "sopInstanceUid": str(second), "action": "Update", "state": "Archived",
        }  # fmt: skip
        return httpx.Response(200, json=[] if int(request.url.params["offset"]) else [entry])

    def sleep(self, seconds: float) -> None:
        self.slept += seconds

    def gone(self) -> list[int]:
        """The sequences of the rejects that a run finds gone, having asked for all of them."""
        wanted = load_settings(None, ["dicom.base_url=http://127.0.0.1:9"], {}, Path()).dicom
        with connect(
            wanted, sleep=self.sleep, monotonic=lambda: self.slept, transport=httpx.MockTransport(self)
        ) as client:
            retry = RejectRetry(SimpleNamespace(client=client, run_id=5), RunPlan(Window(0, 1), False, 0, NOW))  # type: ignore[arg-type]
            assert [entries for entries in retry.usable(REJECTS) if entries] == []
            return sorted(reject.sequence for reject in retry.gone)


def test_what_the_service_does_not_have_is_gone() -> None:
    """Its state is not known, and its metadata answers 404."""
    service = Service(partitions=400, metadata=404)
    assert service.gone() == list(range(100, 120))
    assert (service.asked["/v2/partitions"], service.asked["metadata"]) == (1, 20)


@pytest.mark.parametrize(("partitions", "metadata"), [(500, 404), (503, 404), (403, 404), (400, 503)])
def test_a_service_that_fails_beside_its_feed_holds_no_run_up(partitions: int, metadata: int) -> None:
    """Nothing is proven gone; partitions are asked for once a run, and nothing is waited for."""
    service = Service(partitions, metadata)
    assert service.gone() == []
    assert service.asked["/v2/partitions"] == 1
    assert service.asked["/v2/changefeed"] >= 20
    assert service.slept == 0
