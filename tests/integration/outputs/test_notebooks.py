"""The notebooks run as plain scripts on a small lake, and show what is in it."""

from __future__ import annotations

import os
import re
import runpy
import subprocess
import sys
import zlib
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pydicom
import pytest

from dicom_etl.commands.upload import upload
from support.site import Site, at, text_at, ticks_at

NOTEBOOKS = Path(__file__).parents[3] / "notebooks"
TEST_FILES = Path(pydicom.__file__).parent / "data" / "test_files"
FILES = ("CT_small.dcm", "MR_small.dcm", "rtplan.dcm", "JPEG2000.dcm", "examples_overlay.dcm", "reportsi.dcm")
PNG = b"\x89PNG\r\n\x1a\n"
# Modality, year, studies, instances; nulls first.
COUNTS = [
    ("SR", None, 1, 1),
    ("RTPLAN", 2003, 1, 1),
    ("CT", 2004, 1, 1),
    ("MR", 2004, 1, 1),
    ("NM", 2004, 1, 1),
    ("MR", 2005, 1, 1),
    ("US", 2021, 1, 1),
    ("US", 2024, 2, 3),
]


@pytest.fixture(scope="module")
def lake(make_shared_site: Callable[..., Site]) -> Site:
    """Six real files, and two patients with the same number: one of two studies, one of one. All of it synced."""
    site = make_shared_site("dicom.connections=1")
    kinds = [done.outcome.kind for done in upload(site.settings, [TEST_FILES / name for name in FILES])]
    assert len(kinds) == 6
    assert all(kind.startswith("stored") for kind in kinds)
    seven = {"id": "7", "issuer": "North", "name": "Seven^North", "modality": "US"}
    site.create("1.1", "1.1.1", "1.1.1.1", date="20240102", description="first", **seven)
    site.create("1.1", "1.1.2", "1.1.2.1", date="20240102", description="first", **seven)
    site.create("1.2", "1.2.1", "1.2.1.1", date="20240301", description="<second> & last", **seven)
    site.create("1.3", "1.3.1", "1.3.1.1", date="20210101", id="7", issuer="South", modality="US")
    site.service.clock.freeze(at(12), step=0)
    site.sync()
    (later,) = site.sync(text_at(11.25), text_at(11.5))
    assert (later.entries_read, later.covered_until) == (0, ticks_at(11.5))
    assert {name: len(rows) for name, rows in site.tables().items()} == {"instance": 10, "series": 10, "study": 9}
    assert site.tables() == site.expected()
    return site


def environment(site: Site, pictures: Path) -> dict[str, str]:
    """What a researcher sets."""
    return {
        "DICOM_ETL__LAKE__ROOT": str(site.root),
        "DICOM_ETL__FILES__ROOT": str(site.folder / "files"),
        "DICOM_ETL__DICOM__BASE_URL": site.emulator.base_url,
        "DICOM_ETL__DICOM__RETRY_SECONDS": "5",
        "NOTEBOOK_PICTURES": str(pictures),
        "MPLBACKEND": "agg",
    }


def script(site: Site, name: str, pictures: Path, **more: str) -> subprocess.CompletedProcess[str]:
    """A notebook, run as a script would be, in a folder without settings."""
    variables = {**os.environ, **environment(site, pictures), **more}
    command = [sys.executable, str(NOTEBOOKS / name)]
    return subprocess.run(command, env=variables, cwd=pictures, capture_output=True, text=True, check=False)


def bars(chart: Any) -> dict[tuple[str, str], float]:
    """The instances that each part of a bar stands for, by year and modality."""
    (axes,) = chart.axes
    years = [label.get_text() for label in axes.get_yticklabels()]
    parts = {
        (year, container.get_label()): part.get_width()
        for container in axes.containers
        for year, part in zip(years, container, strict=True)
    }
    return {place: width for place, width in parts.items() if width}


