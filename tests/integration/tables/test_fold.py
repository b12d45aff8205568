"""What the entries of a run mean for each instance: row by row, with literal expectations.

design/architecture.md: Fold.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from pyspark.sql import DataFrame, SparkSession

from dicom_etl.tables import fold as changes
from support.frames import NOON, changes_frame, collected, entry

LATER = NOON + timedelta(hours=1)
EARLIER = NOON - timedelta(hours=1)


@dataclass(frozen=True)
class Case:
    """Entries of one key as (sequence, action, state), and what its last one does; None: no row at all."""

    name: str
    entries: list[tuple[Any, ...]]
    effect: str | None
    sequence: int | None = None


# Sequences are the cases' own, so that all of them fit into one frame.
UNUSABLE = {130, 140, 150, 160, 181, 190}
CASES = [
    # The rows of the table.
    Case("created", [(10, "Create", "Current")], "upsert", 10),
    Case("updated", [(20, "Update", "Current")], "upsert", 20),
    Case("created, deleted since", [(30, "Create", "Deleted")], "remove", 30),
    Case("updated, deleted since", [(40, "Update", "Deleted")], "remove", 40),
    Case("deleted", [(50, "Delete", "Deleted")], "remove", 50),
    Case("created, replaced since", [(60, "Create", "Replaced")], "leave", 60),
    Case("updated, replaced since", [(70, "Update", "Replaced")], "leave", 70),
    Case("deleted, created again since", [(80, "Delete", "Replaced")], "leave", 80),
    Case("created, metadata unusable", [(130, "Create", "Current")], "reject", 130),
    Case("updated, metadata unusable", [(140, "Update", "Current")], "reject", 140),
    # Deleted and Replaced entries need no metadata.
    Case("unusable and deleted", [(150, "Create", "Deleted")], "remove", 150),
    Case("unusable and replaced", [(160, "Create", "Replaced")], "leave", 160),
    # A contradiction is not guessed at.
    Case("deleted but current", [(170, "Delete", "Current")], "reject", 170),
    # Only the last entry of a key counts, whatever it is.
    Case("usable, then unusable", [(180, "Create", "Current"), (181, "Update", "Current")], "reject", 181),
    Case("unusable, then usable", [(190, "Create", "Current"), (191, "Update", "Current")], "upsert", 191),
    Case("created and deleted", [(200, "Create", "Deleted"), (201, "Delete", "Deleted")], "remove", 201),
    Case(
        "created, deleted, created",
        [(210, "Create", "Replaced"), (211, "Delete", "Replaced"), (212, "Create", "Current")],
        "upsert",
        212,
    ),
    # By sequence, not by time: the service's clock stepped back.
    Case("deleted earlier", [(220, "Create", "Deleted", LATER), (221, "Delete", "Deleted", EARLIER)], "remove", 221),
    Case("created earlier", [(230, "Delete", "Replaced", LATER), (231, "Create", "Current", EARLIER)], "upsert", 231),
    Case("listed out of order", [(243, "Create", "Current"), (241, "Create", "Replaced"), (242, "Delete", "Replaced")],
         "upsert", 243),
    # An unknown state takes no part.
    Case("unknown state", [(260, "Create", "Lost")], None),
    Case("no state", [(280, "Create", None)], None),
    # The state decides, whatever the action is called; only what is Current needs an action that is known.
    Case("unknown action", [(250, "Merge", "Current")], "reject", 250),
    Case("no action", [(270, None, "Current")], "reject", 270),
    Case("known, then unknown", [(290, "Create", "Replaced"), (291, "Merge", "Current")], "reject", 291),
    Case("unknown, then known", [(340, "Merge", "Replaced"), (341, "Update", "Current")], "upsert", 341),
    Case("expired", [(350, "Create", "Deleted"), (351, "Expire", "Deleted")], "remove", 351),
    Case("expired by no name", [(360, None, "Deleted")], "remove", 360),
    Case("expired, created again since", [(370, "Expire", "Replaced")], "leave", 370),
    Case("expired, created again", [(380, "Expire", "Replaced"), (381, "Create", "Current")], "upsert", 381),
]  # fmt: skip

_KEYS = ("partitionName", "studyInstanceUid", "seriesInstanceUid", "sopInstanceUid")


def _entries(case: Case) -> list[dict[str, Any]]:
    return [
        entry(case.name, sequence, action, state, timestamp=moment[0] if moment else NOON, filePath=f"path {sequence}",
              patientName=f"name {sequence}")
        for sequence, action, state, *moment in case.entries
    ]  # fmt: skip


@pytest.fixture(scope="module")
def folded(spark: SparkSession) -> DataFrame:
    """All cases, and some more keys, folded as one run."""
    rows = [row for case in CASES for row in _entries(case)]
    rows += [entry("of another run", 300, "Create", "Current", runId=2)]
    rows += [
        entry("same sop", 310, "Create", "Current"),
        entry("same sop", 311, "Delete", "Deleted", seriesInstanceUid="1.1.2"),
    ]
    rows += [
        entry("same uids", 320, "Create", "Current"),
        entry("same uids", 321, "Create", "Current", partitionName="q"),
    ]
    rows += [entry("null key", 330 + number, "Create", "Current", **{name: None}) for number, name in enumerate(_KEYS)]
    last = changes.last_of_each_key(changes.entries_of_run(changes_frame(spark, rows), 1))
    return changes.effects(last, UNUSABLE).cache()


@pytest.fixture(scope="module")
def rows(folded: DataFrame) -> dict[str | None, list[dict[str, Any]]]:
    by_sop: dict[str | None, list[dict[str, Any]]] = {}
    for row in collected(folded):
        by_sop.setdefault(row["sopInstanceUid"], []).append(row)
    assert sum(map(len, by_sop.values())) == len([c for c in CASES if c.effect]) + 4
    return by_sop


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_last_entry_of_a_key_decides(rows: dict[str, list[dict[str, Any]]], case: Case) -> None:
    """Each row of the table: the effect is that of the entry with the highest sequence, and its values go.

    design/architecture.md: Fold.
    """
    found = [(row["effect"], row["sequence"], row["filePath"], row["patientName"]) for row in rows.get(case.name, [])]
    wanted = [(case.effect, case.sequence, f"path {case.sequence}", f"name {case.sequence}")] if case.effect else []
    assert found == wanted


def test_the_columns_are_those_of_instance_and_the_effect(folded: DataFrame) -> None:
    """The fold gives the columns that the MERGE takes, lastModifiedTimestamp from the entry's time."""
    assert folded.columns == [
        "partitionName", "studyInstanceUid", "seriesInstanceUid", "sopInstanceUid", "lastModifiedTimestamp",
        "studyDate", "studyDescription", "issuerOfPatientId", "patientId", "patientName", "modality", "sopClassUid",
        "filePath", "sequence", "effect", "entries",
    ]  # fmt: skip
    moments = {row["sopInstanceUid"]: row["lastModifiedTimestamp"] for row in collected(folded)}
    assert (moments["created"], moments["created earlier"]) == (NOON, EARLIER)


