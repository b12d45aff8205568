"""What may be believed: no verb removes what the service holds, and none calls equal what is not."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from delta.tables import DeltaTable
from pyspark.sql import functions as F

from dicom_emulator.options import EmulatorOptions
from dicom_emulator.serve import serve_in_thread
from dicom_emulator.state.history import FeedRow
from dicom_emulator.state.uids import instance_key
from dicom_emulator.testing.corruptions import altered
from dicom_emulator.testing.faults import Fault
from dicom_etl.commands import maintain
from dicom_etl.commands.repair import removals
from dicom_etl.commands.repair.repair import repair
from dicom_etl.commands.repair.reread import Repaired
from dicom_etl.commands.verify import verify
from dicom_etl.commands.verify.verify import Difference, Verification
from dicom_etl.core.errors import DataError, StorageError
from dicom_etl.lake.open import existing_lake
from dicom_etl.lake.rejected import Reject, append_rejects
from dicom_etl.lake.voids import new_voids, read_voids
from dicom_etl.run import roll_up
from support.site import Site, at, metadata, text_at

P = "Microsoft.Default"
TABLES = ("instance", "series", "study")


def verified(site: Site, hour: float) -> Verification:
    return verify.verify(site.settings, spark=site.spark, clock=lambda: at(hour))


def repaired(site: Site, hour: float, **how: Any) -> Repaired:
    return repair(site.settings, spark=site.spark, clock=lambda: at(hour), **how)


def kinds(found: Verification) -> dict[str, int]:
    """How many instances differ, by kind."""
    return {kind: count for (table, kind), count in found.kinds.items() if table == "instance"}


def versions(site: Site) -> dict[str, int]:
    return {name: site.version(name) for name in (*TABLES, "change", "rejected")}


def add_foreign_rows(site: Site, sop: str, *, times: int = 1) -> None:
    """Rows of another writer: a copy of each row of the lake with this SOP instance UID."""
    assert site.spark is not None
    rows = DeltaTable.forPath(site.spark, site.place("instance")).toDF().limit(1).withColumn(
        "sopInstanceUid", F.lit(sop)
    )  # fmt: skip
    for _ in range(times):
        rows.write.format("delta").mode("append").save(site.place("instance"))


def add_void(site: Site, entry: FeedRow) -> None:
    """A void of the entry's key, as of an instance that was proven gone."""
    snapshot = existing_lake(site.settings)
    lake, key = snapshot.lake, (P, *entry.key[1:])
    append_rejects(
        snapshot.table("rejected"),
        new_voids([(key, entry.sequence, entry.ticks)], run_id=2, recorded_at=at(10)),
        app_id=lake.app_id("rejected"), run_id=2, details={}, folder=lake.folder("rejected"),
    )  # fmt: skip


def voids(site: Site) -> list[Reject]:
    return read_voids(existing_lake(site.settings).table("rejected"))


def begun_later(site: Site) -> Site:
    """The site with a `feed.start` at 10, which has read on; one instance was created before it, one after it."""
    site.create("1.1", "1.1.1", "1.1.1.1", name="Before")
    site.clock(10.5)
    site.create("1.2", "1.2.1", "1.2.1.1", name="After")
    site.clock(12)
    later = site.having(f"feed.start={text_at(10)}")
    later.sync()
    return later


@pytest.mark.parametrize(
    ("start", "rebuild"), [(10, False), *(pytest.param(*c, marks=pytest.mark.soak) for c in [(10, True), (11, True)])]
)
def test_rows_before_feed_start_stay(make_site: Callable[..., Site], start: int, rebuild: bool) -> None:
    """Rows of a range that was asked for, and rows read before `feed.start` was moved, are compared like all others."""
    site = make_site()
    later = begun_later(site)
    later.sync(start=text_at(8), end=text_at(9))
    assert later.tables() == site.expected()
    assert len(later.rows("instance")) == 2

    moved = site.having(f"feed.start={text_at(start)}")
    assert verified(moved, 12).equal
    assert (repaired(moved, 12).equal, moved.tables() == site.expected()) == (True, True)
    if rebuild:
        assert (repaired(moved, 12, rebuild=True).equal, moved.tables() == site.expected()) == (True, True)


