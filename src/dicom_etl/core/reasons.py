"""Every reason code of the table ``rejected``, with a sentence each (design/architecture.md: Rejects).

``landing.rows`` (key, state, action), ``landing.extract``, ``dicomweb.feed`` and ``lake.voids`` give them.
"""

from __future__ import annotations

METADATA_MISSING = "metadata-missing"
"""A Current entry came without metadata."""

METADATA_INVALID = "metadata-invalid"
"""The metadata is no DICOM JSON that can be parsed."""

METADATA_NOT_OBJECT = "metadata-not-object"
"""The metadata is JSON, but no object."""

METADATA_NOT_UTF8 = "metadata-not-utf8"
"""The metadata holds bytes that are not UTF-8."""

METADATA_UNAVAILABLE = "metadata-unavailable"
"""The service fails for this entry with metadata, and answers for it without."""

METADATA_NOT_TRIED = "metadata-not-tried"
"""The entry stood on a page that fails, after the run's requests for looking closer were used up."""

UID_MISSING = "uid-missing"
"""One of the three UIDs is missing or empty, so the entry has no key."""

STATE_UNKNOWN = "state-unknown"
"""The state is none of Current, Replaced and Deleted, or it is Current on a Delete."""

ACTION_UNKNOWN = "action-unknown"
"""The entry is Current, and its action is none of Create, Update and Delete."""

FIELD_NOT_TEXT = "field-not-text"
"""A field beside the metadata (a UID, action, state, filePath …) is no text; it is left out."""

UID_CHANGED = "uid-changed"
"""A void and no bad entry: the service proves that it has no instance of this key, which has other UIDs since."""

BEFORE_FOLD = frozenset((UID_MISSING, STATE_UNKNOWN, FIELD_NOT_TEXT))
"""An entry with one of these is a reject whatever follows it: its key or its state is not known.

An unknown action is none of them: the state alone says what Deleted and Replaced mean, and what is Current is judged by
the fold.
"""
