"""Every attribute of pydicom's test files, read from pydicom's JSON of them, against what pydicom itself reads."""

from __future__ import annotations

import json
import warnings
from collections import Counter
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.data import get_testdata_files
from pydicom.dataelem import DataElement
from pydicom.multival import MultiValue

from dicom_etl.core.errors import UsageError
from dicom_etl.outputs.columns.design import Column, ColumnDesign
from dicom_etl.outputs.columns.parse import HeaderReader, HeaderState
from dicom_etl.outputs.columns.tagpath import TagPath, tag_path
from dicom_etl.outputs.columns.vr import LOST, Outcome

BINARY = frozenset(("OB", "OD", "OF", "OL", "OV", "OW", "UN"))


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


def path_of(element: DataElement) -> TagPath | None:
    """The column's path for a value of a file; None where there is no column for it."""
    tag = element.tag
    text = f"{tag.group:04X},{tag.element:04X}"
    if tag.is_private:
        if element.private_creator is None:
            return None
        text = f'{tag.group:04X},xx{tag.element & 0xFF:02X}@"{str(element.private_creator).strip(" ")}"'
    try:
        return tag_path(text)
    except UsageError:
        return None


def expected(element: DataElement, path: TagPath) -> Any:
    """The first value as the column should have it, from pydicom's own types."""
    value = element.value
    first = value[0] if isinstance(value, MultiValue | list) and len(value) else value
    if first is None or isinstance(first, MultiValue | list) or not str(first).strip(" \0"):
        return None
    if path.form == "long":
        return int(first)
    if path.form in ("decimal", "float"):
        return float(first)
    if element.VR == "PN":
        return first.alphabetic.strip(" \0") or None
    text = str(first).strip(" \0")
    if path.form == "date":
        return date(int(text[:4]), int(text[4:6]), int(text[6:])) if len(text) == 8 and text.isdecimal() else None
    if path.form == "time":
        digits = text.replace(":", "")
        parts = [digits[at : at + 2] for at in (0, 2, 4) if digits[at : at + 2]]
        return ":".join(parts) + digits[6:] if digits.replace(".", "").isdecimal() else None
    if element.VR == "AT":
        return f"{int(first):08X}"
    return text


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
