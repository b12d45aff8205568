"""Lets the output `columns` follow a lake, dying now and then, and tells what its tables must hold in the end."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext, suppress
from datetime import UTC, timedelta
from itertools import pairwise
from random import Random
from typing import Any

import pytest

from dicom_etl.commands.columns import quality, write
from dicom_etl.commands.columns.update import update
from dicom_etl.outputs import execution
from dicom_etl.outputs.execution import Execution
from support.crashes import Crash, Crashes, Points
from support.oracle import KEYS, Row, Tables, by_key
from support.site import Site, at

# The attributes of `instance` as tags: what its own columns and roll-ups hold is the oracle's already.
TAGS = ("StudyDate", "StudyDescription", "IssuerOfPatientID", "PatientID", "PatientName", "Modality", "SOPClassUID")
SETTINGS = (f"columns.tags={list(TAGS)}".replace("'", '"'), "columns.identifying=true")
OF_STUDY = ("studyDate", "studyDescription", "issuerOfPatientId", "patientId", "patientName")
OF_SERIES = (*OF_STUDY, "modality")
OF_INSTANCE = (*OF_SERIES, "sopClassUid")
Key = tuple[Any, ...]
QUALITY_KEY = ("tag", "day", "manufacturer", "manufacturerModelName")
# Word for word: what the digits of `headerQuality` are counted as.
QUALITY_COUNTS = {
    "0": "absent", "1": "present", "2": "several", "3": "otherVr", "4": "empty", "5": "wrongVr", "6": "unparsable",
    "7": "binary",
}  # fmt: skip
SETTLE = timedelta(minutes=30)

# Where an execution can die: what is wrapped, and whether it has happened by then.
POINTS: Points = {
    "before a merge of changed rows": (write, "merge_effects", "before"),
    "after a merge of changed rows": (write, "merge_effects", "after"),
    "after a replacement": (write, "replace_table", "after"),
    "before a whole roll-up": (write, "merge_rollup", "before"),
    "after a whole roll-up": (write, "merge_rollup", "after"),
    "before header_quality": (quality, "merge_quality", "before"),
    "after header_quality": (quality, "merge_quality", "after"),
    "before header_quality is made": (quality, "replace_table", "before"),
    "before the row of output": (execution, "record", "before"),
    "after the row of output": (execution, "record", "after"),
}


# What an execution that follows entries comes by; the others are met where it computes everything, or after a death.
_USUAL = [name for name in POINTS if "changed rows" in name or name.endswith(("header_quality", "row of output"))]


def synced(site: Site, hour: float, **how: Any) -> None:
    """A sync at this hour, by the service's clock, too."""
    site.clock(hour)
    site.sync(now=at(hour), **how)


class Follower:
    """Updates the tag tables of a site at random moments; some executions die at a random point."""

    def __init__(self, random: Random, monkeypatch: pytest.MonkeyPatch, update: Callable[..., Any] = update) -> None:
        self.random = random
        self.crashes = Crashes(POINTS)
        self.executions: list[Execution] = []
        self.monkeypatch = monkeypatch
        self._update = update

    @property
    def modes(self) -> set[str]:
        """How the executions that ended have computed their rows."""
        return {one.mode for one in self.executions}

    def follow(self, site: Site, *, death: float = 0.6) -> None:
        """One execution, whose counts must agree; ``death`` is how likely it is to die."""
        points = _USUAL if self.random.random() < 0.8 else list(POINTS)
        point = self.random.choice(points) if self.random.random() < death else None
        death = self.crashes.at(point, self.random, self.monkeypatch) if point else nullcontext()
        with suppress(Crash), death:
            done = self._update(site.settings, extent="full" if self.random.random() < 0.1 else "due", spark=site.spark)
            if done is not None:
                assert done.counts.whole, done
                self.executions.append(done)


def tags_of(tables: Tables, created: Mapping[Key, int]) -> Tables:
    """The tag tables, in the columns that the oracle knows, from the rows of the three shared ones.

    ``created``: of each instance the sequence of its last Create.
    """
    by_series, by_study = defaultdict(list), defaultdict(list)
    for row in tables["instance"]:
        by_series[_key(row, "series")].append(row)
        by_study[_key(row, "study")].append(row)
    return {
        "instance_tags": [_instance(row, created[_key(row, "instance")]) for row in tables["instance"]],
        "series_tags": [_rolled(row, "series", by_series[_key(row, "series")], OF_SERIES) for row in tables["series"]],
        "study_tags": [
            _rolled(row, "study", by_study[_key(row, "study")], OF_STUDY) | _settled(by_study[_key(row, "study")])
            for row in tables["study"]
        ],
    }


def stored_tags(site: Site, like: Tables) -> Tables:
    """The tag tables as they stand, in the columns of ``like``, each sorted by its key."""
    return {
        name: by_key(name.removesuffix("_tags"), [{one: row[one] for one in rows[0]} for row in site.rows(name)])
        for name, rows in like.items()
    }


def quality_of(instances: Iterable[Row], tags: Sequence[str]) -> list[Row]:
    """The rows of `header_quality` that these rows of `instance_tags` give, in the order of their keys."""
    counts: Counter[Key] = Counter()
    keys = set()
    for row in instances:
        time = row["lastModifiedTimestamp"]
        device = (time and time.astimezone(UTC).date(), row["manufacturer"], row["manufacturerModelName"])
        for place, tag in enumerate(tags):
            digit = row["headerQuality"][place] if row["headerState"] == "ok" else "-"
            counts[tag, *device, QUALITY_COUNTS.get(digit, "noHeader")] += 1
            keys.add((tag, *device))
    names = ("noHeader", *QUALITY_COUNTS.values())
    return [
        dict(zip(QUALITY_KEY, key, strict=True)) | {name: counts[*key, name] for name in names}
        for key in sorted(keys, key=repr)
    ]


def stored_quality(site: Site) -> list[Row]:
    """`header_quality` as it stands, in the same order."""
    return sorted(site.rows("header_quality"), key=lambda row: repr(tuple(row[name] for name in QUALITY_KEY)))


def tag_columns(site: Site) -> list[str]:
    """The names of the tag columns of `instance_tags`, in their order."""
    names = [field.name for field in site.opened("instance_tags").schema().fields]
    return names[names.index("headerQuality") + 1 :]


def created_sequences(feed: Iterable[Any]) -> dict[Key, int]:
    """Of each key the sequence of its last Create in the service's feed."""
    return {row.key: row.sequence for row in sorted(feed, key=lambda row: row.sequence) if row.action == "Create"}


def _key(row: Row, table: str) -> Key:
    return tuple(row[name] for name in KEYS[table])


def _instance(row: Row, created: int) -> Row:
    own = {"sequence": row["sequence"], "createdSequence": created, "headerState": "ok"}
    names = (*KEYS["instance"], "lastModifiedTimestamp", *OF_INSTANCE)
    return {name: row[name] for name in names} | own


def _rolled(row: Row, table: str, instances: list[Row], tags: tuple[str, ...]) -> Row:
    names = (*KEYS[table], "lastModifiedTimestamp", "instanceCount", *tags)
    distinct = {f"{tag}_values": len({one[tag] for one in instances if one[tag] is not None}) for tag in tags}
    return {name: row[name] for name in names} | distinct


def _settled(instances: list[Row]) -> Row:
    moments = sorted({row["lastModifiedTimestamp"] for row in instances})
    return {
        "settledAt": moments[-1] + SETTLE,
        "reopened": sum(after - before > SETTLE for before, after in pairwise(moments)),
    }
