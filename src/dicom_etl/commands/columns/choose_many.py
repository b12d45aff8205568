"""Chooses many tags at once: all that the archive's headers have, or those that the service searches."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from pyspark.sql import SparkSession

from dicom_etl.commands.columns.choose import ListedColumn, add, listed
from dicom_etl.commands.columns.mirrored import mirrored_text
from dicom_etl.core.errors import UsageError
from dicom_etl.core.progress import NullProgress, Progress
from dicom_etl.core.settings.model import Settings
from dicom_etl.dicomweb.connect import connect
from dicom_etl.dicomweb.query_tags import extended_query_tags
from dicom_etl.lake.open import existing_lake, refuse_incomplete, refuse_restored
from dicom_etl.lake.past import last_run
from dicom_etl.lake.statistics import shared_rows
from dicom_etl.outputs.columns.design import column_of
from dicom_etl.outputs.columns.seen import tags_of_headers
from dicom_etl.outputs.columns.sets import MOST_COLUMNS, all_tags
from dicom_etl.remote.identity import dicom_tokens
from dicom_etl.tables.engine.session import Engine, whole_tables_session
from dicom_etl.tables.merge import read_table
from dicom_etl.tables.tag_headers import current_entries, landed_entries
from dicom_etl.tables.tag_seen import tags_seen


@dataclass(frozen=True, slots=True)
class Mirrored:
    """The columns of the service's tags, and the tags that were left out: what identifies, and what is no column."""

    columns: list[ListedColumn]
    identifying: tuple[str, ...]
    impossible: tuple[str, ...]


def add_all(
    settings: Settings,
    *,
    identifying: bool = False,
    level: str | None = None,
    spark: SparkSession | None = None,
    progress: Progress | None = None,
) -> list[ListedColumn]:
    """The columns that were added: standard attributes outside sequences that living instances' headers have.

    The most frequent ones, until the tables have 1 000; those that identify a patient only if ``identifying``. All
    headers are read. Raises ConfigurationError when there is no lake.
    """
    snapshot = existing_lake(settings)
    refuse_incomplete(snapshot)
    refuse_restored(snapshot)
    run = last_run(snapshot.runs())
    progress = progress or NullProgress()
    with Engine(settings.spark, spark, snapshot.lake.paths) as engine:
        progress.step("start Spark")
        session = whole_tables_session(engine.session(shared_rows(snapshot)))
        progress.step("read the headers")
        changes = read_table(session, snapshot.lake.path("change"), run.change_version)
        live = read_table(session, snapshot.lake.path("instance"), run.instance_version)
        seen = tags_seen(current_entries(landed_entries(changes, 0, run.run_id)), live, tags_of_headers)
    columns = [one.column for one in listed(settings)]
    wanted = {column.path for column in columns}
    paths = [path for path in all_tags(seen, identifying=identifying) if path not in wanted]
    # Each column of series and study has the number of its values beside it.
    most = MOST_COLUMNS if level in (None, "instance") else MOST_COLUMNS // 2
    room = max(0, most - len(columns))
    frequent = sorted(paths, key=lambda path: -seen[path.steps[0].tag])[:room]
    texts = [path.text for path in paths if path in set(frequent)]
    texts = _with_free_names(texts, {column.name.lower() for column in columns})
    return add(settings, [f"{text} level={level}" if level else text for text in texts], identifying=True)


def mirror(settings: Settings, *, identifying: bool = False) -> Mirrored:
    """The columns of the service's extended query tags, as they are listed from now on, and what was left out.

    Raises as ``extended_query_tags`` and ``add`` do.
    """
    with connect(settings.dicom, dicom_tokens(settings.dicom)) as client:
        tags = extended_query_tags(client)
    texts: list[str] = []
    told: list[str] = []
    impossible: list[str] = []
    for tag in tags:
        try:
            column = column_of(text := mirrored_text(tag))
        except UsageError:
            impossible.append(tag.path)
            continue
        (texts if identifying or not column.identifying else told).append(text)
    return Mirrored(
        add(settings, texts, identifying=True) if texts else [],
        tuple(column_of(text).path.text for text in told),
        tuple(impossible),
    )


def _with_free_names(texts: Iterable[str], taken: Collection[str]) -> list[str]:
    """The texts whose column's name nobody has: a column that was named by hand may have it."""
    return [text for text in texts if column_of(text).name.lower() not in taken]
