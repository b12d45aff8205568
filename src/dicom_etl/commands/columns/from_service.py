"""Fills rows of `instance_tags` whose header `change` does not have: the service is asked, some thousand at a time.

Each batch is an execution of its own, since Delta skips a second commit under one id. So a crash loses no more than a
batch, and a repetition asks only for what is still missing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import islice

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable
from pyspark.sql import SparkSession

from dicom_etl.commands.columns.begin import OUTPUT, Due, Written, begun, due_with, recorded, writer_of
from dicom_etl.commands.columns.compute import Scope
from dicom_etl.commands.columns.served import HeaderService, Key, Served
from dicom_etl.commands.columns.update import Tools, update_in
from dicom_etl.commands.columns.write import write_rows
from dicom_etl.core.attributes import INSTANCE_KEY
from dicom_etl.core.clock import utc_now
from dicom_etl.core.errors import Superseded
from dicom_etl.core.progress import NullProgress, Progress
from dicom_etl.core.settings.model import Settings
from dicom_etl.dicomweb.connect import connect
from dicom_etl.lake.delta.table import iterate_rows
from dicom_etl.lake.open import existing_lake, refuse_incomplete
from dicom_etl.lake.snapshot import LakeSnapshot
from dicom_etl.lake.statistics import shared_rows
from dicom_etl.outputs import execution as ledger
from dicom_etl.outputs.claim import claimed
from dicom_etl.outputs.execution import Counts, Execution
from dicom_etl.outputs.failures import failure_recorded
from dicom_etl.outputs.follow import next_step
from dicom_etl.outputs.stored_tags import last_execution_id, stored_tags
from dicom_etl.remote.http.client import HttpClient
from dicom_etl.remote.identity import dicom_tokens
from dicom_etl.tables.engine.frames import typed_rows
from dicom_etl.tables.engine.session import Engine, cluster_session
from dicom_etl.tables.file_skipping import study_ranges
from dicom_etl.tables.tag_rows import MISSING, UNKNOWN
from dicom_etl.tables.tag_schema import answer_columns
from dicom_etl.tables.tag_service import ASKED, filled

# One MERGE of each table a batch.
BATCH = 5_000


@dataclass(frozen=True, slots=True)
class Filling:
    """What the batches share: tools, the lake, the service, and the digest of the tags that it parses."""

    tools: Tools
    snapshot: LakeSnapshot
    service: HeaderService
    design_digest: str


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows that lack a header, with the sequence that each had, what the service answered, and under which id."""

    asked: dict[Key, int | None]
    served: Served
    execution_id: int


def backfill_from_service(
    settings: Settings,
    *,
    spark: SparkSession | None = None,
    progress: Progress | None = None,
    clock: Callable[[], datetime] = utc_now,
    sleep: Callable[[float], None] = time.sleep,
    batch: int = BATCH,
) -> Iterator[Execution]:
    """The executions, each when it is over: a backfill from `change` where one is due, then one a batch of rows.

    Rows whose header is missing, or was when one of the tags was chosen, get the header that the service has now. Its
    instances that are gone, or whose header cannot be had, are counted as failed. Raises as ``update`` does, and for
    the service as ``HttpClient.send``.
    """
    snapshot = existing_lake(settings)
    refuse_incomplete(snapshot)
    with (
        connect(settings.dicom, dicom_tokens(settings.dicom), sleep=sleep) as client,
        Engine(settings.spark, spark, snapshot.lake.paths) as engine,
    ):
        tools = Tools(settings, engine, progress or NullProgress(), clock, sleep)
        with failure_recorded(snapshot, OUTPUT, clock=clock, sleep=sleep):
            first = update_in(tools, snapshot, "backfill")
        yield from [] if first is None else [first]
        yield from _filled(tools, snapshot, client, batch)


def _filled(tools: Tools, snapshot: LakeSnapshot, client: HttpClient, size: int) -> Iterator[Execution]:
    stored = stored_tags(snapshot.lake)
    design = stored.design
    if design is None:
        return
    rows = _missing(stored.tables["instance_tags"])
    filling: Filling | None = None
    while asked := dict(islice(rows, size)):
        if filling is None:
            service = HeaderService(client, design, tools.settings.dicom.connections)
            filling = Filling(tools, snapshot, service, design.digest)
        tools.progress.step("ask the service for headers")
        yield _execution(filling, asked, filling.service.ask(list(asked)))


def _missing(table: DeltaTable) -> Iterator[tuple[Key, int | None]]:
    """Key and sequence of each row whose header lacks, or lacked when a tag was chosen.

    In the order of the files: rows of a study lie together.
    """
    only = (pc.field("headerState") == MISSING) | pc.match_substring(pc.field("headerQuality"), UNKNOWN)
    for found in iterate_rows(table, [*INSTANCE_KEY, "sequence"], only):
        *keys, sequences = (column.to_pylist() for column in found.columns)
        yield from zip(zip(*keys, strict=True), sequences, strict=True)


def _execution(filling: Filling, asked: dict[Key, int | None], served: Served) -> Execution:
    tools, lake = filling.tools, filling.snapshot.lake
    known = ledger.executions(ledger.open_executions(lake))
    last_id = last_execution_id(lake, known, OUTPUT, stored_tags(lake))
    with claimed(lake, OUTPUT, last_id, clock=tools.clock, sleep=tools.sleep, pulse=tools.engine.pulse) as execution_id:
        due = _due(filling)
        # It follows no entries: those of a run that has ended meanwhile are still to be taken.
        row = replace(begun(due, execution_id, tools.clock), to_run=due.step.since)
        batch = Batch(asked, served, execution_id)
        return recorded(lake, row, tools.clock, lambda: _written(filling, due, batch))


def _due(filling: Filling) -> Due:
    """The step of a batch: it comes no further than the output has come. Raises Superseded where the tags changed."""
    snapshot = filling.snapshot.refresh()
    known = ledger.executions(ledger.open_executions(snapshot.lake))
    last = ledger.last_succeeded(known, OUTPUT)
    stored = stored_tags(snapshot.lake)
    step = next_step(snapshot.runs(), last, forced="service")
    if last is None or step is None or stored.design is None or stored.design.digest != filling.design_digest:
        raise Superseded("the tags of the tables were changed meanwhile: run columns backfill --from-service again")
    return due_with(snapshot.lake, step, stored.design, stored, known)


def _written(filling: Filling, due: Due, batch: Batch) -> Written:
    tools, served = filling.tools, batch.served
    tools.progress.step("start Spark")
    spark = cluster_session(tools.engine.session(shared_rows(filling.snapshot)))
    tools.progress.step("write the tag tables")
    writer = writer_of(tools.settings, filling.snapshot, due, spark, batch.execution_id)
    table = writer.work.tables.instance
    studies = frozenset(key[1] for key in batch.asked)
    scope = Scope(studies, study_ranges(studies))
    answers = typed_rows(spark, _with_sequences(served.rows, batch.asked), answer_columns(table, ASKED))
    stored = scope.of(writer.work.stored_rows(spark))
    rows = filled(table, answers, stored, writer.quality.source.columns)
    counts, versions = write_rows(writer, "service", scope, rows)
    failed = len(served.gone) + len(served.failing)
    return "service", Counts(counts.touched + failed, counts.unchanged, counts.written, failed=failed), versions


def _with_sequences(rows: pa.Table, asked: dict[Key, int | None]) -> pa.Table:
    keys = zip(*(rows[name].to_pylist() for name in INSTANCE_KEY), strict=True)
    return rows.append_column(ASKED, pa.array([asked[key] for key in keys], pa.int64()))
