"""Every attribute of pydicom's test files, read from pydicom's JSON of them, against what pydicom itself reads."""

from __future__ import annotations

import json
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest
from pydicom.data import get_testdata_files

from dicom_etl.outputs.columns.design import Column, ColumnDesign
from dicom_etl.outputs.columns.parse import HeaderReader, HeaderState
from dicom_etl.outputs.columns.vr import LOST, Outcome
from support.pydicom_values import BINARY, expected, path_of


def datasets() -> Iterator[pydicom.Dataset]:
    """What pydicom can read and write as JSON, without binary values, which the service leaves out."""
    for name in sorted(get_testdata_files()):
        if Path(name).suffix in (".dcm", "") and Path(name).stat().st_size < 3_000_000:
            try:
                dataset = pydicom.dcmread(name, force=True, stop_before_pixels=True)
                for element in list(dataset):
                    if element.VR in BINARY:
                        del dataset[element.tag]
                dataset.to_json_dict(suppress_invalid_tags=False)
            except Exception:  # noqa: BLE001, S112
                continue
            yield dataset


@pytest.fixture(scope="module")
def corpus() -> list[pydicom.Dataset]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return list(datasets())


def test_each_column_is_what_pydicom_reads(corpus: list[pydicom.Dataset]) -> None:
    """One design of all tags of all files; a tag that a file lacks is ABSENT in it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = [{path: element for element in dataset if (path := path_of(element)) is not None} for dataset in corpus]
        paths = list(dict.fromkeys(path for one in found for path in one))
        reader = HeaderReader(ColumnDesign(tuple(Column(f"c{n}", path, "instance") for n, path in enumerate(paths))))
        seen: Counter[str] = Counter()
        for dataset, elements in zip(corpus, found, strict=True):
            parsed = reader.read(json.dumps(dataset.to_json_dict()))
            assert parsed.state is HeaderState.OK
            for path, value, outcome in zip(paths, parsed.values, parsed.outcomes, strict=True):
                element = elements.get(path)
                assert (value is None) == (outcome in LOST)
                if element is None:
                    assert (value, outcome) == (None, Outcome.ABSENT), path.text
                elif element.VR in path.vr.split(" or "):
                    assert value == expected(element, path), (path.text, outcome.name)
                    seen[element.VR] += 1
                    seen["private"] += path.is_private
    assert len(corpus) > 120
    assert len(paths) > 500
    assert sum(seen.values()) > 6000
    assert {"AS", "CS", "DA", "DS", "FD", "IS", "LO", "PN", "SH", "TM", "UI", "UL", "US"} <= set(seen)
    assert seen["private"] > 100