def test_what_lies_between_the_covered_ranges_is_named_and_pending(
    make_site: Callable[..., Site], command: Callable[..., tuple[int, str, str]]
) -> None:
    """Instances that no run has read or will read are pending, and verify and repair name the gap.

    An update there of a row that was read is a difference.
    """
    site = make_site(f"feed.start={text_at(10)}")
    site.create("1.1", "1.1.1", "1.1.1.1", name="Read")
    site.clock(9.2)
    site.create("1.2", "1.2.1", "1.2.1.1", name="Never^Read")
    site.clock(12)
    site.sync()
    site.sync(start=text_at(8), end=text_at(9))
    assert len(site.rows("instance")) == 1
    found = verified(site, 12)
    assert (found.equal, found.pending, found.pending_different) == (True, 1, 1)
    assert (found.service_instances, found.lake_instances) == (1, 1)
    gap = "2024-05-01T09:00:00Z to 2024-05-01T10:00:00Z"
    assert found.as_row()["notRead"] == gap
    line = f"not read: {gap}; 1 instances of there are not in the lake, and no sync reads them, as feed.start is later"
    for verb in ("verify", "repair"):
        code, out, err = command(site, verb)
        assert code == 0
        assert gap in out
        assert line in err
    site.service.clock.freeze(at(9.4))
    site.update("1.1", "1.1.1", "1.1.1.1", name="Changed")
    assert kinds(verified(site, 12)) == {"sequence": 1}
    assert repaired(site, 12).equal
    assert [row["patientName"] for row in site.rows("instance")] == ["Changed"]


def test_a_row_that_the_search_holds_is_never_removed(make_site: Callable[..., Site]) -> None:
    """The feed answers short: verify says so, repair and rebuild leave the row."""
    site = make_site()
    first = site.create("1.1", "1.1.1", "1.1.1.1", name="Hidden")
    site.create("1.2", "1.2.1", "1.2.1.1", name="Shown")
    site.clock(10)
    site.sync()
    expected = site.tables()
    assert len(expected["instance"]) == 2
    site.service.hold(first.sequence)

    found = verified(site, 10)
    assert kinds(found) == {"missingInFeed": 1}
    assert found.differences == (Difference("instance", "missingInFeed", (P, "1.1", "1.1.1", "1.1.1.1")),)
    done = repaired(site, 10)
    assert (done.equal, done.unlisted, done.run.deleted) == (False, 1, 0)
    done = repaired(site, 10, rebuild=True)
    assert (done.equal, done.unlisted) == (False, 1)
    assert site.tables() == expected


@pytest.mark.soak
def test_a_row_without_an_entry_is_unknown_where_the_beginning_was_not_read(make_site: Callable[..., Site]) -> None:
    """65: repair leaves it, and a rebuild writes nothing; where the whole feed was read, both remove it."""
    site = make_site()
    later = begun_later(site)
    add_foreign_rows(later, "9.9", times=2)
    assert kinds(verified(later, 12)) == {"unknown": 1}
    done = repaired(later, 12)
    assert (done.equal, done.run.deleted) == (False, 0)
    before = versions(later), later.listed("change")
    with pytest.raises(DataError, match="instance holds 1 rows of which the feed shows nothing"):
        repaired(later, 12, rebuild=True)
    assert len(later.rows("instance")) == 3
    assert (versions(later), later.listed("change")) == before

    # Read from the first entry: the key stands twice, and a repair is not stopped by that.
    done = repaired(site, 12)
    run = done.run
    assert (done.equal, run.deleted) == (True, 2)
    assert run.entries_read == run.inserted + run.updated + run.deleted + run.superseded + run.rejected
    site.sync()  # what lies before the coverage was pending
    assert site.tables() == site.expected()


@pytest.mark.parametrize(("answer", "gone"), [pytest.param(None, 0, marks=pytest.mark.soak), (404, 1)])
def test_gone_needs_the_proof_of_a_404(make_site: Callable[..., Site], answer: int | None, gone: int) -> None:
    """A search that answers short, also when it is asked for the study, makes nothing void while metadata is served."""
    site = make_site()
    site.create("1.1", "1.1.1", "1.1.1.1", name="Held")
    site.create("1.2", "1.2.1", "1.2.1.1", name="Other")
    site.clock(10)
    site.sync()
    short = site.service.faults.add(Fault(status=204, path=r".*/studies/1\.1/instances"))
    site.service.faults.add(Fault(rewrite=_without_study("1.1"), path=r".*/studies"))
    if answer is not None:
        site.service.faults.add(Fault(status=answer, path=r".*/metadata"))
    found = verified(site, 10)
    assert short.hits > 0
    assert (found.gone.count, found.equal) == (gone, not gone)
    done = repaired(site, 10)
    assert (done.voided, len(site.rows("instance"))) == (gone, 2 - gone)
    if gone:
        # The service was wrong, and is right again: the void is lifted, by a rebuild too.
        site.service.faults.clear()
        assert repaired(site, 10, rebuild=True).restored == 1
        assert site.tables() == site.expected()
        assert verified(site, 10).equal


