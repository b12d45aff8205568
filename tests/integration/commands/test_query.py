"""What `query` takes and what it refuses, by the parsed and the analysed plan (ADR 12)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyspark
import pytest
from pyspark.sql import SparkSession

from dicom_etl.commands import query
from dicom_etl.commands.query import read_only
from dicom_etl.core.errors import UsageError
from dicom_etl.tables import query_gate
from dicom_etl.tables.engine.session import cluster_session
from support.broken import Mutant, assert_caught, checks

# A program that leaves a file behind, in place of one that does worse.
SCRIPT = "SELECT max(a) AS a FROM (SELECT transform(1) USING 'touch {file}; cat' AS (a string))"
WINDOW = "SELECT count(*) OVER w AS n FROM instance WINDOW w AS "

HIDDEN = {
    "the partitions of a named window": "{window} (PARTITION BY ({script}))",
    "the order of a named window": "{window} (ORDER BY ({script}))",
    "a named window in a WITH": "WITH t AS ({window} (PARTITION BY ({script}))) SELECT * FROM t",
    "a named window in an EXISTS": "SELECT 1 WHERE EXISTS ({window} (ORDER BY ({script})))",
    "a named window of which a plan is asked": "EXPLAIN EXTENDED {window} (PARTITION BY ({script}))",
    "a named window of which the columns are asked": "DESCRIBE QUERY {window} (PARTITION BY ({script}))",
    # Spark asks for this time while it analyses the text.
    "a time in a named window": "{window} (PARTITION BY (SELECT max(id) FROM delta.`{table}`"
    " TIMESTAMP AS OF ({script})))",
    "a window of its own": "SELECT count(*) OVER (PARTITION BY ({script})) FROM instance",
    "a WITH": "WITH t AS ({script}) SELECT * FROM t",
    "an EXISTS": "SELECT 1 WHERE EXISTS ({script})",
    "a plan that is asked for": "EXPLAIN {script}",
    "the filter of an aggregate": "SELECT count(*) FILTER (WHERE EXISTS ({script})) FROM instance",
    "the condition of a join": "SELECT 1 FROM instance i JOIN series s ON i.uid = ({script})",
    "a lateral subquery": "SELECT * FROM instance, LATERAL ({script})",
    "a generator": "SELECT * FROM instance LATERAL VIEW explode(array(({script}))) e AS x",
    "the second half of a union": "SELECT '1' UNION {script}",
    "the argument of a hidden function": "SELECT IDENTIFIER('m' || 'ax')(({script}))",
    "a view of all sessions": "SELECT * FROM global_temp.scripted",
    "a stored view": "WITH t AS (SELECT * FROM default.scripted) SELECT * FROM t",
    "a stored view of which a plan is asked": "EXPLAIN SELECT * FROM default.scripted",
    "a stored view with Java": "SELECT * FROM default.reflected",
}


def written(sql: str, file: Path, table: str = "") -> str:
    return sql.replace("{window}", WINDOW).replace("{script}", SCRIPT).format(file=file, table=table)


@pytest.fixture(scope="module")
def session(spark: SparkSession) -> Iterator[SparkSession]:
    """A session in which a query may be asked: two small views, and a table whose texts have one length."""
    session = cluster_session(spark)
    row = "VALUES ('1.1', 1, array(1, 2), TIMESTAMP '2024-05-01 08:00:00') AS t(uid, n, tags, at)"
    session.sql(row).createTempView("instance")
    session.sql("SELECT '1.1' AS uid, 2 AS n, 'HEAD' AS body").createTempView("series")
    session.sql("CREATE TABLE fixed (code CHAR(4)) USING parquet")
    yield session
    session.sql("DROP TABLE fixed")


@pytest.fixture(scope="module")
def table(session: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The place of a Delta table."""
    place = str(tmp_path_factory.mktemp("table"))
    session.range(1).write.format("delta").mode("overwrite").save(place)
    return place


@pytest.fixture
def file(session: SparkSession, tmp_path: Path) -> Iterator[Path]:
    """The file that a script would make; views that hold such scripts are there, made by somebody else."""
    file = tmp_path / "written"
    session.sql(f"CREATE OR REPLACE GLOBAL TEMP VIEW scripted AS {SCRIPT.format(file=file)}")
    session.sql(f"CREATE OR REPLACE VIEW default.scripted AS {SCRIPT.format(file=file)}")
    session.sql("CREATE OR REPLACE VIEW default.reflected AS SELECT reflect('java.lang.System', 'lineSeparator') AS a")
    yield file
    for view in ("global_temp.scripted", "default.scripted", "default.reflected"):
        session.sql(f"DROP VIEW {view}")


