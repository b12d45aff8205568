"""The story of `support.story`, told once in the process and looked at by many tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from support.site import Site, at, text_at
from support.story import NoSpark, Story, make_changes, make_creates


@pytest.fixture(scope="session")
def story(_make_site: Callable[..., Site], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    """Creates of every kind; then updates, deletes on three levels and re-creates; then old windows again."""
    with ExitStack() as stack:
        site = _make_site(stack, tmp_path_factory.mktemp("story"))
        told = Story(site)
        make_creates(site)
        told.tell("first", (0, 11), now=at(12))
        make_changes(site)
        told.tell("second", (11, 13), now=at(14))
        told.tell("nothing due", (0, 0), now=at(14))
        told.tell("old range again", (0, 11), start=text_at(0), end=text_at(11), now=at(14))
        told.tell("empty window", (13, 14), now=at(15), spark=NoSpark())
        yield told


@pytest.fixture
def copy(story: Story, tmp_path: Path) -> Iterator[Site]:
    """A copy of the story's lake to be damaged, before the same service, which the test must leave as it is."""
    last = story.site.service.next_sequence
    yield story.site.copied(tmp_path)
    assert story.site.service.next_sequence == last, "this test changed the service that all tests of the story share"
