"""Whether a logical plan of Spark only reads: one whitelist for parsed and for analysed plans."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import starmap
from typing import Any

from py4j.java_collections import JavaArray
from py4j.java_gateway import JavaObject, is_instance_of
from pyspark.sql import SparkSession

# The kinds of plans that read, as Spark 3.5 to 4.2 name them; any other is refused: ScriptTransformation, commands,
# plans that run somebody's Python or Scala, and whatever a later Spark adds.
_PARSED = """
    Aggregate Distinct Except Filter Generate GlobalLimit Intersect Join LateralJoin LimitAll LocalLimit LocalRelation
    Offset OneRowRelation PipeOperator Pivot Project RelationTimeTravel RepartitionByExpression Sample Sort
    SubqueryAlias Tail Transpose Union UnresolvedHaving UnresolvedHint UnresolvedInlineTable UnresolvedQualify
    UnresolvedRelation UnresolvedSubqueryColumnAliases UnresolvedTableValuedFunction UnresolvedTVFAliases UnresolvedWith
    Unpivot Window WithWindowDefinition
"""
_ANALYSED = """
    CTERelationDef CTERelationRef DataSourceV2Relation DataSourceV2ScanRelation Deduplicate Expand HiveTableRelation
    LogicalRelation Range RebalancePartitions Repartition ResolvedHint ResolvedInlineTable SQLFunctionNode UnionLoop
    UnionLoopRef View WithCTE
"""
# What SHOW and DESCRIBE name.
_NAMES = """
    CurrentNamespace UnresolvedFunctionName UnresolvedIdentifier UnresolvedNamespace UnresolvedProcedure UnresolvedTable
    UnresolvedTableOrView UnresolvedView
"""
_READS = frozenset((_PARSED + _ANALYSED + _NAMES).split())

# Spark's functions are too many to list. Of its own these run code that the text or the session names. IDENTIFIER hides
# from the parsed plan what it will build.
_FOREIGN = re.compile(
    r"Reflect|Python|ScalaUDF|UserDefined|Invoke|NewInstance|JavaBean|ApplyFunction|V2Aggregator|UnresolvedIdentifier"
)

_SPARK = "org.apache.spark.sql."
_CATALYST = f"{_SPARK}catalyst."
_PLAN = f"{_CATALYST}plans.logical.LogicalPlan"
_EXPRESSION = f"{_CATALYST}expressions.Expression"
_TREE = f"{_CATALYST}trees.TreeNode"
# Their fields are values, schemas and files: nothing there runs, and a VALUES clause may have many.
_LEAVES = frozenset(["AttributeReference", "Literal", "LocalRelation", "LogicalRelation"])
_NOT_LOOKED_INTO = (f"{_SPARK}types.", f"{_CATALYST}catalog.")

NOT_A_QUERY = "only statements that read are taken, such as SELECT, SHOW and DESCRIBE"
COMPUTED_NAME = "only names that stand in the text are taken: write the name itself in place of IDENTIFIER(…)"
FOREIGN_CODE = "only Spark's own functions are taken, by their names, and none that calls Java (reflect, java_method)"


class Judge:
    """Says of plans of one session why they may do more than read.

    Every field of every node is looked into, and not what Spark's `children`, `innerChildren` and `expressions` give:
    those pass over the maps of a WINDOW clause, in which a script was once hidden.
    """

    def __init__(self, spark: SparkSession) -> None:
        self._gateway: Any = spark.sparkContext._gateway
        self._sorts: dict[str, str] = {}

    def objection(self, plan: Any) -> str | None:
        """Why a parsed or analysed plan is not taken; None for one that only reads."""
        return next((why for why in starmap(_objection, self._trees(plan)) if why), None)

    def objection_below(self, command: Any) -> str | None:
        """The same for what a command names, apart from the command itself."""
        return next((why for why in map(self.objection, _each(command.productIterator())) if why), None)

    def _trees(self, value: Any) -> Iterator[tuple[Any, str, str]]:
        """Every plan and expression in ``value``, itself included, with the name of its class and its sort."""
        # A chain of a thousand UNION ALL or || is as deep a tree: Python's own stack would not hold it.
        rest = [value]
        while rest:
            one = rest.pop()
            if isinstance(one, JavaArray):
                rest.extend(one)
                continue
            if not isinstance(one, JavaObject):
                continue
            name = _name(one)
            if name not in self._sorts:
                self._sorts[name] = self._sort(one, name)
            sort = self._sorts[name]
            if sort in (_PLAN, _EXPRESSION, _TREE):
                yield one, name, sort
            if sort and _short(name) not in _LEAVES:
                rest.extend(_each(one.iterator() if sort == "collection" else one.productIterator()))

    def _sort(self, value: Any, name: str) -> str:
        """What an object is as far as it matters here; "" for what holds no plan."""
        if name.startswith(_NOT_LOOKED_INTO):
            return ""
        for sort in (_PLAN, _EXPRESSION, _TREE):
            if is_instance_of(self._gateway, value, sort):
                return sort
        if is_instance_of(self._gateway, value, "scala.collection.Iterable"):
            return "collection"
        known = name.startswith(("scala.", _CATALYST)) and is_instance_of(self._gateway, value, "scala.Product")
        return "product" if known else ""


def kind(node: Any) -> str:
    """The name of a node's class, without its package where that is Spark SQL's."""
    return _short(_name(node))


def _short(name: str) -> str:
    return name.rpartition(".")[2].rstrip("$") if name.startswith(_SPARK) else name


def _name(value: Any) -> str:
    return str(value.getClass().getName())


def _each(iterator: Any) -> Iterator[Any]:
    while iterator.hasNext():
        yield iterator.next()


def _objection(node: Any, name: str, sort: str) -> str | None:
    if _short(name).endswith("WithUnresolvedIdentifier"):
        return COMPUTED_NAME
    if sort == _EXPRESSION:
        return None if _is_own(node, name) else FOREIGN_CODE
    reads = sort == _PLAN and _short(name) in _READS and _has_literal_time_travel(node, name)
    return None if reads else NOT_A_QUERY


def _is_own(function: Any, name: str) -> bool:
    """Whether an expression is one of Spark's that runs nothing but Spark."""
    if _short(name) == "StaticInvoke":  # how Spark calls its own for CHAR columns, and a catalog its functions
        return str(function.staticObject().getName()).startswith("org.apache.spark.")
    return name.startswith(_CATALYST) and not _FOREIGN.search(name)


def _has_literal_time_travel(node: Any, name: str) -> bool:
    """Whether a version is named, or a time as it stands: one that is computed runs while the text is analysed."""
    if _short(name) != "RelationTimeTravel":
        return True
    timestamp = node.timestamp()
    plain = timestamp.isEmpty() or kind(timestamp.get()) == "Literal"
    return plain and kind(node.relation()) == "UnresolvedRelation"
