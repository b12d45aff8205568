"""How Spark is told where a table lies."""

from __future__ import annotations

from dicom_etl.address import is_remote


def location(place: str) -> str:
    """The place as Hadoop takes it: a folder of this machine names its file system, an address is one already.

    A plain path would be looked for in ``fs.defaultFS``, which on a cluster or an edge node is another file system
    than the disk that delta-rs takes. Nothing is encoded: Hadoop takes ``%20`` for three characters of a name. And
    ``file:`` without slashes: with three, Delta's CREATE TABLE finds two different paths (tried with 4.4.0).
    """
    return place if is_remote(place) else f"file:{place}"


def sql_name(place: str) -> str:
    """The table that lies there, as SQL names it."""
    path = location(place).replace("`", "``")
    return f"delta.`{path}`"
