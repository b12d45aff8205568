"""Spark SQL over the tables of a lake, read only."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from py4j.protocol import Py4JJavaError
from pyspark.errors import AnalysisException, PySparkException
from pyspark.sql import DataFrame, SparkSession

from dicom_etl.commands.query_hints import explained
from dicom_etl.commands.tag_views import TagViews
from dicom_etl.commands.views import make_views
from dicom_etl.core.errors import UsageError
from dicom_etl.core.settings.model import Settings
from dicom_etl.lake.ledger import Run
from dicom_etl.lake.open import existing_lake, refuse_incomplete
from dicom_etl.lake.past import When, gone, run_at
from dicom_etl.lake.snapshot import LakeSnapshot
from dicom_etl.lake.statistics import shared_rows
from dicom_etl.tables.engine.errors import condition, file_missing, machine_fault
from dicom_etl.tables.engine.session import Engine
from dicom_etl.tables.query_gate import NOT_A_QUERY, Judge, kind


@dataclass(frozen=True, slots=True)
class OpenTables:
    """The tables of a lake as views of one session, for one statement or many; ``run``: as that run left them."""

    snapshot: LakeSnapshot
    session: SparkSession
    run: Run | None
    tags: TagViews

    @contextmanager
    def answer(self, sql: str) -> Iterator[DataFrame]:
        """The rows that ``sql`` asks for.

        Raises as ``answer`` does; what the machine fails with as ``machine_fault`` names it.
        """
        try:
            yield _read_only_of(self, sql)
        except (PySparkException, Py4JJavaError) as error:
            if self.run is not None and file_missing(error):  # removed since it was looked for
                raise gone(self.run) from error
            if fault := machine_fault(error, "query"):
                raise fault from error
            # Found out only as the rows are made (1/0, a cast); the message may quote a value, its name does not.
            named = condition(error) if isinstance(error, PySparkException) else None
            if named is None and file_missing(error):
                named = "a place that it names holds no table, or a file of it is gone"
            raise UsageError(f"query: it failed as it ran ({named or type(error).__name__})") from error


@contextmanager
def open_tables(
    settings: Settings, when: When | None = None, *, spark: SparkSession | None = None
) -> Iterator[OpenTables]:
    """The tables of the lake, to be asked; they are as they were ``when``, or now.

    Raises ConfigurationError without a lake, UsageError when no run is as ``when`` says, DataError when what it left is
    gone.
    """
    snapshot = existing_lake(settings, private=False)
    run = None if when is None else run_at(snapshot.runs(), when)
    with Engine(settings.spark, spark, snapshot.lake.paths) as engine:
        if run is not None:
            refuse_incomplete(snapshot, private=False)
        session = engine.session(shared_rows(snapshot))
        yield OpenTables(snapshot, session, run, make_views(session, snapshot, run))


@contextmanager
def answer(
    settings: Settings, sql: str, when: When | None = None, *, spark: SparkSession | None = None
) -> Iterator[DataFrame]:
    """The rows that ``sql`` asks for; the tables, the tag tables and header are views.

    With ``when`` they are as a run left them. Raises UsageError (64) when the text does not parse, names what is not
    there, or would write; DataError (65) instead when a shared table has vanished; else as ``open_tables``.
    """
    with open_tables(settings, when, spark=spark) as tables, tables.answer(sql) as rows:
        yield rows


def _read_only_of(tables: OpenTables, sql: str) -> DataFrame:
    """``read_only``; of a lake without one of its shared tables what that is (65), and not that a name is unknown."""
    try:
        return read_only(tables.session, sql, tables.tags.absent)
    except UsageError:
        refuse_incomplete(tables.snapshot, private=False)
        raise


def read_only(spark: SparkSession, sql: str, no_tags: str | None = None) -> DataFrame:
    """The frame of a query; anything that could change something is refused before it runs.

    The text is judged as it parses, since its analysis may run parts of it, and as it is analysed, since only then the
    text of views and what names stand for can be seen. `spark.sql` runs commands, EXPLAIN among them, at once.
    ``no_tags``: why there are no tag tables, for the error about one.
    """
    try:
        asked = _parsed(spark, sql)
        judge = Judge(spark)
        query = _inside(asked)
        if kind(query).startswith(("Describe", "Show")):
            _refuse(judge.objection_below(query))
        else:
            _refuse(judge.objection(query))
            _refuse(judge.objection(_analysed(spark, query)))
        return spark.sql(sql)
    except AnalysisException as error:  # ParseException is one too
        raise UsageError(f"query: {explained(str(error), sql, _views(spark), no_tags)}") from error


def _parsed(spark: SparkSession, sql: str) -> Any:
    try:
        return spark._jsparkSession.sessionState().sqlParser().parsePlan(sql)
    except Py4JJavaError as error:  # Spark 4.0 refuses scripts by itself, and its pyspark has no class for that
        raise UsageError(f"query: {NOT_A_QUERY}") from error


def _inside(asked: Any) -> Any:
    """The statement that EXPLAIN or DESCRIBE QUERY is about; any other statement is that itself."""
    if kind(asked) == "ExplainCommand":
        return _inside(asked.logicalPlan())
    return asked.plan() if kind(asked) == "DescribeQueryCommand" else asked


def _analysed(spark: SparkSession, query: Any) -> Any:
    """The analysed plan, without running any command that might be in it."""
    nothing_runs = spark._jvm.org.apache.spark.sql.execution.CommandExecutionMode.SKIP()  # type: ignore[union-attr]
    return spark._jsparkSession.sessionState().executePlan(query, nothing_runs).analyzed()


def _refuse(why: str | None) -> None:
    if why is not None:
        raise UsageError(f"query: {why}")


def _views(spark: SparkSession) -> list[str]:
    """The names that a statement can use.

    Not by the catalog's list of tables: it looks into each, and fails where the table below a view has vanished.
    """
    return [row["viewName"] for row in spark.sql("SHOW VIEWS").collect() if row["isTemporary"]]
