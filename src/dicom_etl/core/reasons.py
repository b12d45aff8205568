"""Why the metadata of an entry could not be had: the codes of ``Entry.unreadable`` (design/architecture.md: Rejects).

An entry with such a code has no metadata; the page that brought it goes on.
"""

from __future__ import annotations

METADATA_NOT_OBJECT = "metadata-not-object"
"""The metadata is JSON, but no object."""

METADATA_NOT_UTF8 = "metadata-not-utf8"
"""The metadata holds bytes that are not UTF-8."""

FIELD_NOT_TEXT = "field-not-text"
"""A field beside the metadata (a UID, action, state, filePath …) is no text; it is left out."""

METADATA_UNAVAILABLE = "metadata-unavailable"
"""The service fails for this entry with metadata, and answers for it without."""

METADATA_NOT_TRIED = "metadata-not-tried"
"""It stood on a page that fails, after the run's requests for looking closer were used up."""
