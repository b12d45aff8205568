"""Pages that are done with leave the process, in processes of their own."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

# Blocks as large as pages of the feed, freed in such an order that the heap cannot shrink behind them.
_PAGES = """
import sys
from pathlib import Path
from dicom_etl.remote.http.malloc import return_large_blocks
if sys.argv[1] == "returned":
    return_large_blocks()
    return_large_blocks()
resident = lambda: int(Path("/proc/self/statm").read_text().split()[1]) * 4096 >> 20
for size in (4, 8, 16):
    block = bytearray(size << 20)
    del block
before = resident()
pages = [bytearray(b"x") * (2 << 20) for _ in range(80)]
held = resident()
del pages[:-1]
print(held - before, resident() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the allocator of another C library")
def test_freed_pages_go_back_to_the_system() -> None:
    """160 MiB of pages: all but the last are gone with the threshold where it was, none without (the broken twin)."""
    figures = {}
    for how in ("returned", "kept"):
        done = subprocess.run([sys.executable, "-c", _PAGES, how], capture_output=True, text=True, check=True)
        figures[how] = [int(figure) for figure in done.stdout.split()]
    assert min(held for held, _ in figures.values()) >= 150
    assert figures["returned"][1] <= 10
    assert figures["kept"][1] >= 150