@pytest.mark.soak
def test_a_row_without_a_whole_key_is_a_difference_and_goes_with_a_rebuild(
    make_site: Callable[..., Site], command: Callable[..., tuple[int, str, str]]
) -> None:
    """Rows of another writer with null UIDs, and a series that stands twice: 65 from verify and repair, in one line."""
    site = make_site()
    site.create("1.1", "1.1.1", "1.1.1.1", name="One")
    site.clock(10)
    site.sync()
    assert site.spark is not None
    rows = DeltaTable.forPath(site.spark, site.place("instance")).toDF()
    for name in ("studyInstanceUid", "sopInstanceUid"):
        odd = rows.limit(1).withColumn(name, F.lit(None).cast("string"))
        odd.write.format("delta").mode("append").save(site.place("instance"))
    series = DeltaTable.forPath(site.spark, site.place("series")).toDF()
    series.write.format("delta").mode("append").save(site.place("series"))
    code, out, _ = command(site, "verify", "--show", "--json")
    printed = json.loads(out)["differencesByKind"]
    assert (code, printed["instance.extra"], printed["series.duplicate"]) == (65, 2, 1)
    assert not repaired(site, 10).equal
    assert repaired(site, 10, rebuild=True).equal
    assert site.tables() == site.expected()
    assert verified(site, 10).equal


@pytest.mark.soak
def test_where_the_proof_is_refused_nothing_is_equal_and_nothing_goes(make_site: Callable[..., Site]) -> None:
    """The search does not hold a row, and its metadata cannot be asked for; nor does a 404 count without a search."""
    site = make_site()
    old, new = instance_key("1.1", "1.1.1", "1.1.1.1"), instance_key("1.9", "1.9.1", "1.9.1.1")
    site.create(*old[1:], name="Old")
    site.clock(9.5)
    site.sync()
    site.service.change_uids([(old, new, metadata(name="New"), None)])
    site.clock(11)
    site.sync()
    add_foreign_rows(site, "9.9")
    before = len(site.rows("instance"))
    assert before == 3
    refusals = [Fault(status=403, path=r".*/metadata"), Fault(status=404, path=r".*/(studies|metadata)(/.*)?")]
    for refusal in refusals:
        site.service.faults.clear()
        site.service.faults.add(refusal)
        found = verified(site, 11)
        assert (found.equal, found.gone.count, found.search_refused is None) == (False, 0, False)
        assert (repaired(site, 11).equal, len(site.rows("instance"))) == (False, before)
        assert (repaired(site, 11, rebuild=True).equal, len(site.rows("instance"))) == (False, before)
    site.service.faults.clear()
    assert repaired(site, 11).equal
    assert site.tables() == site.expected()


