"""The notebooks run as plain scripts on a small lake, and show what is in it."""

from __future__ import annotations

import os
import re
import runpy
import shutil
import subprocess
import sys
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.pixels import get_decoder
from pydicom.uid import JPEG2000Lossless, JPEGBaseline8Bit, JPEGLSLossless, JPEGLSNearLossless

from dicom_etl.commands.upload import upload
from support.site import Site, at, text_at, ticks_at

NOTEBOOKS = Path(__file__).parents[3] / "notebooks"
TEST_FILES = Path(pydicom.__file__).parent / "data" / "test_files"
FILES = ("CT_small.dcm", "MR_small.dcm", "rtplan.dcm", "JPEG2000.dcm", "examples_overlay.dcm", "reportsi.dcm")
PADDING = "pixels are masked as padding"
PNG = b"\x89PNG\r\n\x1a\n"
# Modality, year, studies, instances; nulls first.
COUNTS = [
    ("SR", None, 1, 1),
    ("RTPLAN", 2003, 1, 1),
    ("CR", 2004, 1, 1),
    ("CT", 2004, 1, 1),
    ("MR", 2004, 1, 1),
    ("NM", 2004, 1, 1),
    ("PT", 2004, 1, 1),
    ("MR", 2005, 1, 1),
    ("US", 2021, 1, 1),
    ("US", 2024, 2, 3),
]


def padded(path: Path) -> Path:
    """A picture whose upper half is padding, beside stored values from 100 to 200."""
    dataset = pydicom.dcmread(TEST_FILES / "CT_small.dcm")
    dataset.Modality, dataset.SOPInstanceUID, dataset.StudyInstanceUID = "PT", "1.10.1.1", "1.10"
    dataset.PatientID = "PT"
    pixels = np.full((128, 128), -2000, dtype=np.int16)
    pixels[64:] = np.linspace(100, 200, 128, dtype=np.int16)
    dataset.PixelData = pixels.tobytes()
    assert dataset.PixelPaddingValue == -2000
    assert (dataset.RescaleSlope, dataset.RescaleIntercept) == (1, -1024)
    dataset.save_as(path)
    return path


def without_pixels(path: Path) -> Path:
    """A file whose header says that it is a picture of 128 x 128, and that has none, as some of the demo's have."""
    dataset = pydicom.dcmread(TEST_FILES / "CT_small.dcm")
    dataset.Modality, dataset.SOPInstanceUID, dataset.StudyInstanceUID = "CR", "1.9.1.1", "1.9"
    del dataset.PixelData
    dataset.save_as(path)
    return path


@pytest.fixture(scope="module")
def lake(make_shared_site: Callable[..., Site], tmp_path_factory: pytest.TempPathFactory) -> Site:
    """Eight files, and two patients with the same number: one of two studies, one of one. All of it synced."""
    site = make_shared_site("dicom.connections=1")
    made = tmp_path_factory.mktemp("made")
    files = [*(TEST_FILES / name for name in FILES), without_pixels(made / "cr.dcm"), padded(made / "pt.dcm")]
    kinds = [done.outcome.kind for done in upload(site.settings, files)]
    assert len(kinds) == 8
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
    assert {name: len(rows) for name, rows in site.tables().items()} == {"instance": 12, "series": 12, "study": 11}
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


def script(
    site: Site, name: str, pictures: Path, folder: Path | None = None, **more: str
) -> subprocess.CompletedProcess[str]:
    """A notebook, run as a script would be, in a folder without settings, or in ``folder``."""
    variables = {**os.environ, **environment(site, pictures), **more}
    command = [sys.executable, str(NOTEBOOKS / name)]
    return subprocess.run(command, env=variables, cwd=folder or pictures, capture_output=True, text=True, check=False)


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
    monkeypatch.delenv("DICOM_ETL_CONFIG", raising=False)
    versions = {name: lake.version(name) for name in ("instance", "series", "study", "run")}

    shown: dict[str, Any] = runpy.run_path(str(NOTEBOOKS / "first_look.py"))

    assert shown["by_modality_and_year"].rows() == COUNTS
    assert shown["patients_studies"].rows() == [
        ("7", date(2024, 1, 2), "first", "US", 2, 2),
        ("7", date(2024, 3, 1), "<second> & last", "US", 1, 1),
    ]
    assert shown["everything"].height == 12
    paths = set(shown["file_paths"]["filePath"])
    assert len(paths) == 12
    assert all(path.startswith("AHDS/emulator/dicom/dicom/Microsoft.Default/") for path in paths)
    assert bars(shown["chart"]) == {
        (str(year or "no date"), modality): instances for modality, year, _, instances in COUNTS
    }
    assert (tmp_path / "instances_by_year.png").read_bytes().startswith(PNG)
    said = capsys.readouterr().out
    assert said.startswith("12 instances, 14 columns: partitionName, ")
    assert "│ US       ┆ 2024 ┆ 2       ┆ 3         │" in said
    # The other run has read a later range by hand: what it covers lies behind a gap.
    assert "covered until 2024-05-01 11:00:00 UTC, by 2 runs" in said
    assert {name: lake.version(name) for name in versions} == versions


