"""How long vacuum keeps what a slow reader needs (issue 6, §5; design/spark.md: Vacuum and retention)."""

from __future__ import annotations

import pytest
from pyarrow import ArrowException

from dicom_etl.commands.maintain import maintain
from support.accounted import dataset_of
from support.ages import let_pass
from support.site import Site, at


@pytest.mark.soak
@pytest.mark.parametrize(("hours", "readable"), [(700, True), pytest.param(740, False, marks=pytest.mark.soak)])
def test_a_reader_may_be_700_hours_behind(copy: Site, hours: float, readable: bool) -> None:
    """The files of the version before a compaction stay for 720 hours, and go after that: bytes are reported freed."""
    assert copy.spark is not None
    # Older engines wrote one file, which nobody would compact.
    rows_of_three_files = copy.spark.read.format("delta").load(copy.place("instance")).repartition(3)
    rows_of_three_files.write.format("delta").mode("overwrite").save(copy.place("instance"))
    behind = copy.opened("instance")
    rows = dataset_of(behind).count_rows()
    assert rows == 26
    assert behind.metadata().configuration["delta.deletedFileRetentionDuration"] == "interval 720 hours"
    done = {m.table: m for m in maintain(copy.settings, spark=copy.spark, clock=lambda: at(16))}
    assert done["instance"].files_compacted >= 2
    let_pass(copy.root, hours)
    done = {m.table: m for m in maintain(copy.settings, spark=copy.spark, clock=lambda: at(17))}
    if readable:
        assert (done["instance"].files_freed, done["instance"].bytes_freed) == (0, 0)
        assert dataset_of(behind).to_table().num_rows == rows
    else:
        assert done["instance"].files_freed >= 2
        assert done["instance"].bytes_freed > 0
        with pytest.raises((ArrowException, OSError)):
            dataset_of(behind).to_table()
    assert copy.tables() == copy.expected()
