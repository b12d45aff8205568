"""Tag columns read from the DICOM JSON of another writer, DCMTK's dcm2json, of more files: `make test-oracles`."""

from __future__ import annotations

import os
import shutil
import subprocess
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from struct import pack, unpack
from typing import Any

import pydicom
import pytest
from pydicom.data import get_testdata_files
from pydicom.dataelem import DataElement

from dicom_etl.outputs.columns.design import Column, ColumnDesign
from dicom_etl.outputs.columns.parse import HeaderReader, HeaderState
from dicom_etl.outputs.columns.tagpath import TagPath
from dicom_etl.outputs.columns.vr import LOST
from support.pydicom_values import BINARY, expected, path_of

# The folder of pydicom-data, which is no dependency: 34 MB.
MORE_FILES = os.environ.get("DICOM_ETL_TEST_PYDICOM_DATA", "")

_CHARACTER_SET = 0x00080005
_RUNS = bool(MORE_FILES) and shutil.which("dcm2json") is not None
pytestmark = [pytest.mark.soak, pytest.mark.skipif(not _RUNS, reason="make test-oracles, with dcm2json, runs it")]


def files() -> list[Path]:
    """The files that pydicom and pydicom-data ship, without texts and pictures."""
    found = [Path(name) for name in get_testdata_files()] + list(Path(MORE_FILES).rglob("*"))
    return sorted({path for path in found if path.is_file() and path.suffix in (".dcm", "")})


def headers(folder: Path) -> Iterator[tuple[pydicom.Dataset, bytes]]:
    """Each dataset that both can read, and dcm2json's document of it; binary values are left out."""
    for path in files():
        try:
            dataset = pydicom.dcmread(path, force=True, stop_before_pixels=True)
            for element in [one for one in dataset if one.VR in BINARY]:
                del dataset[element.tag]
            dataset.save_as(folder / "header.dcm", enforce_file_format=True)
            dataset = pydicom.dcmread(folder / "header.dcm")
            list(dataset.iterall())
        except Exception:  # noqa: BLE001, S112 - files that are odd on purpose
            continue
        command = ["dcm2json", "-q", "-fc", "-ee", str(folder / "header.dcm")]
        written = subprocess.run(command, check=False, capture_output=True)
        if written.returncode == 0:
            yield dataset, written.stdout


def first_value(element: DataElement, path: TagPath) -> Any:
    """As the column should have it; None for a number that is none, such as the IS "1A" of a test file."""
    try:
        return expected(element, path)
    except ValueError:
        return None


def agree(vr: str, value: Any, wanted: Any) -> bool:
    """Equal, but for what dcm2json writes in another form: nine digits of a float, the ^ behind a name."""
    if vr == "FL" and value is not None and wanted is not None:
        return unpack("f", pack("f", value)) == unpack("f", pack("f", wanted))
    if vr == "PN" and wanted is not None:
        return str(value or "").rstrip("^") == wanted.rstrip("^")
    return bool(value == wanted)


def test_each_column_is_what_pydicom_reads_whoever_wrote_the_json(tmp_path: Path) -> None:
    """But for SpecificCharacterSet, since dcm2json writes UTF-8 and says so."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        corpus = list(headers(tmp_path))
        found = [
            {
                path: one
                for one in dataset
                if (path := path_of(one)) is not None and one.keyword != "SpecificCharacterSet"
            }
            for dataset, _ in corpus
        ]
        paths = list(dict.fromkeys(path for one in found for path in one))
        reader = HeaderReader(ColumnDesign(tuple(Column(f"c{n}", path, "instance") for n, path in enumerate(paths))))
        seen: Counter[str] = Counter()
        for (_, document), elements in zip(corpus, found, strict=True):
            parsed = reader.read(document)
            assert parsed.state is HeaderState.OK
            for path, value, outcome in zip(paths, parsed.values, parsed.outcomes, strict=True):
                element = elements.get(path)
                assert (value is None) == (outcome in LOST)
                if element is not None and element.VR in path.vr.split(" or "):
                    wanted = first_value(element, path)
                    assert agree(element.VR, value, wanted), (path.text, outcome.name, value, wanted)
                    seen[element.VR] += 1
    print(f"dcm2json: {len(corpus)} files, {len(paths)} columns, {sum(seen.values())} values")  # noqa: T201
    assert len(corpus) > 200
    assert len(paths) > 600
    assert sum(seen.values()) > 8000
    assert {"AS", "CS", "DA", "DS", "FD", "FL", "IS", "LO", "PN", "SH", "SS", "TM", "UI", "UL", "US"} <= set(seen)