@pytest.mark.parametrize("sql", HIDDEN.values(), ids=HIDDEN.keys())
def test_a_hidden_script_is_refused_and_leaves_no_file(session: SparkSession, table: str, file: Path, sql: str) -> None:
    """64 in one line, wherever it is, and before anything of it runs."""
    statement = written(sql, file, table)
    with pytest.raises(UsageError, match=r"^query: only ") as caught:
        read_only(session, statement).collect()
    assert len(str(caught.value).splitlines()) == 1
    assert not file.exists()


def since(version: str, sql: str) -> Any:
    """A query of syntax that came with a version of Spark."""
    older = tuple(map(int, pyspark.__version__.split(".")[:2])) < tuple(map(int, version.split(".")))
    return pytest.param(sql, marks=pytest.mark.skipif(older, reason=f"came with Spark {version}"))


ORDINARY = [
    "SELECT i.*, s.body FROM instance i LEFT JOIN series s USING (uid)",
    "SELECT * FROM instance NATURAL JOIN series",
    "SELECT * FROM instance i LEFT ANTI JOIN series s ON i.uid = s.uid CROSS JOIN series",
    "WITH a(x) AS (SELECT 1), b AS (WITH c AS (SELECT * FROM a) SELECT * FROM c) SELECT * FROM a JOIN b USING (x)",
    since("4.1", "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r WHERE n < 5) SELECT * FROM r"),
    "SELECT rank() OVER (PARTITION BY uid ORDER BY n), lag(n) OVER w FROM instance WINDOW w AS (ORDER BY n)",
    "SELECT sum(n) OVER (ORDER BY n ROWS BETWEEN 1 PRECEDING AND CURRENT ROW) FROM instance",
    since("4.2", "SELECT *, rank() OVER (ORDER BY n) AS r FROM instance QUALIFY r = 1"),
    "SELECT * FROM instance LATERAL VIEW OUTER posexplode(tags) e AS p, x",
    "SELECT * FROM instance i, LATERAL (SELECT max(s.n) AS m FROM series s WHERE s.uid = i.uid), LATERAL explode(tags)",
    "SELECT * FROM (SELECT uid, n FROM instance) PIVOT (sum(n) FOR uid IN ('1.1' AS a, '1.2' AS b))",
    "SELECT * FROM (SELECT n, n + 1 AS b FROM instance) UNPIVOT (v FOR k IN (n, b))",
    "SELECT transform(tags, x -> x + 1), aggregate(tags, 0, (a, x) -> a + x), exists(tags, x -> x = 1) FROM instance",
    "SELECT uid, count(*) FILTER (WHERE n > 0), count(DISTINCT n), percentile_approx(n, 0.5), max_by(n, n), median(n),"
    " collect_set(n) FROM instance GROUP BY uid HAVING count(*) > 0 ORDER BY ALL LIMIT 3 OFFSET 1",
    since("4.0", "SELECT listagg(uid, ',') WITHIN GROUP (ORDER BY uid) FROM instance"),
    "SELECT uid, grouping(uid), grouping_id(), count(*) FROM instance GROUP BY GROUPING SETS ((uid), ())",
    "SELECT uid, n, count(*) FROM instance GROUP BY CUBE (uid, n) UNION SELECT uid, n, 1 FROM instance GROUP BY ALL",
    "SELECT (SELECT max(n) FROM series), n IN (SELECT n FROM series), EXISTS (SELECT 1 FROM series s WHERE s.n = i.n)"
    " FROM instance i WHERE n >= (SELECT min(n) FROM series s WHERE s.uid = i.uid) AND (uid, n)"
    " NOT IN (SELECT uid, 9 FROM series)",
    "VALUES (1, 'a'), (2, 'b')",
    "SELECT * FROM VALUES (1, current_date()), (2, current_date()) AS t(a, b) JOIN range(3) AS r(a) USING (a)",
    "SELECT * FROM explode(array(1, 2)), inline(array(struct(1, 'a'))), json_tuple('{\"a\":1}', 'a')",
    "SELECT /*+ BROADCAST(s), REPARTITION(2) */ * FROM instance i JOIN series s USING (uid)",
    "SELECT /*+ COALESCE(1), REBALANCE(n) */ * FROM instance DISTRIBUTE BY n SORT BY n",
    "(SELECT n FROM instance EXCEPT ALL SELECT 5) INTERSECT (SELECT n FROM instance MINUS SELECT 6)",
    "SELECT * FROM instance TABLESAMPLE (100 PERCENT) REPEATABLE (1) ORDER BY n LIMIT ALL",
    "TABLE instance",
    "FROM instance SELECT DISTINCT uid",
    since("4.0", "FROM instance |> WHERE n > 0 |> EXTEND n + 1 AS y |> DROP n |> AGGREGATE count(*) AS c GROUP BY uid"),
    "SELECT window(at, '1 day'), count(*) FROM instance GROUP BY window(at, '1 day')",
    "SELECT to_date('20240131', 'yyyyMMdd'), extract(YEAR FROM at), at + INTERVAL 1 DAY, nvl(n, 2), luhn_check('1'),"
    " split_part('a.b', '.', 1), parse_url('http://a/b', 'HOST'), uuid(), aes_encrypt('a', '0000111122223333'),"
    " CASE WHEN n > 0 THEN cast(n AS string) END, from_json('{}', 'a INT'), mask(uid), input_file_name() FROM instance",
    since("4.1", "SELECT parse_json('{\"a\":1}'):a, is_variant_null(parse_json('null')), 'a' COLLATE UNICODE = 'A'"),
    "SELECT * FROM fixed WHERE code = 'CT'",
    "EXPLAIN FORMATTED WITH a AS (SELECT 1) SELECT * FROM a",
    "EXPLAIN SHOW TABLES",
    "DESCRIBE QUERY SELECT * FROM instance",
    "DESCRIBE EXTENDED instance",
    "DESCRIBE instance uid",
    "DESCRIBE FUNCTION EXTENDED upper",
    "DESCRIBE DATABASE default",
    since("4.0", "DESCRIBE TABLE EXTENDED instance AS JSON"),
    "SHOW TABLES IN default",
    "SHOW TABLE EXTENDED LIKE 'i*'",
    "SHOW COLUMNS IN instance",
    "SHOW FUNCTIONS LIKE 'up*'",
    "SHOW NAMESPACES",
    "SHOW CURRENT NAMESPACE",
    pytest.param(" UNION ALL ".join(["SELECT 1 AS n"] * 490), id="490 queries, one after another"),
]  # fmt: skip