def test_a_key_has_four_parts(rows: dict[str, list[dict[str, Any]]]) -> None:
    """The same SOP UID in two series, and the same UIDs in two partitions, are different instances."""
    assert sorted((r["seriesInstanceUid"], r["effect"]) for r in rows["same sop"]) == [
        ("1.1.1", "upsert"),
        ("1.1.2", "remove"),
    ]
    assert sorted((r["partitionName"], r["effect"]) for r in rows["same uids"]) == [("p", "upsert"), ("q", "upsert")]


def test_entries_without_a_whole_key_and_of_other_runs_take_no_part(rows: dict[str | None, Any]) -> None:
    """Nulls in a key would never match a row and be inserted again and again."""
    assert not {"null key", None, "of another run"} & set(rows)


def test_the_source_of_the_merge_holds_what_changes_rows(spark: SparkSession) -> None:
    """Upserts and removals, once a key; the rejects come apart, by sequence."""
    frame = changes_frame(spark, [row for case in CASES for row in _entries(case)])
    fold = changes.folded(frame, 1, UNUSABLE)
    source = collected(changes.changing(fold))
    assert sorted((row["sopInstanceUid"], row["effect"]) for row in source) == sorted(
        (case.name, case.effect) for case in CASES if case.effect in ("upsert", "remove")
    )
    told = changes.summary(fold)
    assert told.rejected == {130, 140, 170, 181, 250, 270, 291}
    assert told.changing == len(source) == 16
    assert told.upserts == (10, 381)


def test_a_fold_counts_the_entries_that_it_has_seen(spark: SparkSession) -> None:
    """Of this run and with a known state, whatever becomes of them; of none at all it says none."""
    rows = [row for case in CASES for row in _entries(case)]
    frame = changes_frame(spark, [*rows, entry("of another run", 300, "Create", "Current", runId=2)])
    whole = changes.summary(changes.folded(frame, 1, UNUSABLE))
    assert (len(rows), whole.entries) == (43, 41)
    assert changes.summary(changes.folded(frame, 1, UNUSABLE, {10, 260, 351})).entries == 39
    assert changes.summary(changes.folded(frame, 3, ())) == changes.Summary(0, 0, frozenset(), None)
