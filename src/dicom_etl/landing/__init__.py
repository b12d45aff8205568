"""Entry bytes to typed rows, to Parquet files, to one commit of ``change`` (architecture §2, §5.5)."""

from __future__ import annotations

from dicom_etl.landing.commit import commit_change
from dicom_etl.landing.files import Landed, Landing
from dicom_etl.landing.highest import highest_landed
from dicom_etl.landing.rows import Unusable
from dicom_etl.landing.schema import CHANGE_PROPERTIES, change_schema

__all__ = [
    "CHANGE_PROPERTIES",
    "Landed",
    "Landing",
    "Unusable",
    "change_schema",
    "commit_change",
    "highest_landed",
]
