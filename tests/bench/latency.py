"""An hourly window with the lake on Azurite, each of whose answers comes 30 ms later: `python -m bench.latency`.

`--src DIR` runs the package of another commit (its folder `src`) on the same libraries, for a before and after.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from dicom_emulator.options import EmulatorOptions
from dicom_emulator.serve import serve_in_thread
from support.azurite import address, azurite, settings_texts
from support.site import Site, text_at

_ENTRIES = 50
_HOURS = 4


@dataclass
class Proxy:
    """Passes each connection on to a port, answers after ``seconds``, and counts the requests."""

    target: int
    seconds: float
    port: int = 0
    requests: int = 0

    async def serve(self, ready: threading.Event) -> None:
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        ready.set()
        await server.serve_forever()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self.target)
        waiting = asyncio.Event()

        async def asked() -> None:
            while chunk := await reader.read(1 << 16):
                # A request has its method at the start of a chunk, or is the rest of one that began before.
                self.requests += chunk[:7].split(b" ")[0] in (b"GET", b"PUT", b"HEAD", b"POST", b"DELETE", b"PATCH")
                waiting.set()
                back.write(chunk)
                await back.drain()
            back.close()

        asking = asyncio.create_task(asked())
        while chunk := await there.read(1 << 16):
            if waiting.is_set():
                waiting.clear()
                await asyncio.sleep(self.seconds)
            writer.write(chunk)
            await writer.drain()
        asking.cancel()
        writer.close()


@contextmanager
def slow(target: int, seconds: float) -> Iterator[Proxy]:
    """A proxy before a local port; its thread ends with the process."""
    proxy, ready = Proxy(target, seconds), threading.Event()
    threading.Thread(target=lambda: asyncio.run(proxy.serve(ready)), daemon=True).start()
    ready.wait()
    yield proxy


def main() -> None:
    """Print seconds and requests to the storage of each of the hours, and of an empty one."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--src", type=Path, default=Path(__file__).parents[2] / "src")
    options.add_argument("--ms", type=float, default=30.0)
    chosen = options.parse_args()
    with (
        tempfile.TemporaryDirectory() as temporary,
        azurite(Path(temporary) / "azurite") as storage,
        slow(storage.port, chosen.ms / 1000) as proxy,
        serve_in_thread(EmulatorOptions(lake=Path(temporary) / "files")) as emulator,
    ):
        container = storage.container().container_name
        lake = address(container, "bench/lake")
        endpoint = f"http://127.0.0.1:{proxy.port}"
        site = Site(emulator, Path(temporary), settings_texts(endpoint), None, lake)
        _run(site, chosen.src, "init", check=False)  # a commit from before this verb makes the lake by itself
        measured = []
        for hour in range(8, 8 + _HOURS + 1):
            last = hour == 8 + _HOURS
            site.clock(hour + 0.1)
            for number in range(0 if last else _ENTRIES):
                site.create(f"1.{hour}", f"1.{hour}.1", f"1.{hour}.1.{number + 1}", name="Made^Up")
            site.clock(hour + 1)
            before, began = proxy.requests, time.monotonic()
            _run(site, chosen.src, "sync", "--start", text_at(hour), "--end", text_at(hour + 1))
            measured.append((time.monotonic() - began, proxy.requests - before))
        hours = measured[1:-1]
        times, requests = median(s for s, _ in hours), median(n for _, n in hours)
        print(f"window of {_ENTRIES}: {times:.1f} s, {requests} requests")  # noqa: T201
        print(f"empty window: {measured[-1][0]:.1f} s, {measured[-1][1]} requests", flush=True)  # noqa: T201


def _run(site: Site, src: Path, *words: str, check: bool = True) -> None:
    settings = [word for text in site.texts for word in ("--set", text)]
    environment = os.environ | {"PYTHONPATH": str(src)}
    subprocess.run(
        [sys.executable, "-m", "dicom_etl", *words, *settings],
        env=environment, check=check, cwd=site.folder, stdout=subprocess.DEVNULL,
        stderr=None if check else subprocess.DEVNULL,
    )  # fmt: skip


if __name__ == "__main__":
    main()
