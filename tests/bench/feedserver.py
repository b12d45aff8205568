"""A process that serves the benchmark's feed and costs next to nothing: `python -m bench.feedserver --entries N`.

It is no emulator: ready-made bytes are joined, nothing is checked that our client does not do wrong, and bodies are
never compressed (identity, whatever is accepted): what is patched cannot be compressed beforehand.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

from bench.entries import page
from bench.feed import HEADER_BYTES, WINDOW_ENTRIES, Feed
from bench.search import Search
from dicom_emulator.state.timestamps import MAX_TICKS, http_date, parse_time

_REASONS = {200: "OK", 204: "No Content", 400: "Bad Request", 404: "Not Found"}
Answer = tuple[int, bytes]


@dataclass
class Counters:
    """What was asked for since the feed was last chosen; control requests are not counted."""

    requests: dict[str, int] = field(default_factory=dict)
    entries: int = 0
    bytes_sent: int = 0
    largest_offset: int = 0
    largest_search_offset: int = 0
    under_way: int = 0
    most_under_way: int = 0

    def as_json(self) -> dict[str, Any]:
        return {
            "requests": self.requests,
            "entries": self.entries,
            "bytesSent": self.bytes_sent,
            "largestOffset": self.largest_offset,
            "largestSearchOffset": self.largest_search_offset,
            "mostUnderWay": self.most_under_way,
        }


class State:
    """The feed that is served, how long an answer takes, and what was asked for."""

    def __init__(self, feed: Feed, latency_seconds: float) -> None:
        self.feed = feed
        self.search = Search(feed)
        self.latency_seconds = latency_seconds
        self.counters = Counters()

    def answer(self, target: str) -> Answer:
        """The status and the body for a request's target."""
        address = urlsplit(target)
        query = {name.lower(): values[-1] for name, values in parse_qs(address.query).items()}
        if address.path.startswith("/bench/"):
            return self._control(address.path, query)
        try:
            if address.path.startswith(("/v2/studies", "/v2/instances")):
                return self._search(address.path, query)
            return self._feed(address.path, query)
        except (KeyError, ValueError):
            return 400, b""

    def _search(self, path: str, query: dict[str, str]) -> Answer:
        # Of a study each has a path of its own.
        self._count("/".join("*" if "." in part else part for part in path.split("/")))
        offset = int(query.get("offset", "0"))
        self.counters.largest_search_offset = max(self.counters.largest_search_offset, offset)
        return self.search.answer(path.removeprefix("/v2"), query)

    def _count(self, route: str) -> None:
        requests = self.counters.requests
        requests[route] = requests.get(route, 0) + 1

    def _feed(self, path: str, query: dict[str, str]) -> Answer:
        self._count(path)
        metadata = query.get("includemetadata", "true").lower() == "true"
        if path != "/v2/changefeed":
            # No partitions: the feature is off.
            return 400 if path == "/v2/partitions" else 404, b""
        places = self._by_time(query)
        body = page(self.feed, places, metadata=metadata)
        self.counters.entries += len(places)
        self.counters.bytes_sent += len(body)
        return 200, body

    def _by_time(self, query: dict[str, str]) -> range:
        start = parse_time(query["starttime"]) if "starttime" in query else 0
        end = parse_time(query["endtime"]) if "endtime" in query else MAX_TICKS
        offset, limit = int(query.get("offset", "0")), int(query.get("limit", "100"))
        if end <= start or offset < 0 or not 1 <= limit <= 200:
            raise ValueError(query)
        self.counters.largest_offset = max(self.counters.largest_offset, offset)
        first, last = self.feed.place(start) + offset, self.feed.place(end)
        return range(first, max(first, min(last, first + limit)))

    def _control(self, path: str, query: dict[str, str]) -> Answer:
        if path == "/bench/counters":
            return 200, json.dumps(self.counters.as_json()).encode()
        if path != "/bench/feed":
            return 404, b""
        windows = [kind for kind in query.get("windows", "").split(",") if kind]
        per_window = int(query.get("perwindow", WINDOW_ENTRIES))
        header_bytes = int(query.get("headerbytes", HEADER_BYTES))
        self.feed = Feed(int(query.get("entries", self.feed.entries)), windows, per_window, header_bytes)
        self.search = Search(self.feed)
        self.latency_seconds = int(query.get("latencyms", "0")) / 1000
        self.counters = Counters()
        return 200, b"{}"


class Connection(asyncio.Protocol):
    """HTTP/1.1 with keep-alive, as much of it as a GET needs."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._received = b""
        self._tasks: set[asyncio.Task[None]] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        while b"\r\n\r\n" in self._received:
            head, _, self._received = self._received.partition(b"\r\n\r\n")
            target = head.split(b" ", 2)[1].decode("ascii")
            if self._state.latency_seconds and not target.startswith("/bench/"):
                task = asyncio.get_running_loop().create_task(self._send_late(target))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            else:
                self._send(target)

    async def _send_late(self, target: str) -> None:
        counters = self._state.counters
        counters.under_way += 1
        counters.most_under_way = max(counters.most_under_way, counters.under_way)
        await asyncio.sleep(self._state.latency_seconds)
        counters.under_way -= 1
        self._send(target)

    def _send(self, target: str) -> None:
        status, body = self._state.answer(target)
        self._transport.write(
            (
                f"HTTP/1.1 {status} {_REASONS[status]}\r\nDate: {http_date(self._state.feed.now)}\r\n"
                f"Content-Type: application/json; charset=utf-8\r\nContent-Length: {len(body)}\r\n\r\n"
            ).encode("ascii")
        )
        self._transport.write(body)


async def listen(state: State, port: int = 0) -> asyncio.Server:
    """The server, listening on loopback; port 0 takes a free one."""
    return await asyncio.get_running_loop().create_server(lambda: Connection(state), "127.0.0.1", port)


async def _serve(state: State, port: int) -> None:
    server = await listen(state, port)
    page(state.feed, range(min(1, len(state.feed))))  # the headers are read now, and not within the first request
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    async with server:
        # Whoever started it holds its standard input: when they are gone, so is the server.
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--entries", type=int, default=100_000, help="creates before the windows")
    options.add_argument("--windows", default="", help="kinds of the hourly windows after them, by commas")
    options.add_argument("--latency-ms", type=int, default=0, help="how long every answer takes")
    options.add_argument("--port", type=int, default=0)
    given = options.parse_args()
    windows = [kind for kind in given.windows.split(",") if kind]
    asyncio.run(_serve(State(Feed(given.entries, windows), given.latency_ms / 1000), given.port))


if __name__ == "__main__":
    main()