def test_a_first_look_runs_in_any_folder(lake: Site, tmp_path: Path) -> None:
    """A relative DICOM_ETL_CONFIG is found in the folders above; else the error says where it looked."""
    config = tmp_path / "demo-lake" / "demo.toml"
    inner = tmp_path / "a" / "b"
    config.parent.mkdir()
    inner.mkdir(parents=True)
    config.write_text("[feed]\nwindow = '1h'\n")
    done = script(lake, "first_look.py", tmp_path, inner, DICOM_ETL_CONFIG="demo-lake/demo.toml")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("12 instances, 14 columns: partitionName, ")
    shutil.rmtree(config.parent)
    lost = script(lake, "first_look.py", tmp_path, inner, DICOM_ETL_CONFIG="demo-lake/demo.toml")
    assert (lost.returncode, lost.stdout, len(lost.stderr.splitlines())) == (1, "", 1)
    assert lost.stderr.strip().endswith(f"No such file or directory (a relative path: looked for in {inner})")


@pytest.mark.parametrize("files", ["files", "no such folder"])
@pytest.mark.parametrize(
    ("modality", "said"),
    [
        (
            "CT",
            [
                "1 instances",
                "CT of 2004-01-19: 128 x 128, 16 bits",
                f"0 of 16384 {PADDING}",
                "values from -896 to 1167, mean -119.1",
            ],
        ),
        # The larger of two.
        ("MR", ["2 instances", "MR of 2005-11-30: 300 x 484, 12 bits", "values from 0 to 1123, mean 191.7"]),
    ],
)
def test_a_row_becomes_a_picture(lake: Site, tmp_path: Path, files: str, modality: str, said: list[str]) -> None:
    """The largest picture is found by its row, in the lake or from the service, and drawn, without Spark."""
    before = lake.service.requests.count()
    done = script(
        lake,
        "from_row_to_pixels.py",
        tmp_path,
        DICOM_ETL__FILES__ROOT=str(lake.folder / files),
        NOTEBOOK_MODALITY=modality,
    )
    assert (done.returncode, done.stderr) == (0, "")
    first, *rest = said
    assert done.stdout.splitlines() == [
        f"{first} of modality {modality}", *rest, f"the picture is in {tmp_path / f'{modality}.png'}"
    ]  # fmt: skip
    # Each header and the one whole file, each after the partitions.
    expected = {"CT": 4, "MR": 6}[modality]
    assert lake.service.requests.count() - before == (0 if files == "files" else expected)
    assert (tmp_path / f"{modality}.png").read_bytes().startswith(PNG)


def test_padding_is_no_value(lake: Site, tmp_path: Path) -> None:
    """The half that PixelPaddingValue names is in no number but its own, and the picture is drawn."""
    done = script(lake, "from_row_to_pixels.py", tmp_path, NOTEBOOK_MODALITY="PT")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"\n8192 of 16384 {PADDING}\nvalues from -924 to -824, mean -874." in done.stdout
    assert (tmp_path / "PT.png").read_bytes().startswith(PNG)


BLURRED = "; lossy compression has blurred the padding: what is left of it counts in minimum and mean"


def striped(lake: Site, folder: Path, modality: str, *stripes: tuple[int, int], **elements: tuple[str, Any]) -> Path:
    """A copy of the files, in which one of the modality has stripes of stored values in place of its upper rows."""
    shutil.copytree(lake.folder / "files", folder)
    path, dataset = next((p, d) for p in folder.rglob("*.dcm") if (d := pydicom.dcmread(p)).Modality == modality)
    pixels = np.full((128, 128), 200, dtype=np.int16)
    for first, value in stripes:
        pixels[first : first + 32] = value
    dataset.PixelData = pixels.tobytes()
    assert (dataset.PixelPaddingValue, dataset.RescaleIntercept) == (-2000, -1024)
    for keyword, (vr, value) in elements.items():
        dataset[keyword] = pydicom.DataElement(keyword, vr, value)
    dataset.save_as(path)
    return folder


