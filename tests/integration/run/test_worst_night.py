"""One run meets, in turn, every fault of the service that must converge; the next ones heal what it set aside.

Each fault by itself is in test_misbehaving_service.py; here they come in one night, over a real socket, and the
tables are looked at.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from dicom_emulator.http.tokens import READER
from dicom_emulator.serve import Emulator
from dicom_emulator.testing import corruptions
from dicom_emulator.testing.faults import Fault, SwitchedOn
from dicom_etl.lake.status import status
from support.oracle import Tables, instance_row, tables_of
from support.site import SECOND, Site, metadata, ticks_at

P = "Microsoft.Default"
FEED = "/v2/changefeed"
BATCH = 10

# One answer each, three requests apart; what rewrites whole pages comes first, before the bad entries.
IN_TURN = {
    "Z instead of +00:00": Fault(rewrite=corruptions.zulu),
    "lower-case enums": Fault(rewrite=corruptions.lower_case),
    "padded UIDs": Fault(rewrite=corruptions.padded),
    "entries twice": Fault(rewrite=corruptions.twice(BATCH)),
    "401 once": Fault(status=401),
    "408": Fault(status=408),
    "429, seconds": Fault(status=429, retry_after=7),
    "429, a date": Fault(status=429, retry_after=7, retry_after_as_date=True),
    "503, seconds": Fault(status=503, retry_after=7),
    "503, a date": Fault(status=503, retry_after=7, retry_after_as_date=True),
    "500": Fault(status=500),
    "502": Fault(status=502),
    "504": Fault(status=504),
    "reset": Fault(reset=True),
    "reset in the body": Fault(reset=True, cut_body=50),
    "cut body": Fault(cut_body=50),
    "truncated gzip": Fault(truncate=60),
    "slower than the timeout": Fault(trickle_seconds=0.1),
    "HTML with status 200": Fault(status=200, body="<html></html>", content_type="text/html"),
    "HTML as JSON": Fault(rewrite=corruptions.html),
    "invalid JSON": Fault(rewrite=corruptions.not_json),
}
DEEP = b'{"00400555":{"vr":"SQ","Value":[' * 29 + b"{}" + b"]}}" * 29
LARGE = b'{"00080060":{"vr":"CS","Value":["CT"]},"00091001":{"vr":"UT","Value":["%b"]}}' % (b"x" * (4 << 20))


def absent(sequence: int) -> corruptions.Rewrite:
    """An entry without the member `metadata`; one of another kind has a null there."""
    return corruptions.altered(sequence, metadata=corruptions.LEFT_OUT)


# Entries that are bad as long as their fault is on: by number, what is done to them, and the code in `rejected`.
SPOILT: dict[int, tuple[Callable[[int], dict[str, Any]], str | None]] = {
    113: (lambda n: {"rewrite": corruptions.altered(n, studyInstanceUid=corruptions.LEFT_OUT)}, "uid-missing"),
    126: (lambda n: {"rewrite": corruptions.altered(n, action="Vanish")}, "action-unknown"),
    139: (lambda n: {"rewrite": corruptions.altered(n, state="Gone")}, "state-unknown"),
    152: (lambda _: {"rewrite": corruptions.swapped(b'"Marked^152"', b'"C\xff"')}, "metadata-not-utf8"),
    165: (lambda n: {"rewrite": absent(n)}, "metadata-missing"),
    178: (lambda n: {"rewrite": corruptions.altered(n, metadata=None)}, "metadata-missing"),
    191: (lambda _: {"status": 503}, "metadata-unavailable"),
    204: (lambda n: {"rewrite": corruptions.altered(n, partitionName=corruptions.LEFT_OUT)}, None),
    217: (lambda n: {"rewrite": corruptions.altered(n, partitionName=None)}, None),
}  # fmt: skip
# Entries that are bad in the service itself.
NAN, LIST = 230, 243
STORED = {
    NAN: b'{"00180050":{"vr":"DS","Value":[NaN]}}',
    LIST: b"[1]",
    256: LARGE,
    269: DEEP,
}
REJECTED = {number: reason for number, (_, reason) in SPOILT.items() if reason} | {
    NAN: "metadata-unavailable",
    LIST: "metadata-not-object",
}


@dataclass
class Renewing:
    """A source of tokens that last for so many requests each."""

    emulator: Emulator
    requests: int
    issued: list[str] = field(default_factory=list)

    def __call__(self, renew: bool) -> str:
        if renew or not self.issued:
            self.issued.append(self.emulator.service.tokens.issue(READER, requests=self.requests))
        return self.issued[-1]


def make_feed(site: Site) -> None:
    """300 entries between 9:00 and 9:10: creates, and among the last ones updates and deletions of the first."""
    service = site.service
    for number in range(1, 301):
        service.clock.freeze(ticks_at(9) + 2 * number * SECOND, step=0)
        study = f"1.{number % 7}"
        key = (study, f"{study}.1", f"{study}.1.{number}")
        if number > 280:
            old = number - 280
            key = (f"1.{old % 7}", f"1.{old % 7}.1", f"1.{old % 7}.1.{old}")
            if number % 2:
                service.delete(P, *key)
            else:
                site.update(*key, name=f"Updated^{old}", modality="MR")
        elif number in STORED:
            site.create(*key, document=STORED[number])
        else:
            padded = {"uids": tuple(f"{uid} " for uid in key)} if number % 50 == 0 else {}
            site.create(*key, document=metadata(name=f"Marked^{number}", modality="CT", date="20240131"), **padded)


def without(site: Site, sequences: set[int]) -> Tables:
    """What the tables must hold while these entries cannot be used."""
    return tables_of([instance_row(live) for live in site.service.live_instances() if live.sequence not in sequences])


@pytest.mark.soak
def test_a_night_in_which_everything_goes_wrong(
    make_site: Callable[..., Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tables equal the service but for the rejects, the ledger tells of each entry; then all of it heals."""
    site = make_site(
        f"feed.batch_size={BATCH}", "dicom.connections=1", "dicom.timeout_seconds=1.5", "dicom.auth=token", gzip=True
    )  # fmt: skip
    tokens = Renewing(site.emulator, requests=40)
    monkeypatch.setattr("dicom_etl.commands.sync.dicom_tokens", lambda _settings: tokens)
    make_feed(site)
    site.clock(10.5)
    faults = site.service.faults
    passing = {
        name: faults.add(Fault(**{**vars(fault), "path": FEED, "skip": 2 * place + 2, "times": 1}))
        for place, (name, fault) in enumerate(IN_TURN.items())
    }
    lasting = {number: faults.add(Fault(sequences=(number,), **spoil(number))) for number, (spoil, _) in SPOILT.items()}
    fates = site.fates(site.feed(9, 10), unusable=REJECTED)
    assert (fates.total(), fates["rejected"], fates["inserted"]) == (300, len(REJECTED), 300 - 40 - len(REJECTED) + 10)

    (run,) = site.sync()

    met(passing, exactly=1)
    met(lasting)
    assert len(tokens.issued) > 2
    assert site.tables() == without(site, set(REJECTED))
    assert {name: getattr(run, name) for name in ("inserted", "updated", "deleted", "superseded", "rejected")} == {
        name: fates[name] for name in ("inserted", "updated", "deleted", "superseded", "rejected")
    }
    assert (run.entries_read, run.status) == (300, "succeeded")
    assert {row["sequence"]: row["reason"] for row in site.rows("rejected")} == REJECTED
    # 30 pages; each fault of one request costs one more; a page that fails for good some fifteen (3 of them).
    assert 50 <= site.service.requests.count() <= 180
    assert 15 <= run.retries <= 60

    # The service is well again: what it holds whole is merged, though no window brings it.
    faults.clear()
    site.clock(11.5)
    (run,) = site.sync()
    assert (run.entries_read, run.inserted, run.rejected) == (7, 7, 0)
    assert site.tables() == without(site, {NAN, LIST})
    assert status(site.settings).open_rejects == 2

    # And what was bad in the service is replaced there.
    for number in (NAN, LIST):
        study = f"1.{number % 7}"
        site.update(study, f"{study}.1", f"{study}.1.{number}", name="Mended", modality="CT")
    site.clock(13)
    (run,) = site.sync()
    assert (run.inserted, run.rejected) == (2, 0)
    assert site.tables() == site.expected()
    assert len(site.rows("instance")) == 270
    assert status(site.settings).open_rejects == 0


def met(faults: dict[Any, SwitchedOn], exactly: int | None = None) -> None:
    """Each fault struck, and none was spared."""
    hits = {name: fault.hits for name, fault in faults.items()}
    assert {name for name, count in hits.items() if count == 0} == set(), hits
    if exactly is not None:
        assert set(hits.values()) == {exactly}, hits
