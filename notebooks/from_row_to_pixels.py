# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---
# ruff: noqa: T201

# %% [markdown]
# # From a row to its pixels
#
# A row of `instance` has a `filePath`; `dicom_etl.open_instance` makes a pydicom data set of it, and that is a picture.
#
# The lake and the files are those that dicom-etl's settings name: `DICOM_ETL_CONFIG=demo-lake/demo.toml` after
# `make demo`, or `DICOM_ETL__LAKE__ROOT` and `DICOM_ETL__FILES__ROOT`. No Spark is needed.
#
# **What this notebook shows belongs to patients**, and a picture may have a name burned into it. Clear its outputs, and
# remove the picture, before you share anything.

# %%
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
from pydicom import Dataset
from pydicom.pixels import apply_rescale

from dicom_etl import open_instance
from dicom_etl.core.settings.load import load_settings
from dicom_etl.lake.delta.table import read_rows
from dicom_etl.lake.open import existing_lake

MODALITY = os.environ.get("NOTEBOOK_MODALITY", "CT")

# %% [markdown]
# ## Rows
#
# `open_instance` needs five columns of a row: the partition, the three UIDs and `filePath`. A Spark `Row` of
# `spark.sql("SELECT * FROM instance")` will do as well. In a large lake, ask for a study too: files are skipped by it.

# %%
settings = load_settings()
instance = existing_lake(settings, private=False).table("instance")
COLUMNS = ["partitionName", "studyInstanceUid", "seriesInstanceUid", "sopInstanceUid", "filePath", "studyDate"]
rows = read_rows(instance, COLUMNS, pc.field("modality") == MODALITY)
rows = rows.sort_by([(name, "ascending") for name in COLUMNS[:4]]).to_pylist()
print(f"{len(rows)} instances of modality {MODALITY}")

# %% [markdown]
# ## A data set
#
# Headers first: with `stop_before_pixels` no more is read of a file than it takes. Not every instance is a picture, and
# most compressed ones need another package (`pylibjpeg`), so the first one that numpy alone can draw is taken.


# %%
def drawable(header: Dataset) -> bool:
    """Whether it is one grey picture, or several, that no codec has compressed."""
    grey = header.get("SamplesPerPixel") == 1 and "Rows" in header
    return grey and not header.file_meta.TransferSyntaxUID.is_compressed


def first_drawable(rows: list[dict[str, Any]]) -> dict[str, Any]:
    for row in rows:
        if drawable(open_instance(row, settings, stop_before_pixels=True)):
            return row
    raise SystemExit(f"no instance of modality {MODALITY} can be drawn: set NOTEBOOK_MODALITY to another one")


row = first_drawable(rows)
dataset = open_instance(row, settings)
print(f"{dataset.Modality} of {row['studyDate']}: {dataset.Rows} x {dataset.Columns}, {dataset.BitsStored} bits")

# %% [markdown]
# ## Its pixels
#
# Stored values become those of the modality (Hounsfield units for CT) by slope and intercept.

# %%
pixels = apply_rescale(dataset.pixel_array, dataset)
frame = pixels if pixels.ndim == 2 else pixels[0]
print(f"values from {frame.min():g} to {frame.max():g}, mean {frame.mean():.1f}")

# %% [markdown]
# ## A picture
#
# Black is the lowest hundredth of the values, white the highest. The standard library is enough for a PNG; with
# matplotlib it would be `plt.imshow(frame, cmap="gray")`.


# %%
class Picture(bytes):
    """PNG bytes that a notebook shows as a picture."""

    def _repr_png_(self) -> bytes:
        return bytes(self)


def png(grey: np.ndarray) -> Picture:
    """The picture of a table of grey values from 0 to 255 (PNG specification, 8 bits, no filter)."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width = grey.shape
    lines = b"".join(b"\0" + line.tobytes() for line in grey)
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return Picture(b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b""))


low, high = np.percentile(frame, (1, 99))
grey = (np.clip((frame - low) / max(high - low, 1e-9), 0, 1) * 255).astype(np.uint8)
if dataset.PhotometricInterpretation == "MONOCHROME1":  # there, the lowest value is white
    grey = 255 - grey
picture = png(grey)
picture_file = Path(os.environ.get("NOTEBOOK_PICTURES", ".")) / f"{MODALITY}.png"
picture_file.parent.mkdir(parents=True, exist_ok=True)
picture_file.write_bytes(picture)
print(f"the picture is in {picture_file.name}")
picture  # noqa: B018 - a notebook shows its last value

# %% [markdown]
# ## Without the right to the files
#
# Nothing changes. Where `files.root` may not be read, or a file is not there, `open_instance` asks the DICOM service
# for the instance (WADO-RS); that needs `dicom.base_url`, and the role DICOM Data Reader.
