"""`header_quality`: what headers gave each tag, counted as `instance_tags` has it.

The quick tests are tests/integration/tables/test_tag_quality.py; the property test compares it after many deaths.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from random import Random
from typing import Any

import pytest

from dicom_etl.commands.columns import quality
from dicom_etl.commands.columns.update import update
from support import following
from support.crashes import Crash, Crashes
from support.following import synced
from support.site import Site, metadata
from support.story import make_creates


def columns_updated(site: Site) -> None:
    update(site.settings, spark=site.spark)


@pytest.mark.soak
def test_header_quality_counts_the_headers_of_instance_tags_by_tag_day_and_device(
    make_site: Callable[..., Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where an execution died before it, it is counted again; and deltas follow updates and deletes."""
    site = make_site(*following.SETTINGS)
    make_creates(site)
    synced(site, 12)
    columns_updated(site)
    first = site.opened("header_quality").history()[0]["operation"]
    _assert_counted(site)

    site.clock(15)
    device = {"00080070": {"vr": "LO", "Value": ["ACME"]}, "00180050": {"vr": "DS", "Value": ["thick"]}}
    site.create("9.1", "9.2", "9.3", document=metadata(modality="CT") | device)
    live = next(one for one in site.service.live_instances() if one.key[1] != "9.1")
    site.service.delete(*live.key)
    synced(site, 17)
    crashes = Crashes({"before": (quality, "merge_quality", "before")})
    with suppress(Crash), crashes.at("before", Random(1), monkeypatch):
        columns_updated(site)
    assert crashes.met == {"before": 1}
    assert following.stored_quality(site) != _expected(site)
    columns_updated(site)
    _assert_counted(site)
    assert "ACME" in {row["manufacturer"] for row in site.rows("header_quality")}
    thickness = [row for row in site.rows("header_quality") if row["tag"] == "sliceThickness"]
    assert sum(row["unparsable"] for row in thickness) == 1

    site.service.delete("Microsoft.Default", "9.1", "9.2", "9.3")
    synced(site, 19)
    columns_updated(site)
    _assert_counted(site)
    assert "ACME" not in {row["manufacturer"] for row in site.rows("header_quality")}, "nothing is left of the device"
    assert [first, site.opened("header_quality").history()[0]["operation"]] == [
        "CREATE OR REPLACE TABLE AS SELECT",
        "MERGE",
    ]


def _expected(site: Site) -> list[Any]:
    return following.quality_of(site.rows("instance_tags"), following.tag_columns(site))


def _assert_counted(site: Site) -> None:
    expected = _expected(site)
    assert len(expected) > 40
    assert following.stored_quality(site) == expected
