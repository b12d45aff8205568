"""Reads the feed with options by name, as tests choose them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dicom_etl.core.entry import Entry
from dicom_etl.core.timerange import Window
from dicom_etl.dicomweb.feed.reader import FeedReader, FeedReadResult, read_feed
from dicom_etl.remote.http.client import HttpClient


def read_with(
    client: HttpClient, window: Window, sink: Callable[[list[Entry]], None], **options: Any
) -> FeedReadResult:
    """What was read; ``options`` are fields of ``FeedReader`` and the limits of ``read_feed``."""
    limits = {name: options.pop(name) for name in ("max_entries", "grid_ticks") if name in options}
    return read_feed(FeedReader(client, **options), window, sink, **limits)
