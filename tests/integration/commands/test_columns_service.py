"""The output `columns` and the service: headers that are asked for, and the tags that headers have."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from random import Random
from typing import Any

import pytest

from dicom_etl.commands.columns import write
from dicom_etl.commands.columns.choose import add, listed
from dicom_etl.commands.columns.choose_many import add_all
from dicom_etl.commands.columns.from_service import backfill_from_service
from dicom_etl.commands.columns.update import update
from dicom_etl.outputs.execution import Execution
from support import following
from support.crashes import Crash, Crashes
from support.following import synced
from support.site import Site, metadata

KEYS = [(f"1.{study}", f"1.{study}.1", f"1.{study}.1.{sop}") for study in (1, 2) for sop in (1, 2, 3)]


def filled(site: Site) -> list[Execution]:
    done = list(backfill_from_service(site.settings, spark=site.spark, batch=2))
    assert all(one.counts.whole for one in done)
    return done


def counts(done: Execution) -> tuple[int, int, int]:
    return done.counts.touched, done.counts.written, done.counts.failed


def states(site: Site) -> dict[str, str]:
    return {row["sopInstanceUid"]: row["headerState"] for row in site.rows("instance_tags")}


def test_headers_that_change_lacks_are_filled_from_the_service(make_site: Callable[..., Site]) -> None:
    """And rolled up, and counted; what the service has no longer is told. Longer: the soak test below."""
    site = make_site("lake.keep_metadata=false")
    for number, key in enumerate(KEYS[:3]):
        site.create(*key, document=metadata(name="Doe", modality="CT") | _number(number))
    synced(site, 10)
    site.service.delete("Microsoft.Default", *KEYS[2])
    first, *rest = backfill_from_service(site.settings, spark=site.spark)
    assert (first.mode, counts(first)) == ("full", (3, 3, 0))
    assert [(one.mode, counts(one)) for one in rest] == [("service", (3, 2, 1))]
    rows = {row["sopInstanceUid"]: row for row in site.rows("instance_tags")}
    assert states(site) == {KEYS[0][2]: "ok", KEYS[1][2]: "ok", KEYS[2][2]: "missing"}
    assert [(rows[key[2]]["instanceNumber"], rows[key[2]]["createdSequence"]) for key in KEYS[:3]] == [
        (0, 1), (1, 2), (None, 3),
    ]  # fmt: skip
    assert [row["manufacturer"] for row in site.rows("series_tags")] == ["ACME"]
    assert following.stored_quality(site) == following.quality_of(rows.values(), following.tag_columns(site))


@pytest.mark.soak
def test_a_filling_is_made_of_batches_and_goes_on_where_one_has_died(
    make_site: Callable[..., Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch an execution; what the service has no longer is counted; a death behind instance_tags leaves no trace."""
    site = make_site("lake.keep_metadata=false")
    for number, key in enumerate(KEYS):
        site.create(*key, document=metadata(name="Doe", modality="CT") | _number(number) | _kvp(number))
    synced(site, 10)
    site.service.delete("Microsoft.Default", *KEYS[5])

    crashes = Crashes({"a roll-up": (write, "_merge_rollups", "before")})
    with suppress(Crash), crashes.at("a roll-up", Random(1), monkeypatch):
        filled(site)
    assert crashes.met == {"a roll-up": 1}
    created = {row["sopInstanceUid"]: row["createdSequence"] for row in site.rows("instance_tags")}
    first = list(states(site).values()).count("ok")
    assert first in (1, 2), "the first batch was written"
    assert update(site.settings, spark=site.spark) is not None, "the roll-ups are still to be made"
    assert "ACME" in {row["manufacturer"] for row in site.rows("series_tags")}

    done = filled(site)
    assert {one.mode for one in done} == {"service"}
    assert [sum(column) for column in zip(*map(counts, done), strict=True)] == [6 - first, 5 - first, 1]
    assert [counts(one) for one in filled(site)] == [(1, 0, 1)], "what is gone is asked for again, and nothing else"
    rows = {row["sopInstanceUid"]: row for row in site.rows("instance_tags")}
    assert (len(rows), states(site)[KEYS[5][2]]) == (6, "missing")
    assert {uid: rows[uid]["createdSequence"] for uid in rows} == created
    assert [rows[key[2]]["instanceNumber"] for key in KEYS] == [0, 1, 2, 3, 4, None]
    assert [row["manufacturer"] for row in site.rows("series_tags")] == ["ACME", "ACME"]
    assert following.stored_quality(site) == following.quality_of(rows.values(), following.tag_columns(site))

    add(site.settings, ["KVP"])
    done = update(site.settings, extent="backfill", spark=site.spark)
    assert done is not None
    assert done.mode == "full"
    rows = {row["sopInstanceUid"]: row for row in site.rows("instance_tags")}
    assert [rows[key[2]]["instanceNumber"] for key in KEYS] == [0, 1, 2, 3, 4, None]
    assert {row["headerQuality"][-1] for row in rows.values() if row["headerQuality"]} == {"-"}, "nothing is known"
    quality = [row for row in site.rows("header_quality") if row["tag"] == "kvp"]
    assert sum(row["noHeader"] for row in quality) == 6
    assert update(site.settings, spark=site.spark) is None
    assert [counts(one) for one in filled(site)] == [(2, 2, 0), (2, 2, 0), (2, 1, 1)], "the new tag is asked for, too"
    assert [row["kvp"] is None for row in site.rows("instance_tags")].count(True) == 1


def test_the_set_all_is_what_living_headers_have(make_site: Callable[..., Site]) -> None:
    """Standard tags outside sequences; no private ones, and none that identify, unless asked for."""
    site = make_site()
    more = {
        "00104000": {"vr": "LT", "Value": ["a comment"]},
        "00191001": {"vr": "LO", "Value": ["private"]},
        "00400275": {"vr": "SQ", "Value": [{"00401001": {"vr": "SH", "Value": ["x"]}}]},
        "00180050": {"vr": "DS"},
    }
    site.create(*KEYS[0], document=metadata(modality="CT") | _kvp(1) | more)
    site.create(*KEYS[1], document=metadata(modality="CT") | {"00181152": {"vr": "IS", "Value": [3]}})
    site.service.delete("Microsoft.Default", *KEYS[1])
    synced(site, 10)
    assert [one.column.name for one in add_all(site.settings, spark=site.spark)] == ["kvp"]
    added = add_all(site.settings, spark=site.spark, identifying=True, level="study")
    assert [(one.column.name, one.column.level, one.state) for one in added] == [
        ("patientComments", "study", "pending")
    ]
    assert [one.column.name for one in listed(site.settings) if one.source == "added"] == ["kvp", "patientComments"]


def _number(number: int) -> dict[str, Any]:
    return {"00200013": {"vr": "IS", "Value": [number]}, "00080070": {"vr": "LO", "Value": ["ACME"]}}


def _kvp(number: int) -> dict[str, Any]:
    return {"00180060": {"vr": "DS", "Value": [100 + number]}}
