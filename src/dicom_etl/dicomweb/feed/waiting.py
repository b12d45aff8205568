"""The pages that were read and are not taken yet, bounded by bytes (design/architecture.md: Reading the feed)."""

from __future__ import annotations

from collections import deque

from dicom_etl.dicomweb.feed.page import Page

MOST_BYTES = 64 << 20


class Waiting:
    """A queue of pages; not locked. ``most_bytes`` is how much waited at most."""

    def __init__(self, most_pages: int) -> None:
        self.most_bytes = 0
        self._pages: deque[Page] = deque()
        self._bytes = 0
        self._most_pages = most_pages

    def __len__(self) -> int:
        return len(self._pages)

    def has_room(self, page: Page) -> bool:
        """Whether the page may be put: the only one always."""
        # In pages, too: without headers as many bytes would be entries by the hundred thousand.
        few = len(self._pages) < self._most_pages and self._bytes + page.size_bytes <= MOST_BYTES
        return few or not self._pages

    def put(self, page: Page) -> None:
        self._pages.append(page)
        self._bytes += page.size_bytes
        self.most_bytes = max(self.most_bytes, self._bytes)

    def take(self) -> Page:
        """The oldest. Raises IndexError when none waits."""
        page = self._pages.popleft()
        self._bytes -= page.size_bytes
        return page
