"""The tables that FHIR resources are made of: those of the newest run that the output `columns` has followed."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from dicom_etl.core.attributes import Level
from dicom_etl.core.errors import ConfigurationError, DataError
from dicom_etl.lake import past
from dicom_etl.lake.ledger import Run
from dicom_etl.lake.snapshot import LakeSnapshot
from dicom_etl.outputs import execution as ledger
from dicom_etl.outputs.columns.design import ColumnDesign
from dicom_etl.outputs.execution import Execution
from dicom_etl.outputs.fhir.rows import TAGS, StudyTables, TagNames
from dicom_etl.outputs.stored_tags import NAMES, stored_tags

_TAGS: dict[Level, str] = {"instance": NAMES[0], "series": NAMES[1], "study": NAMES[2]}


@dataclass(frozen=True, slots=True)
class Source:
    """The tables that the resources are made of: the run, and what `columns` made of it."""

    run: Run
    tags: Execution
    design: ColumnDesign


def source_of(snapshot: LakeSnapshot, known: Collection[Execution]) -> Source:
    """The newest run that `columns` has followed. Raises ConfigurationError where there are no tag tables."""
    tags = ledger.last_succeeded(known, "columns")
    design = stored_tags(snapshot.lake).design
    if tags is None or design is None:
        raise ConfigurationError("fhir is made of the tag tables, and there are none: run dicom-etl columns backfill")
    run = next((one for one in snapshot.runs() if one.run_id == tags.to_run), None)
    if run is None:
        raise DataError("the tag tables follow a run that the ledger does not have: run dicom-etl columns update")
    return Source(run, tags, design)


def study_tables(snapshot: LakeSnapshot, source: Source) -> StudyTables:
    """The tables as that run left them. Raises DataError when they are gone."""
    run, lake, versions = source.run, snapshot.lake, source.tags.versions
    return StudyTables(
        {level: past.table_at(snapshot, run, level) for level in _TAGS},
        {level: past.version_of(lake, name, versions[name], run) for level, name in _TAGS.items()},
        tag_names(source.design),
    )


def tag_names(design: ColumnDesign) -> TagNames:
    """The columns that the mapping reads, by the tags of the design.

    Raises ConfigurationError where a tag was given a lower level than the mapping needs.
    """
    found: dict[Level, dict[str, str]] = {}
    for level, tags in TAGS.items():
        there = {column.path.text: column.name for column in design.at(level)}
        if lower := [tag for tag in tags if tag not in there]:
            raise ConfigurationError(
                f"columns.tags: fhir needs {lower[0]} in {level}_tags: take level= from this tag, and run dicom-etl "
                "columns backfill"
            )
        found[level] = {tag: there[tag] for tag in tags}
    return TagNames(found)
