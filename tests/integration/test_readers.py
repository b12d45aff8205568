"""The shared tables open alike in Spark, delta-rs and Polars."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import polars as pl
import pytest

from dicom_etl import deltalog
from support.frames import collected
from support.oracle import by_key
from support.site import Site
from support.story import Story


def _spark(site: Site, table: str) -> list[dict[str, Any]]:
    assert site.spark is not None
    return collected(site.spark.read.format("delta").load(str(site.root / table)))


def _deltalake(site: Site, table: str) -> list[dict[str, Any]]:
    return site.rows(table)


def _deltalog(site: Site, table: str) -> list[dict[str, Any]]:
    opened = deltalog.open_table(str(site.root / table))
    assert opened is not None
    return list(deltalog.read_rows(opened, [field.name for field in opened.schema().fields]).to_pylist())


def _polars(site: Site, table: str) -> list[dict[str, Any]]:
    return pl.scan_delta(str(site.root / table)).collect().to_dicts()


@pytest.mark.parametrize("table", ["instance", "series", "study"])
@pytest.mark.parametrize("read", [_spark, _deltalake, _deltalog, _polars], ids=lambda read: read.__name__[1:])
def test_readers_see_the_same_rows(story: Story, read: Callable[..., Any], table: str) -> None:
    """All columns, nulls, dates and microseconds."""
    expected = story.site.expected()[table]
    assert len(expected) == {"instance": 26, "series": 13, "study": 13}[table]
    assert by_key(table, read(story.site, table)) == expected


def test_polars_prunes_by_study(story: Story) -> None:
    """A filter on the study gives that study's rows."""
    scan = pl.scan_delta(str(story.site.root / "instance")).filter(pl.col("studyInstanceUid") == "1.3")
    assert scan.collect().height == 7
