"""Asks many questions over several connections, and holds no more answers than connections.

design/architecture.md: Reading the feed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import islice
from threading import Event
from typing import TypeVar

from dicom_etl.remote.http.retry import RetryPolicy

T = TypeVar("T")
R = TypeVar("R")


def side_by_side(
    ask: Callable[[T, RetryPolicy], tuple[R, Iterable[T]]], items: Iterable[T], *, connections: int
) -> Iterator[R]:
    """The results of ``ask`` in any order; what it returns besides is asked next.

    ``items`` are taken as they are needed, in the caller's thread. Up to two results for each connection exist at a
    time. An error of ``ask`` is raised here; then, and when the caller stops early, no further request is sent.
    """
    stop = Event()
    retry_policy = RetryPolicy(cancelled=stop.is_set)
    rest = iter(items)
    follow_ups: list[T] = []
    under_way: set[Future[tuple[R, Iterable[T]]]] = set()
    pool = ThreadPoolExecutor(connections, thread_name_prefix="search")
    try:
        while True:
            # What was found first: else the questions still to be asked would pile up.
            while len(under_way) < 2 * connections and (
                next_one := [follow_ups.pop()] if follow_ups else list(islice(rest, 1))
            ):
                under_way.add(pool.submit(ask, next_one[0], retry_policy))
            if not under_way:
                return
            done, under_way = wait(under_way, return_when=FIRST_COMPLETED)
            while done:
                result, more = done.pop().result()
                follow_ups.extend(more)
                yield result
    finally:
        stop.set()
        pool.shutdown(wait=False, cancel_futures=True)
