"""Spark SQL over the tables of a lake, read only."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from py4j.protocol import Py4JJavaError
from pyspark.errors import AnalysisException, PySparkException
from pyspark.sql import DataFrame, SparkSession

from dicom_etl.errors import UsageError
from dicom_etl.lake.failures import condition
from dicom_etl.lake.session import Engine
from dicom_etl.lake.tables import read_table
from dicom_etl.open_lake import TABLES, Lake, existing_lake
from dicom_etl.settings import Settings

# What Spark's parser makes of queries.
_QUERY_NODES = frozenset(
    [
        "Aggregate",
        "Deduplicate",
        "Distinct",
        "Except",
        "Filter",
        "Generate",
        "GlobalLimit",
        "Intersect",
        "Join",
        "LateralJoin",
        "LocalLimit",
        "LocalRelation",
        "Offset",
        "OneRowRelation",
        "ParameterizedQuery",
        "PipeOperator",
        "Pivot",
        "Project",
        "RelationTimeTravel",
        "Repartition",
        "RepartitionByExpression",
        "ResolvedInlineTable",
        "Sample",
        "Sort",
        "SubqueryAlias",
        "Tail",
        "Transpose",
        "Union",
        "UnresolvedHaving",
        "UnresolvedHint",
        "UnresolvedInlineTable",
        "UnresolvedRelation",
        "UnresolvedSubqueryColumnAliases",
        "UnresolvedTableValuedFunction",
        "UnresolvedTVFAliases",
        "UnresolvedWith",
        "Unpivot",
        "Window",
        "WithWindowDefinition",
    ]
)

_WOULD_WRITE = "query: only statements that read are taken, such as SELECT, SHOW and DESCRIBE"


@contextmanager
def answer(settings: Settings, sql: str, *, spark: SparkSession | None = None) -> Iterator[DataFrame]:
    """The rows that ``sql`` asks for; instance, series, study, run, change and rejected are views.

    Raises UsageError (64) when the text does not parse, names what is not there, or would write.
    """
    lake = existing_lake(settings, private=False)
    with Engine(settings.spark, spark, lake.places) as engine:
        session = engine.session(lake.rows())
        _make_views(session, lake)
        try:
            yield _read_only(session, sql)
        except (PySparkException, Py4JJavaError) as error:
            # Found out only as the rows are made (1/0, a cast); the message may quote a value, its name does not.
            named = condition(error) if isinstance(error, PySparkException) else None
            raise UsageError(f"query: it failed as it ran ({named or type(error).__name__})") from error


def _make_views(spark: SparkSession, lake: Lake) -> None:
    for name in TABLES:
        if lake.readable(name):
            read_table(spark, lake.path(name)).createOrReplaceTempView(name)


def _read_only(spark: SparkSession, sql: str) -> DataFrame:
    """The frame of a query; anything that could change something is refused before it runs."""
    try:
        if not _reads_only(_parsed(spark, sql)):
            raise UsageError(_WOULD_WRITE)
        frame = spark.sql(sql)
    except AnalysisException as error:  # ParseException is one too
        raise UsageError(f"query: {_first_line(error)}") from error
    if _calls_java(frame):
        raise UsageError("query: functions that call Java are not taken: reflect, try_reflect, java_method")
    return frame


def _parsed(spark: SparkSession, sql: str) -> Any:
    try:
        return spark._jsparkSession.sessionState().sqlParser().parsePlan(sql)
    except Py4JJavaError as error:  # Spark 4.0 refuses scripts by itself, and its pyspark has no class for that
        raise UsageError(_WOULD_WRITE) from error


def _reads_only(plan: Any) -> bool:
    """Whether a parsed statement is a query through and through, or one that describes.

    Known kinds are let in, not bad ones kept out: EXECUTE IMMEDIATE, CALL and scripts are no commands for
    Spark's parser, and write all the same.
    """
    kind = _kind(plan)
    if kind == "ExplainCommand":
        return _reads_only(plan.logicalPlan())
    if kind == "DescribeQueryCommand":
        return _reads_only(plan.plan())
    if kind.startswith(("Describe", "Show")):
        return True
    return all(_kind(node) in _QUERY_NODES and _travels_plainly(node) for node in _nodes(plan))


def _travels_plainly(node: Any) -> bool:
    """Whether a version is named, or a time as it stands: one that is computed runs while the text is looked at."""
    if _kind(node) != "RelationTimeTravel":
        return True
    timestamp = node.timestamp()
    plain = timestamp.isEmpty() or _kind(timestamp.get()) == "Literal"
    return plain and _kind(node.relation()) == "UnresolvedRelation"


def _calls_java(frame: DataFrame) -> bool:
    """Whether the query has a function that calls any Java method; nothing of it has run yet.

    Asked of the analysed plan: a WINDOW clause hides its expressions from the parsed one, IDENTIFIER() a name.
    """
    plan: Any = frame._jdf.queryExecution().analyzed()
    return any("Reflect" in _kind(one) for node in _nodes(plan) for one in _expressions(node.expressions()))


def _expressions(found: Any) -> Iterator[Any]:
    for i in range(found.size()):
        yield found.apply(i)
        yield from _expressions(found.apply(i).children())


def _kind(node: Any) -> str:
    return str(node.getClass().getSimpleName())


def _nodes(plan: Any) -> Iterator[Any]:
    """The plan and all below it: its inputs, and what its expressions and its WITH hold."""
    yield plan
    for below in (plan.children(), plan.innerChildren()):
        for i in range(below.size()):
            yield from _nodes(below.apply(i))


def _first_line(error: AnalysisException) -> str:
    """Spark's own words about the user's own text, without the plan that follows them."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else "it does not parse"
