"""Verify: equal lakes give equal digests, every kind of difference is found, and what is pending is none."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator

import pytest
from delta.tables import DeltaTable
from fsspec.implementations.local import LocalFileSystem
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from dicom_etl.commands.verify.verify import Verification, verify
from support.oracle import digest
from support.site import Site, at, ticks_at
from support.story import Story


def verified(site: Site) -> Verification:
    return verify(site.settings, spark=site.spark, clock=lambda: at(15))


@pytest.fixture
def six_partitions(spark: SparkSession) -> Iterator[None]:
    """What is sorted comes in six parts, as the lines of a large lake do."""
    before = spark.conf.get("spark.sql.shuffle.partitions")
    spark.conf.set("spark.sql.shuffle.partitions", "6")
    yield
    spark.conf.set("spark.sql.shuffle.partitions", before)


@pytest.mark.usefixtures("six_partitions")
def test_an_equal_lake_has_the_digest_of_the_service(story: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counts and digests of both sides are those computed here from the service's own store; nothing is written.

    The order of the lines holds across the files that they come in.
    """
    files: list[int] = []
    opened = LocalFileSystem.ls
    monkeypatch.setattr(
        LocalFileSystem, "ls", lambda *args, **how: files.append(len(names := opened(*args, **how))) or names
    )
    site = story.site
    instances = site.expected()["instance"]
    assert len(instances) == 26
    versions = {table: site.version(table) for table in ("instance", "series", "study", "change", "run", "rejected")}
    found = verified(site)
    assert found.equal
    assert (found.service_instances, found.lake_instances) == (26, 26)
    assert found.service_digest == found.lake_digest == digest(instances)
    assert (found.pending, found.pending_different, found.open_rejects) == (0, 0, 0)
    assert (found.as_of, found.covered_until) == (ticks_at(15), ticks_at(14))
    assert {table: site.version(table) for table in versions} == versions
    assert max(files) >= 6


def test_every_kind_of_difference_is_found(copy: Site, command: Callable[..., tuple[int, str, str]]) -> None:
    """Missing, extra, another sequence or path; values, ghosts and gaps in series and study: 65, keys on demand."""
    assert copy.spark is not None

    def table(name: str) -> DeltaTable:
        return DeltaTable.forPath(copy.spark, copy.place(name))

    instance = table("instance")
    rows = instance.toDF().where("sopInstanceUid = '1.3.1.2'")
    rows.withColumn("sopInstanceUid", F.lit("9.9")).write.format("delta").mode("append").save(copy.place("instance"))
    instance.delete("sopInstanceUid = '1.7.2.1'")
    instance.update("sopInstanceUid = '1.7.2.2'", {"sequence": F.col("sequence") + 1})
    instance.update("sopInstanceUid = '1.7.2.3'", {"filePath": F.lit("elsewhere")})
    series = table("series").toDF().where("seriesInstanceUid = '1.8.1'")
    series.withColumn("seriesInstanceUid", F.lit("9.1")).write.format("delta").mode("append").save(copy.place("series"))
    table("study").delete("studyInstanceUid = '1.2'")

    found = verified(copy)
    assert not found.equal
    keys = {(d.table, d.kind, d.key[-1]) for d in found.differences}
    assert keys == {
        ("instance", "missing", "1.7.2.1"),
        ("instance", "extra", "9.9"),
        ("instance", "sequence", "1.7.2.2"),
        ("instance", "filePath", "1.7.2.3"),
        # Compared with what the table instance gives, as it is.
        ("series", "values", "1.7.2"),
        ("series", "values", "1.3.1"),
        ("series", "extra", "9.1"),
        ("study", "values", "1.7"),
        ("study", "values", "1.3"),
        ("study", "missing", "1.2"),
    }
    assert found.counts == {"instance": 4, "series": 3, "study": 3}
    assert (found.service_instances, found.lake_instances) == (26, 26)
    assert found.service_digest == digest(copy.expected()["instance"])
    assert found.lake_digest == digest(copy.rows("instance"))

    code, out, err = command(copy, "verify", "--json", "--show")
    assert (code, err) == (65, "the lake and the service differ in 10 rows")
    printed = json.loads(out)
    assert (printed["equal"], printed["instanceDifferences"]) == (False, 4)
    assert Counter(d["difference"] for d in printed["differences"]) == Counter(d.kind for d in found.differences)
    code, out, err = command(copy, "verify")
    assert (code, err) == (
        65,
        "the lake and the service differ in 10 rows; --show prints at most 1000 keys of each table",
    )
    assert "1.7.2" not in out


@pytest.mark.soak
def test_what_no_run_covers_yet_is_pending(make_site: Callable[..., Site]) -> None:
    """Keys with a later entry are no differences, and left out of the digests of both sides."""
    site = make_site()
    for sop in ("1", "2", "3"):
        site.create("1.1", "1.1.1", sop, name=sop)
    site.clock(9.5)
    site.sync()
    site.service.delete("Microsoft.Default", "1.1", "1.1.1", "1")
    site.update("1.1", "1.1.1", "2", name="new")
    site.create("1.2", "1.2.1", "4", name="new")
    site.clock(10)
    found = verify(site.settings, spark=site.spark, clock=lambda: at(10))
    assert found.equal
    assert (found.pending, found.pending_different) == (3, 3)
    assert (found.service_instances, found.lake_instances) == (1, 1)
    third = [row for row in site.expected()["instance"] if row["sopInstanceUid"] == "3"]
    assert found.service_digest == found.lake_digest == digest(third)
    assert (found.as_of, found.covered_until) == (ticks_at(10), ticks_at(9))