def test_a_first_look_shows_what_the_lake_holds(
    lake: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Counts by modality and year, the studies of one patient and not of the other, the tutorial's queries, a chart."""
    for name, value in environment(lake, tmp_path).items():
        monkeypatch.setenv(name, value)
    versions = {name: lake.version(name) for name in ("instance", "series", "study", "run")}

    shown: dict[str, Any] = runpy.run_path(str(NOTEBOOKS / "first_look.py"), init_globals={"spark": lake.spark})

    assert [tuple(row) for row in shown["by_modality_and_year"].collect()] == COUNTS
    # The other run has read a later range by hand: what it covers lies behind a gap.
    assert [tuple(row) for row in shown["freshness"].collect()] == [("2024-05-01 11:00:00 UTC", 2)]
    assert [tuple(row) for row in shown["patients_studies"].collect()] == [
        ("7", date(2024, 1, 2), "first", "US", 2, 2),
        ("7", date(2024, 3, 1), "<second> & last", "US", 1, 1),
    ]
    assert shown["everything"].count() == 10
    paths = {row.filePath for row in shown["file_paths"].collect()}
    assert len(paths) == 10
    assert all(path.startswith("AHDS/emulator/dicom/dicom/Microsoft.Default/") for path in paths)
    assert bars(shown["chart"]) == {
        (str(year or "no date"), modality): instances for modality, year, _, instances in COUNTS
    }
    assert (tmp_path / "instances_by_year.png").read_bytes().startswith(PNG)
    said = capsys.readouterr().out
    assert said.startswith("10 instances, 14 columns: partitionName, ")
    assert "|US      |2024|2      |3        |" in said
    assert {name: lake.version(name) for name in versions} == versions
    # The session that was given goes on, without the notebook's views.
    assert lake.spark is not None
    assert [row[0] for row in lake.spark.sql("SELECT 1").collect()] == [1]
    assert not lake.spark.catalog.tableExists("instance")


@pytest.mark.soak  # a JVM of its own
def test_a_first_look_is_a_script_too(lake: Site, tmp_path: Path) -> None:
    """Without a session it starts one and stops it, and says the same."""
    done = script(lake, "first_look.py", tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("10 instances, 14 columns: partitionName, ")
    for modality, year, studies, instances in COUNTS:
        cells = (f"{modality:8}", f"{year or 'NULL'}", f"{studies:<7}", f"{instances:<9}")
        assert f"|{'|'.join(cells)}|" in done.stdout
    assert (tmp_path / "instances_by_year.png").read_bytes().startswith(PNG)


def pixels_of(picture: bytes) -> tuple[int, int, bytes]:
    """Width, height and grey values of a PNG without filters, its checksums looked at."""
    assert picture.startswith(PNG)
    chunks, at_byte = {}, 8
    while at_byte < len(picture):
        length = int.from_bytes(picture[at_byte : at_byte + 4])
        kind, data = picture[at_byte + 4 : at_byte + 8], picture[at_byte + 8 : at_byte + 8 + length]
        assert int.from_bytes(picture[at_byte + 8 + length : at_byte + 12 + length]) == zlib.crc32(kind + data)
        chunks[kind], at_byte = data, at_byte + 12 + length
    width, height = int.from_bytes(chunks[b"IHDR"][:4]), int.from_bytes(chunks[b"IHDR"][4:8])
    lines = zlib.decompress(chunks[b"IDAT"])
    assert len(lines) == height * (width + 1)
    assert all(lines[line * (width + 1)] == 0 for line in range(height))
    return width, height, b"".join(lines[line * (width + 1) + 1 : (line + 1) * (width + 1)] for line in range(height))


CT_SAID = [
    "1 instances of modality CT",
    "CT of 2004-01-19: 128 x 128, 16 bits",
    "values from -896 to 1167, mean -119.1",
    "the picture is in CT.png",
]


@pytest.mark.parametrize("files", ["files", "no such folder"])
def test_a_row_becomes_a_picture(lake: Site, tmp_path: Path, files: str) -> None:
    """The CT's file is found by its row, in the lake or from the service, and drawn, without Spark."""
    before = lake.service.requests.count()
    done = script(lake, "from_row_to_pixels.py", tmp_path, DICOM_ETL__FILES__ROOT=str(lake.folder / files))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == CT_SAID
    asked = lake.service.requests.count() - before
    assert asked == (0 if files == "files" else 4)  # the header and the whole, each after the partitions
    width, height, grey = pixels_of((tmp_path / "CT.png").read_bytes())
    assert (width, height) == (128, 128)
    # By hand from the file's bytes: percentiles 1 and 99 are -850 and 673.17, these values -15, -33 and -53.
    assert list(grey[90 * 128 + 64 : 90 * 128 + 67]) == [139, 136, 133]
    assert (min(grey), max(grey)) == (0, 255)


def test_what_cannot_be_drawn_is_said(lake: Site, tmp_path: Path) -> None:
    """A modality whose only instance is compressed, or of which there is none, ends with a sentence and no picture."""
    for modality, count in (("NM", 1), ("XA", 0)):
        done = script(lake, "from_row_to_pixels.py", tmp_path, NOTEBOOK_MODALITY=modality)
        assert done.returncode == 1
        assert done.stdout == f"{count} instances of modality {modality}\n"
        assert done.stderr.startswith(f"no instance of modality {modality} can be drawn")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["first_look.py", "from_row_to_pixels.py"])
def test_a_notebook_is_jupytexts_percent_format(name: str) -> None:
    """A header that names the format; cells of Markdown and of code; every picture is the last value of its cell."""
    text = (NOTEBOOKS / name).read_text(encoding="utf-8")
    assert re.match(r"# ---\n# jupyter:\n#   jupytext:\n(?:#.*\n)*#       format_name: percent\n# ---\n", text)
    cells = re.split(r"^# %%", text, flags=re.MULTILINE)[1:]
    markdown = [cell for cell in cells if cell.startswith(" [markdown]\n")]
    assert 5 <= len(markdown) < len(cells)
    assert all(line.startswith("#") for cell in markdown for line in cell.strip().splitlines()[1:])
    assert "belongs to patients" in "".join(markdown)
