"""What `query` says of a statement that Spark cannot take."""

from __future__ import annotations

import pytest

from dicom_etl.commands.query_hints import explained
from dicom_etl.tables.query_gate import COMPUTED_NAME, FOREIGN_CODE, _objection
from support.screens import seen

VIEWS = ["study", "instance", "series", "run"]
LISTED = "the views are instance, run, series, study"
EXPRESSION = "org.apache.spark.sql.catalyst.expressions.Expression"
PLAN = "org.apache.spark.sql.catalyst.plans.logical.LogicalPlan"
# Spark's and Delta's texts as 4.1 with 4.1 gives them; each with the statement, and what is said.
SAID = {
    "a version that is not there": (
        "[DELTA_VERSION_NOT_FOUND] Cannot time travel Delta table to version 999. Available versions: [0, 31].",
        "SELECT * FROM delta.`/lake/instance` VERSION AS OF 999",
        "this table has no version 999, it has 0 to 31 (dicom-etl runs --json has those of a run)",
    ),
    "the same without a condition, as Delta 3.2 says it": (
        "Cannot time travel Delta table to version 999. Available versions: [2, 31].",
        "SELECT * FROM delta.`/lake/instance` VERSION AS OF 999",
        "this table has no version 999, it has 2 to 31 (dicom-etl runs --json has those of a run)",
    ),
    "a time before the table": (
        "[DELTA_TIMESTAMP_EARLIER_THAN_COMMIT_RETENTION] The provided timestamp (2001-01-01 00:00:00.0) is before the "
        "earliest version available to\nthis table (2026-11-30 21:46:01.611). Please use a timestamp after 2026-11-30.",
        "SELECT * FROM delta.`/lake/instance` TIMESTAMP AS OF '2001-01-01'",
        "[DELTA_TIMESTAMP_EARLIER_THAN_COMMIT_RETENTION] The provided timestamp (2001-01-01 00:00:00.0) is before the "
        "earliest version available to this table (2026-11-30 21:46:01.611). Please use a timestamp after 2026-11-30.",
    ),
    "a version of a view": (
        "[UNSUPPORTED_FEATURE.TIME_TRAVEL] The feature is not supported: Time travel on the relation: `instance`. "
        "SQLSTATE: 0A000",
        "SELECT * FROM instance VERSION AS OF 1",
        "[UNSUPPORTED_FEATURE.TIME_TRAVEL] The feature is not supported: Time travel on the relation: `instance`. "
        "SQLSTATE: 0A000; a view has no versions: give --run N or --as-of T without it, or name the table's place in "
        "full, such as delta.`/lake/instance` VERSION AS OF N",
    ),
    "a name that is none": (
        "[TABLE_OR_VIEW_NOT_FOUND] The table or view `studies` cannot be found. Verify the spelling and correctness of "
        "the schema and catalog.\nSearch path: [`spark_catalog`.`default`].\n'Project [*]",
        "SELECT * FROM studies",
        f"there is no view `studies`; {LISTED}",
    ),
    "a private one": (
        "[TABLE_OR_VIEW_NOT_FOUND] The table or view `header` cannot be found. Verify the spelling.",
        "SELECT * FROM header",
        f"there is no view `header` (it is for those who may read the private tables); {LISTED}",
    ),
    "a path that is none": (
        "[PATH_NOT_FOUND] Path does not exist: /lake/instanse. SQLSTATE: 42K03",
        "SELECT * FROM delta.`/lake/instanse`",
        "there is nothing at /lake/instanse: name the table's place in full, such as delta.`/lake/instance`, or one of "
        "the views instance, run, series, study",
    ),
    "the changes of a table": (
        "[DELTA_MISSING_CHANGE_DATA] Error getting change data.",
        "SELECT * FROM table_changes('instance', 1)",
        "[DELTA_MISSING_CHANGE_DATA] Error getting change data; the tables keep no change data: dicom-etl changes "
        "--since N compares what two runs left",
    ),
    "an error of syntax, as it is": (
        "\n[PARSE_SYNTAX_ERROR] Syntax error at or near 'FORM'. SQLSTATE: 42601 (line 1, pos 9)\n\n== SQL ==\nSELECT",
        "SELECT * FORM instance",
        "[PARSE_SYNTAX_ERROR] Syntax error at or near 'FORM'. SQLSTATE: 42601 (line 1, pos 9)",
    ),
    "a column that is none, as it is": (
        "[UNRESOLVED_COLUMN.WITH_SUGGESTION] A column with name `nope` cannot be resolved. Did you mean one of the "
        "following? [`id`]. SQLSTATE: 42703; line 1 pos 7;\n'Project ['nope]",
        "SELECT nope FROM instance",
        "[UNRESOLVED_COLUMN.WITH_SUGGESTION] A column with name `nope` cannot be resolved. Did you mean one of the "
        "following? [`id`]. SQLSTATE: 42703; line 1 pos 7",
    ),
}


@pytest.mark.parametrize("case", SAID)
def test_a_refused_statement_gets_one_line_with_what_to_do(case: str) -> None:
    said, sql, expected = SAID[case]
    assert explained(said, sql, VIEWS) == expected


def test_a_computed_name_is_refused_by_its_name() -> None:
    """IDENTIFIER as a column, a function or a table; a function that calls Java keeps its own reason."""
    hidden = "org.apache.spark.sql.catalyst.analysis.ExpressionWithUnresolvedIdentifier"
    table = "org.apache.spark.sql.catalyst.analysis.PlanWithUnresolvedIdentifier"
    assert _objection(None, hidden, EXPRESSION) == _objection(None, table, PLAN) == COMPUTED_NAME
    assert COMPUTED_NAME.endswith("in place of IDENTIFIER(…)")
    java = "org.apache.spark.sql.catalyst.expressions.CallMethodViaReflection"
    assert _objection(None, java, EXPRESSION) == FOREIGN_CODE


PROMPT = """
from contextlib import contextmanager
import dicom_etl.commands.query as verb
from dicom_etl.cli.main import cli
from dicom_etl.core.errors import StorageError

@contextmanager
def slow(settings, when):
    print("Spark is asked", flush=True)
    raise StorageError("Spark did not start")
    yield

verb.open_tables = slow
try:
    cli.main(["query"], standalone_mode=False)
except StorageError as error:
    print(error)
"""


def test_a_prompt_says_at_once_that_spark_starts() -> None:
    """The banner is on the terminal before anything is waited for."""
    screen = seen("-c", PROMPT, width=100, DICOM_ETL_CONFIG="/dev/null")
    assert screen.code == 0
    assert screen.lines == [
        "starting Spark … Statements end with ; or an empty line. Leave by exit or Ctrl-D.",
        "Spark is asked",
        "Spark did not start",
    ]
