"""The shared tables open alike in Spark, delta-rs, Polars, DuckDB and pandas, fresh and after years of maintenance."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import duckdb_extension_delta
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from deltalake import DeltaTable

from dicom_etl.commands.maintain import maintain
from dicom_etl.lake.delta.table import open_table, read_rows
from support.ages import let_pass
from support.frames import collected
from support.oracle import by_key
from support.site import Site, at
from support.story import Story


def _spark(site: Site, table: str) -> list[dict[str, Any]]:
    assert site.spark is not None
    return collected(site.spark.read.format("delta").load(str(site.root / table)))


def _deltalake(site: Site, table: str) -> list[dict[str, Any]]:
    return site.rows(table)


def _deltalog(site: Site, table: str) -> list[dict[str, Any]]:
    opened = open_table(str(site.root / table))
    assert opened is not None
    return list(read_rows(opened, [field.name for field in opened.schema().fields]).to_pylist())


def _polars(site: Site, table: str) -> list[dict[str, Any]]:
    return pl.scan_delta(str(site.root / table)).collect().to_dicts()


def _duckdb(site: Site, table: str) -> list[dict[str, Any]]:
    """By its extension for Delta, which comes as a wheel: nothing is fetched."""
    (extension,) = Path(duckdb_extension_delta.__file__).parent.rglob("delta.duckdb_extension")
    with duckdb.connect() as connection:
        connection.execute(f"LOAD '{extension}'")
        scan = connection.execute("SELECT * FROM delta_scan(?)", [str(site.root / table)])
        return list(scan.to_arrow_table().to_pylist())


def _pandas(site: Site, table: str) -> list[dict[str, Any]]:
    """Through pandas and back: it has NaT and NaN where others have null."""
    frame = DeltaTable(site.root / table).to_pandas(types_mapper=pd.ArrowDtype)
    return list(pa.Table.from_pandas(frame, preserve_index=False).to_pylist())


READERS = [_spark, _deltalake, _deltalog, _polars, _duckdb, _pandas]


@pytest.fixture(scope="module")
def kept(story: Story, tmp_path_factory: pytest.TempPathFactory) -> Site:
    """The story's lake compacted, a month older, and vacuumed: no file is left that its last version does not name."""
    folder = tmp_path_factory.mktemp("kept")
    shutil.copytree(story.site.root, folder / "lake")
    site = replace(story.site, folder=folder)
    stored = set((site.root / "instance").rglob("*.parquet"))
    assert len(stored) > len(site.files("instance"))
    list(maintain(site.settings, spark=site.spark, clock=lambda: at(16)))
    let_pass(site.root, 740)
    freed = {m.table: m.files_freed for m in maintain(site.settings, spark=site.spark, clock=lambda: at(17))}
    assert freed["instance"] >= 1
    assert len(set((site.root / "instance").glob("*.parquet"))) == len(site.files("instance"))
    return site


@pytest.mark.parametrize("table", ["instance", "series", "study"])
@pytest.mark.parametrize("read", READERS, ids=lambda read: read.__name__[1:])
@pytest.mark.parametrize("aged", [False, True], ids=["fresh", "maintained"])
def test_readers_see_the_same_rows(story: Story, kept: Site, read: Callable[..., Any], table: str, aged: bool) -> None:
    """All columns, nulls, dates and microseconds, after many runs, deletions, compaction and vacuum."""
    expected = story.site.expected()[table]
    assert len(expected) == {"instance": 26, "series": 13, "study": 13}[table]
    assert by_key(table, read(kept if aged else story.site, table)) == expected


# What Fabric's SQL endpoint shows as a column (design/spark.md: Fabric), by Delta's names of types.
_FABRIC_TYPES = {"string", "long", "date", "timestamp", "double"}


@pytest.mark.parametrize("table", ["instance", "series", "study", "run"])
def test_tables_keep_to_what_every_reader_takes(kept: Site, table: str) -> None:
    """Reader version 1, no reader features, flat columns of Fabric's types, names of letters and digits."""
    opened = DeltaTable(kept.root / table)
    fields = opened.schema().fields
    assert len(fields) >= 11
    assert opened.protocol().min_reader_version == 1
    assert not opened.protocol().reader_features
    assert {field.type.type for field in fields} <= _FABRIC_TYPES
    assert all(field.name.isalnum() and field.name.isascii() for field in fields)


def test_polars_prunes_by_study(story: Story) -> None:
    """A filter on the study gives that study's rows."""
    scan = pl.scan_delta(str(story.site.root / "instance")).filter(pl.col("studyInstanceUid") == "1.3")
    assert scan.collect().height == 7
