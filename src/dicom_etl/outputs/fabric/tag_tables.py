"""Which tag tables there are to share: those that the output `columns` has made beside the shared tables."""

from __future__ import annotations

import logging
from collections.abc import Callable

from dicom_etl.core.errors import DicomEtlError
from dicom_etl.core.settings.model import Settings
from dicom_etl.lake.delta.table import open_table
from dicom_etl.remote.storage import Storage, storage_of

NAMES = ("instance_tags", "series_tags", "study_tags", "header_quality")

log = logging.getLogger(__name__)


def tag_tables(settings: Settings, storage: Callable[[Settings], Storage] = storage_of) -> tuple[str, ...]:
    """The names of the tag tables that lie in the folder of the lake.

    Tables that lie elsewhere have rights of their own and are not looked for. Where this identity may not look into the
    storage, or cannot now, there are none, and a warning says so: the other shortcuts do not need that right.
    """
    root = settings.lake.root.rstrip("/")
    try:
        account = storage(settings)
        places = {name: f"{root}/{name}" for name in NAMES}
        return tuple(name for name, place in places.items() if open_table(place, account.delta(place)) is not None)
    except DicomEtlError as error:
        log.warning(
            "the tag tables get no shortcut, since whether there are any cannot be seen: give this identity the role "
            "Storage Blob Data Reader on the lake",
            extra={"error": type(error).__name__},
        )
        return ()