@pytest.mark.parametrize("sql", ORDINARY)
def test_an_ordinary_query_is_taken(session: SparkSession, sql: str) -> None:
    """Whatever Spark makes of it, on each Spark that we support."""
    assert read_only(session, sql).columns


@pytest.mark.parametrize("what", ["DESCRIBE DETAIL {}", "DESCRIBE HISTORY {}", "SELECT * FROM {} VERSION AS OF 0"])
def test_a_delta_table_is_described_and_read_as_it_was(session: SparkSession, table: str, what: str) -> None:
    assert len(read_only(session, what.format(f"delta.`{table}`")).collect()) == 1


def test_a_function_of_the_session_is_refused(session: SparkSession) -> None:
    """Python that somebody registered there is somebody else's code."""
    session.udf.register("theirs", lambda text: text, "string")
    with pytest.raises(UsageError, match="only Spark's own functions"):
        read_only(session, "SELECT theirs(uid) FROM instance")


# -- the broken twins ----------------------------------------------------------------------------------------


def check_what_is_judged(session: SparkSession) -> None:
    """A script in a time in a window, one in a view, and Java."""
    judge = query_gate.Judge(session)
    time = written(HIDDEN["a time in a named window"], Path("/dev/null"), "/nowhere")
    parser: Any = session._jsparkSession.sessionState().sqlParser()
    assert judge.objection(parser.parsePlan(time)), "whatever runs in the analysis is found before it"
    session.sql(f"CREATE OR REPLACE TEMP VIEW scripted AS {SCRIPT.format(file='/dev/null')}")
    assert refused(session, "SELECT * FROM scripted"), "the text of a view is judged"
    assert refused(session, "SELECT reflect('java.lang.System', 'lineSeparator')"), "a function that calls Java is not"


def refused(session: SparkSession, sql: str) -> bool:
    try:
        read_only(session, sql)
    except UsageError:
        return True
    return False


def _by_sparks_own_lists(judge: query_gate.Judge, found: Any) -> Iterator[tuple[Any, str, str]]:
    """The walk as it was: what Spark says lies below a plan."""
    name = query_gate._name(found)
    yield found, name, judge._sort(found, name)
    for below in (found.children(), found.innerChildren() if hasattr(found, "innerChildren") else found.children()):
        for one in query_gate._each(below.iterator()):
            yield from _by_sparks_own_lists(judge, one)


MUTANTS = [
    Mutant("analysed", check_what_is_judged, query, "_analysed", lambda _spark, plan: plan, "the text of a view"),
    Mutant(
        "one whitelist",
        check_what_is_judged,
        query_gate,
        "_READS",
        query_gate._READS | {"ScriptTransformation"},
        "the text of a view",
    ),
    Mutant("Java", check_what_is_judged, query_gate, "_FOREIGN", re.compile("(?!)"), "a function that calls Java"),
    Mutant(
        "every field", check_what_is_judged, query_gate.Judge, "_trees", _by_sparks_own_lists, "whatever runs in the"
    ),
]


@pytest.mark.parametrize("check", checks(MUTANTS), ids=lambda check: check.__name__)
def test_the_real_judge_passes(session: SparkSession, check: Callable[[SparkSession], None]) -> None:
    check(session)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.rule)
def test_the_broken_twin_is_caught(session: SparkSession, mutant: Mutant) -> None:
    assert_caught(mutant, session)
