"""Whether the service still serves what this lake has read: a service made again or restored starts over.

design/architecture.md: Identity of a lake.
"""

from __future__ import annotations

from dicom_etl.core.errors import DataError
from dicom_etl.dicomweb.feed.reader import read_at
from dicom_etl.lake import ledger
from dicom_etl.lake.high_water_mark import highest_landed
from dicom_etl.lake.snapshot import LakeSnapshot
from dicom_etl.remote.http.client import HttpClient


def feed_went_back(client: HttpClient, snapshot: LakeSnapshot) -> int | None:
    """The highest sequence that was landed since the last rebuild, when it is no longer served at its time; else None.

    A service that starts its sequences again would be ignored by the guard by sequence; one that was restored to an
    earlier point has lost what the lake holds. After a rebuild the tables are those of the service as it is now.
    """
    change = snapshot.get("change")
    if change is None:
        return None
    highest = highest_landed(change, since_run=ledger.last_rebuild(snapshot.runs()))
    if highest is None:
        return None
    sequence, ticks = highest
    served = read_at(client, ticks, [sequence])
    return None if any(entry.sequence == sequence for entry in served) else sequence


def refuse_reset_feed(client: HttpClient, snapshot: LakeSnapshot) -> None:
    """Raise DataError when the highest entry that this lake has read is no longer served."""
    sequence = feed_went_back(client, snapshot)
    if sequence is not None:
        raise went_back_error(sequence)


def went_back_error(sequence: int) -> DataError:
    """What to say of an entry that this lake has read and that is no longer served."""
    return DataError(
        f"the feed has gone back: entry {sequence}, which this lake has read, is no longer served. Was the "
        "service restored to an earlier point? Then run dicom-etl repair --rebuild, which makes the tables equal "
        "to it, and removes what it has lost. Was it created again? Then give it a new lake (lake.root)"
    )
