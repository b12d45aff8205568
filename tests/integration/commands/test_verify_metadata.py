"""Verify in depth: every attribute, and the service's search beside its feed."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from delta.tables import DeltaTable
from pyspark.sql import functions as F

from dicom_emulator.state.uids import instance_key
from dicom_emulator.testing.faults import Fault
from dicom_etl.commands.repair.repair import repair
from dicom_etl.commands.verify.verify import Difference, verify
from support.site import Site, at, metadata, text_at

pytestmark = pytest.mark.soak  # each sync, repair and rebuild costs seconds of Spark

P = "Microsoft.Default"


def test_attributes_are_compared_and_counted_by_keyword(
    copy: Site, command: Callable[..., tuple[int, str, str]]
) -> None:
    """With --metadata each column of instance; without, keys and paths only; values are never printed."""
    assert copy.spark is not None
    instance = DeltaTable.forPath(copy.spark, copy.place("instance"))
    instance.update("sopInstanceUid = '1.3.1.2'", {"patientName": F.lit("Wrong^Name"), "modality": F.lit("XX")})
    instance.update("sopInstanceUid = '1.3.1.3'", {"patientName": F.lit(None).cast("string")})
    instance.update("sopInstanceUid = '1.7.2.1'", {"lastModifiedTimestamp": F.expr("timestamp'2001-01-01 00:00:00'")})
    versions = {table: copy.version(table) for table in ("instance", "series", "study", "change", "run", "rejected")}

    plain = verify(copy.settings, spark=copy.spark, clock=lambda: at(15))
    assert (plain.attributes, plain.counts["instance"]) == (None, 0)
    found = verify(copy.settings, metadata=True, spark=copy.spark, clock=lambda: at(15))
    assert found.attributes == {"Modality": 1, "PatientName": 2, "lastModifiedTimestamp": 1}
    assert {(d.kind, d.key[-1], d.keywords) for d in found.differences if d.table == "instance"} == {
        ("attributes", "1.3.1.2", ("PatientName", "Modality")),
        ("attributes", "1.3.1.3", ("PatientName",)),
        ("attributes", "1.7.2.1", ("lastModifiedTimestamp",)),
    }
    assert found.service_digest == found.lake_digest
    assert {table: copy.version(table) for table in versions} == versions

    code, out, _ = command(copy, "verify", "--metadata", "--json")
    printed = json.loads(out)
    assert code == 65
    assert printed["attributeDifferences"] == found.attributes
    assert not {"Wrong^Name", "1.3.1.2", "XX"} & set(out.replace('"', " ").split())

    # A repair that compares as much mends as much.
    done = repair(copy.settings, metadata=True, spark=copy.spark, clock=lambda: at(15))
    assert (done.equal, done.run.updated, done.run.entries_read) == (True, 3, 3)
    assert copy.tables() == copy.expected()


def test_the_search_tells_what_the_feed_does_not(make_site: Callable[..., Site]) -> None:
    """What has other UIDs by now is extra, what the feed holds back is unlisted; a refused search is said."""
    site = make_site()
    site.create("1.1", "1.1.1", "1.1.1.1", name="Old^Uid")
    site.create("1.2", "1.2.1", "1.2.1.1", name="Stays")
    site.create("1.3", "1.3.1", "1.3.1.1", name="Held^Back")  # sequence 3
    site.service.hold(3)
    old, new = instance_key("1.1", "1.1.1", "1.1.1.1"), instance_key("1.9", "1.9.1", "1.9.1.1")
    site.service.change_uids([(old, new, metadata(name="New"), None)])
    site.clock(10)
    (run,) = site.sync()
    assert run.inserted == 3

    found = verify(site.settings, spark=site.spark, clock=lambda: at(10))
    assert [d for d in found.differences if d.table == "instance"] == [
        Difference("instance", "extra", (P, "1.1", "1.1.1", "1.1.1.1")),
        Difference("instance", "missingInFeed", (P, "1.3", "1.3.1", "1.3.1.1")),
    ]
    assert found.gone.first == ((P, "1.1", "1.1.1", "1.1.1.1"),)
    assert found.suspects is not None
    assert found.suspects.first == ((P, "1.9", "1.9.1", "1.9.1.1"),)
    assert (found.search_refused, found.service_instances, found.lake_instances) == (None, 2, 3)

    refusal = site.service.faults.add(Fault(status=403, path="/v2/studies"))
    found = verify(site.settings, spark=site.spark, clock=lambda: at(10))
    assert not found.equal
    assert found.search_refused is not None
    assert "403" in found.search_refused
    assert found.suspects is not None
    assert (found.gone.count, found.suspects.count) == (0, 1)
    assert refusal.hits > 0


def test_an_unread_beginning_hides_no_difference_and_invents_none(make_site: Callable[..., Site]) -> None:
    """What was created before feed.start is in the search only: no difference, and nothing is suspected."""
    site = make_site(f"feed.start={text_at(9)}")
    site.create("1.1", "1.1.1", "1.1.1.1", name="Before")
    site.create("1.2", "1.2.1", "1.2.1.1", name="After", at_ticks=None)
    site.service.clock.freeze(at(9.5))
    site.update("1.2", "1.2.1", "1.2.1.1", name="After")
    site.clock(11)
    site.sync()
    found = verify(site.settings, spark=site.spark, clock=lambda: at(11))
    assert found.equal
    assert (found.lake_instances, found.suspects, found.search_refused) == (1, None, None)