@pytest.mark.soak
def test_a_repair_that_dies_after_it_removed_rows_is_completed_by_the_next_run(
    make_site: Callable[..., Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rows have no entry, so that no landing names their series."""
    site = make_site()
    site.create("1.1", "1.1.1", "1.1.1.1", name="One")
    site.clock(10)
    site.sync()
    add_foreign_rows(site, "9.9")
    repaired_series = DeltaTable.forPath(site.spark, site.place("series"))
    repaired_series.update(set={"instanceCount": F.lit(2)})
    DeltaTable.forPath(site.spark, site.place("study")).update(set={"instanceCount": F.lit(2)})

    def broken(*_: Any, **__: Any) -> None:
        raise StorageError("series: it broke")

    with monkeypatch.context() as patched:
        patched.setattr(roll_up, "merge_rollup", broken)
        with pytest.raises(StorageError, match="it broke"):
            repaired(site, 10)
    assert len(site.rows("instance")) == 1
    assert site.tables() != site.expected()
    site.sync(start=text_at(1), end=text_at(2))
    assert site.tables() == site.expected()


def _without_study(uid: str) -> Callable[[bytes], bytes]:
    def rewrite(body: bytes) -> bytes:
        return json.dumps([one for one in json.loads(body or b"[]") if one["0020000D"]["Value"] != [uid]]).encode()

    return rewrite


@pytest.mark.soak
@pytest.mark.parametrize(
    "watermark", [pytest.param(None, id="Deleted", marks=pytest.mark.soak), pytest.param(4711, id="Replaced")]
)
def test_a_state_that_changes_without_an_event_ends_as_a_difference(
    make_site: Callable[..., Site], watermark: int | None
) -> None:
    """After a change of UIDs the old rows may be shown Deleted or Replaced: not pending without end, but repaired."""
    site = make_site()
    old, new = instance_key("1.1", "1.1.1", "1.1.1.1"), instance_key("1.9", "1.9.1", "1.9.1.1")
    site.create(*old[1:], name="Old")
    site.create("1.2", "1.2.1", "1.2.1.1", name="Stays")
    site.clock(9.5)
    site.sync()
    site.service.change_uids([(old, new, metadata(name="New"), None)])
    site.service.history._point_at(old, watermark)
    site.clock(11)
    site.sync()
    assert len(site.rows("instance")) == 3
    assert len(site.expected()["instance"]) == 2

    found = verified(site, 40)
    assert (found.equal, found.pending) == (False, 0)
    assert kinds(found) == {"extra": 1}
    assert repaired(site, 40).equal
    assert site.tables() == site.expected()
    assert verified(site, 40).equal


@pytest.mark.soak
def test_an_overtaken_entry_that_the_search_holds_is_a_difference(make_site: Callable[..., Site]) -> None:
    """The update that replaced it is not listed, however often one reads: 65, and the row stays."""
    site = make_site()
    key = ("1.1", "1.1.1", "1.1.1.1")
    site.create(*key, name="Old")
    site.clock(9.5)
    site.sync()
    late = site.update(*key, name="New")
    site.service.hold(late.sequence)
    site.clock(11)
    site.sync()
    assert kinds(verified(site, 40)) == {"overtaken": 1}
    assert not repaired(site, 40).equal
    assert not repaired(site, 40, rebuild=True).equal
    assert [row["patientName"] for row in site.rows("instance")] == ["Old"]
    site.service.release()
    assert repaired(site, 40).equal
    assert [row["patientName"] for row in site.rows("instance")] == ["New"]


@pytest.mark.soak
def test_an_open_reject_is_a_difference_and_a_refused_search_is_not_equal(
    make_site: Callable[..., Site], command: Callable[..., tuple[int, str, str]]
) -> None:
    """65 for both, although the row of the key is as the feed has it."""
    site = make_site()
    site.create("1.1", "1.1.1", "1.1.1.1", name="One")
    site.update("1.1", "1.1.1", "1.1.1.1", name="Two")
    odd = site.service.faults.add(Fault(rewrite=altered(1, state="Odd"), path=".*/changefeed"))
    site.clock(10)
    (run,) = site.sync()
    assert (run.inserted, run.rejected) == (1, 1)
    found = verified(site, 10)
    assert (kinds(found), found.open_rejects) == ({"rejected": 1}, 1)
    assert odd.hits > 0

    site.service.faults.clear()
    site.clock(12)
    site.sync()
    assert verified(site, 12).equal
    refusal = site.service.faults.add(Fault(status=403, path="/v2/studies"))
    code, out, err = command(site, "verify", "--json")
    assert refusal.hits > 0
    assert (code, json.loads(out)["equal"]) == (65, False)
    assert "search could not be asked" in err


@pytest.mark.soak
def test_many_removals_must_be_allowed(
    make_site: Callable[..., Site], command: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """65 and nothing written; the line names the number that lets them go; a rebuild asks for the same."""
    monkeypatch.setattr(removals, "MOST_ROWS", 1)
    site = make_site()
    for study in ("1.1", "1.2"):
        site.create(study, f"{study}.1", f"{study}.1.1", name=study)
    site.clock(12)
    site.sync()
    for sop in ("9.1", "9.2"):
        add_foreign_rows(site, sop)
    before = versions(site)
    for how in ([], ["--rebuild"], ["--allow-removals", "1"]):
        code, _, err = command(site, "repair", *how)
        assert (code, "repair would remove 2 of 4 rows of instance; nothing was written" in err) == (65, True)
        assert "--allow-removals 2" in err
    assert versions(site) == before
    code, out, _ = command(site, "repair", "--allow-removals", "2", "--json")
    assert (code, json.loads(out)["deleted"]) == (0, 2)
    assert site.tables() == site.expected()


@pytest.mark.soak
def test_a_rebuild_follows_a_service_that_was_restored(make_site: Callable[..., Site]) -> None:
    """A sync goes on refusing it; after the rebuild all verbs go on, and so do new entries with old sequences."""
    site = make_site()
    created = [site.create(f"1.{n}", f"1.{n}.1", f"1.{n}.1.1", name=f"N{n}") for n in (1, 2, 3)]
    site.clock(10)
    site.sync()
    assert len(site.rows("instance")) == 3
    with serve_in_thread(EmulatorOptions()) as created_again:
        another = replace(site, emulator=created_again)
        another.clock(11)
        with pytest.raises(DataError, match="would remove 3 of 3 rows of instance, 3 of 3 rows of series, 3 of 3 rows"):
            repaired(another, 11, rebuild=True)
    add_void(site, created[0])
    assert len(voids(site)) == 1
    with serve_in_thread(EmulatorOptions()) as earlier:
        restored = replace(site, emulator=earlier)
        for n in (1, 2):
            restored.create(
                f"1.{n}", f"1.{n}.1", f"1.{n}.1.1", name=f"N{n}", at_ticks=created[n - 1].ticks,
                sequence=created[n - 1].sequence,
            )  # fmt: skip
        restored.clock(11)
        for verb in (restored.sync, lambda: repaired(restored, 11)):
            with pytest.raises(DataError, match=r"the feed has gone back: .* run dicom-etl repair --rebuild"):
                verb()
        assert len(restored.rows("instance")) == 3
        done = repaired(restored, 11, rebuild=True)
        assert (done.equal, done.feed_went_back, done.run.deleted) == (True, True, 1)
        assert restored.tables() == restored.expected()
        # Sequences are given again, so that a void of before would hold back whatever gets its number.
        assert voids(restored) == []
        # What tells whether the service goes back once more is of the new history, and no purge drops it.
        lake = existing_lake(restored.settings)
        assert maintain._kept_entry(lake.table("change"), lake.runs()) == (created[1].sequence, created[1].ticks)

        restored.create("1.4", "1.4.1", "1.4.1.1", name="N4")  # sequence 3, which another instance had
        restored.clock(13)
        restored.sync()
        assert restored.tables() == restored.expected()
        assert len(restored.rows("instance")) == 3
        assert (verified(restored, 13).equal, repaired(restored, 13).equal) == (True, True)


@pytest.mark.soak
def test_a_rebuild_lifts_a_void_that_the_search_refutes(make_site: Callable[..., Site]) -> None:
    """A void of a key that the service holds is resolved, and its row is there."""
    site = make_site()
    entry = site.create("1.1", "1.1.1", "1.1.1.1", name="Void")
    site.clock(10)
    site.sync()
    add_void(site, entry)
    done = repaired(site, 10, rebuild=True)
    assert (done.restored, done.equal) == (1, True)
    assert site.tables() == site.expected()
    assert len(site.rows("instance")) == 1


@pytest.mark.soak
def test_the_search_is_asked_for_studies_and_for_the_instances_of_those_that_differ(
    make_site: Callable[..., Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An equal lake costs pages of studies alone; of many differences the first are shown and all are counted."""
    site = make_site()
    for study in range(1, 7):
        site.create(f"1.{study}", f"1.{study}.1", f"1.{study}.1.1", name="N")
    site.clock(10)
    site.sync()
    assert searches(site, lambda: verified(site, 10)) == [".../studies"]

    assert site.spark is not None
    DeltaTable.forPath(site.spark, site.place("instance")).delete("studyInstanceUid < '1.4'")
    add_foreign_rows(site, "9.9")
    monkeypatch.setattr(verify, "MOST_SHOWN", 2)
    found: list[Verification] = []
    # The study of the row that only the lake has; what the lake lacks needs no search.
    assert searches(site, lambda: found.append(verified(site, 10))) == [".../studies", ".../studies/{study}/instances"]
    assert kinds(found[0]) == {"missing": 3, "extra": 1}
    assert found[0].counts["instance"] == 4
    assert len([one for one in found[0].differences if one.table == "instance"]) == 2


def searches(site: Site, work: Callable[[], object]) -> list[str]:
    """The searches that the work asks the service for, without their parameters."""
    site.service.requests.clear()
    work()
    paths = [one.path for one in site.service.requests.all() if "/studies" in one.path and "/metadata" not in one.path]
    return [".../studies" if path.endswith("/studies") else ".../studies/{study}/instances" for path in paths]
