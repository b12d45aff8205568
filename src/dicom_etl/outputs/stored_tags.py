"""The tag tables as they stand: of which tags they are made, and at which versions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from deltalake import DeltaTable

from dicom_etl.core.errors import DataError
from dicom_etl.lake.delta.table import properties, txn_version
from dicom_etl.lake.lake_id import check_owner
from dicom_etl.lake.snapshot import Lake, opened
from dicom_etl.outputs.columns.design import ColumnDesign, design_from_json
from dicom_etl.outputs.execution import Execution, highest_id

NAMES = ("instance_tags", "series_tags", "study_tags")
# Counts what `instance_tags` holds, and is made of it again where it does not fit.
QUALITY = "header_quality"
# A property of each tag table: the tags that it is made of.
DESIGN = "dicomEtl.columns"
# Another: the quiet, in microseconds, after which they call a study settled.
SETTLE = "dicomEtl.settle"


@dataclass(frozen=True, slots=True)
class StoredTags:
    """The tag tables that are there, by name; ``quality`` is `header_quality`, if it is there."""

    tables: Mapping[str, DeltaTable]
    quality: DeltaTable | None = None

    @property
    def versions(self) -> dict[str, int | None]:
        """The version of each of the three; None for one that is not there."""
        return {name: self.tables[name].version() if name in self.tables else None for name in NAMES}

    @property
    def design(self) -> ColumnDesign | None:
        """The tags that all three are made of; None where one lacks, or they do not agree.

        They differ where an execution died between them.
        """
        designs = {properties(table).get(DESIGN) for table in self.tables.values()}
        text = next(iter(designs)) if len(self.tables) == len(NAMES) and len(designs) == 1 else None
        return None if text is None else design_from_json(text)

    @property
    def settle_micros(self) -> int | None:
        """The quiet by which `study_tags` was made; None where it is not there, or does not say."""
        text = properties(self.tables["study_tags"]).get(SETTLE, "") if "study_tags" in self.tables else ""
        return int(text) if text.isdecimal() else None

    @property
    def instance_design(self) -> ColumnDesign | None:
        """The tags that `instance_tags` is made of, whatever the others say; None where it is not there."""
        table = self.tables.get("instance_tags")
        return None if table is None else design_from_json(properties(table)[DESIGN])

    def columns(self, name: str) -> dict[str, str]:
        """The columns of one of the tables and Delta's names of their types; none where it is not there."""
        if name not in self.tables:
            return {}
        return {field.name: str(getattr(field.type, "type", "nested")) for field in self.tables[name].schema().fields}


def rolled_up(lake: Lake, stored: StoredTags) -> bool:
    """Whether both roll-ups were written behind `instance_tags`, under its id or a later one.

    Where not, an execution died between. Of one that followed entries the next one touches the same keys; of a backfill
    from the service nothing tells what it has touched.
    """
    counted, *rolled = (
        txn_version(stored.tables[name], lake.app_id(name)) if name in stored.tables else -1 for name in NAMES
    )
    return counted >= 0 and all(marker >= counted for marker in rolled)


def last_execution_id(lake: Lake, executions: Iterable[Execution], output: str, stored: StoredTags) -> int:
    """The highest id that an execution of the output, or a commit to one of its ``stored`` tables, has.

    Where `output` was put back to an older state, the tables know ids above it, and would refuse these as overtaken.
    """
    tables = {**stored.tables, **({QUALITY: stored.quality} if stored.quality is not None else {})}
    markers = (txn_version(table, lake.app_id(name)) for name, table in tables.items())
    return max(highest_id(executions, output), *markers, 0)


def stored_tags(lake: Lake) -> StoredTags:
    """The tag tables at their newest versions.

    Raises DataError when one is another lake's, or its design is not what this version knows.
    """
    tables = {}
    for name in (*NAMES, QUALITY):
        table = opened(lake.paths, name)
        if table is None:
            continue
        check_owner(name, properties(table), lake.identity)
        if DESIGN not in properties(table):
            raise DataError(f"the table {name} was not made by dicom-etl columns: move it away, or set columns.root")
        tables[name] = table
    return StoredTags({name: tables[name] for name in NAMES if name in tables}, tables.get(QUALITY))