@pytest.mark.parametrize(
    ("modality", "said"),
    [
        # -1500 HU is nearer to air than to the padding, at -3024 HU.
        (
            "CT",
            f"4096 of 16384 {PADDING}, and 4096 that are nearer to it than to air{BLURRED}\nvalues from -1500 to -824",
        ),
        ("PT", f"4096 of 16384 {PADDING}{BLURRED}\nvalues from -3324 to -824"),
    ],
)
def test_padding_that_lossy_compression_has_blurred(lake: Site, tmp_path: Path, modality: str, said: str) -> None:
    """In a CT what is nearer to it than to air is masked with it; the line says that some of it is left."""
    stripes = ((0, -2000), (32, -2300), (48, -1800), (64, -476))
    files = striped(lake, tmp_path / "files", modality, *stripes, LossyImageCompression=("CS", "01"))
    done = script(
        lake, "from_row_to_pixels.py", tmp_path, NOTEBOOK_MODALITY=modality, DICOM_ETL__FILES__ROOT=str(files)
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert said in done.stdout


def test_the_ends_of_the_padding_are_signed_as_the_pixels(lake: Site, tmp_path: Path) -> None:
    """A range in either order; its ends as unsigned numbers name the same stored values."""
    ends = {"PixelPaddingValue": ("US", 65536 - 1980), "PixelPaddingRangeLimit": ("US", 65536 - 2000)}
    files = striped(lake, tmp_path / "files", "PT", (0, -2000), (32, -1990), **ends)
    done = script(lake, "from_row_to_pixels.py", tmp_path, NOTEBOOK_MODALITY="PT", DICOM_ETL__FILES__ROOT=str(files))
    assert (done.returncode, done.stderr) == (0, "")
    assert f"\n8192 of 16384 {PADDING}\nvalues from -824 to -824" in done.stdout


def test_a_thumbnail_is_called_one(lake: Site, tmp_path: Path) -> None:
    """Where the largest picture has 16 x 16 pixels, a line says so."""
    size = {"Rows": ("US", 16), "Columns": ("US", 16)}
    files = striped(lake, tmp_path / "files", "PT", (1, -1990), **size)
    done = script(lake, "from_row_to_pixels.py", tmp_path, NOTEBOOK_MODALITY="PT", DICOM_ETL__FILES__ROOT=str(files))
    _, size_line, said, *_ = done.stdout.splitlines()
    assert (done.returncode, size_line.partition(": ")[2]) == (0, "16 x 16, 16 bits")
    assert (
        said
        == "it is no picture to look at, but a thumbnail or a test file, and none of these instances has a larger one"
    )


def test_pixels_compressed_as_jpeg_2000_are_drawn(lake: Site, tmp_path: Path) -> None:
    done = script(lake, "from_row_to_pixels.py", tmp_path, NOTEBOOK_MODALITY="NM")
    assert "NM of 2004-08-26: 1024 x 256, " in done.stdout
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "NM.png").read_bytes().startswith(PNG)


@pytest.mark.parametrize("syntax", [JPEGBaseline8Bit, JPEG2000Lossless, JPEGLSLossless, JPEGLSNearLossless])
def test_the_extra_notebook_decodes_the_usual_compressions(syntax: pydicom.uid.UID) -> None:
    """JPEG, JPEG 2000 and JPEG-LS, by pillow and pyjpegls."""
    assert get_decoder(syntax).is_available


def test_jpeg_ls_gives_the_pixels_that_were_compressed() -> None:
    """The same picture, stored both ways in pydicom's own files."""
    plain, compressed = (
        pydicom.dcmread(TEST_FILES / name).pixel_array for name in ("MR_small.dcm", "MR_small_jpeg_ls_lossless.dcm")
    )
    assert plain.shape == (64, 64)
    assert np.array_equal(plain, compressed)


@pytest.mark.parametrize(
    ("modality", "count", "words"),
    [
        ("CR", 1, "no instance of modality CR can be drawn"),
        ("SR", 1, "no instance of modality SR can be drawn"),
        ("XA", 0, "there is no instance of modality XA"),
    ],
)
def test_what_cannot_be_drawn_is_said(lake: Site, tmp_path: Path, modality: str, count: int, words: str) -> None:
    """A header without its pixels, no picture, or no instance: a sentence that names the modalities, and no picture."""
    done = script(lake, "from_row_to_pixels.py", tmp_path, NOTEBOOK_MODALITY=modality)
    assert done.returncode == 1
    assert done.stdout == f"{count} instances of modality {modality}\n"
    assert done.stderr == f"{words}: set NOTEBOOK_MODALITY to one of CR, CT, MR, NM, PT, RTPLAN, SR, US\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["first_look.py", "from_row_to_pixels.py"])
def test_a_notebook_is_jupytexts_percent_format(name: str) -> None:
    """A header that names the format; cells of Markdown and of code; it says whose what it shows is."""
    text = (NOTEBOOKS / name).read_text(encoding="utf-8")
    assert re.match(r"# ---\n# jupyter:\n#   jupytext:\n(?:#.*\n)*#       format_name: percent\n# ---\n", text)
    cells = re.split(r"^# %%", text, flags=re.MULTILINE)[1:]
    markdown = [cell for cell in cells if cell.startswith(" [markdown]\n")]
    assert 5 <= len(markdown) < len(cells)
    assert all(line.startswith("#") for cell in markdown for line in cell.strip().splitlines()[1:])
    assert "belongs to patients" in "".join(markdown)
