"""What Spark says of a statement that it cannot take, as one line, with what to do about it."""

from __future__ import annotations

import re
from collections.abc import Sequence

from dicom_etl.commands.tag_views import TAG_TABLES

# By the texts and not by the conditions' names: pyspark 3.5 gives Delta's errors none.
_NO_VERSION = re.compile(r"version (\d+)\. Available versions: \[(\d+), (\d+)\]")
_NO_TIME = re.compile(r"\bprovided timestamp\b.*\bbefore the earliest|\bis after the table's latest version", re.DOTALL)
_NO_TABLE = re.compile(r"\[TABLE_OR_VIEW_NOT_FOUND\] The table or view (.+?) cannot be found")
_NO_PATH = re.compile(r"\[PATH_NOT_FOUND\] Path does not exist: (.+?)\.? SQLSTATE|\[PATH_NOT_FOUND\] .*?: (\S+?)\.?$")
# A view has no versions, and a plain SELECT of one is what everybody tries first.
_NO_TRAVEL = re.compile(r"\b(TIME_TRAVEL|time travel)\b", re.IGNORECASE)
_CHANGES = re.compile(r"\btable_changes\b", re.IGNORECASE)

_PRIVATE = ("change", "rejected", "header")
_IN_FULL = "name the table's place in full, such as delta.`/lake/instance`"


def explained(said: str, sql: str, views: Sequence[str], no_tags: str | None = None) -> str:
    """One line: Spark's own words about the user's own text, without the plan behind them, and a hint where it has one.

    ``said`` is the text of its AnalysisException, ``views`` are those that a statement can name,
    ``no_tags`` why the tag tables are not among them.
    """
    line = _first_line(said)
    if _CHANGES.search(sql):
        hint = "the tables keep no change data: dicom-etl changes --since N compares what two runs left"
        return f"{_bare(line)}; {hint}"
    return _about_versions(said, line) or _about_names(line, views, no_tags) or line.rstrip("; ")


def _about_versions(said: str, line: str) -> str | None:
    if found := _NO_VERSION.search(said):
        wanted, first, last = found.groups()
        return (
            f"this table has no version {wanted}, it has {first} to {last} (dicom-etl runs --json has those of a run)"
        )
    if _NO_TIME.search(said):
        return " ".join(said.partition("SQLSTATE")[0].split())
    if _NO_TRAVEL.search(line):
        instead = f"give --run N or --as-of T without it, or {_IN_FULL} VERSION AS OF N"
        return f"{_bare(line)}; a view has no versions: {instead}"
    return None


def _about_names(line: str, views: Sequence[str], no_tags: str | None) -> str | None:
    listed = ", ".join(sorted(views))
    if found := _NO_TABLE.search(line):
        name = found[1]
        closed = name.strip("`") in _PRIVATE
        why = " (it is for those who may read the private tables)" if closed else ""
        why = f" ({no_tags or 'dicom-etl columns update makes it'})" if name.strip("`") in TAG_TABLES else why
        return f"there is no view {name}{why}; the views are {listed}"
    if found := _NO_PATH.search(line):
        return f"there is nothing at {found[1] or found[2]}: {_IN_FULL}, or one of the views {listed}"
    return None


def _first_line(said: str) -> str:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return lines[0] if lines else "it does not parse"


def _bare(line: str) -> str:
    """The line without what ends it, so that a hint can follow."""
    return line.rstrip(" .;")
