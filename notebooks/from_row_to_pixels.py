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
# `make notebook` opens it on the demo's lake. The lake and the files are those that dicom-etl's settings name:
# `DICOM_ETL_CONFIG=demo-lake/demo.toml`, or `DICOM_ETL__LAKE__ROOT` and `DICOM_ETL__FILES__ROOT`. No Spark is needed.
#
# **What this notebook shows belongs to patients**, and a picture may have a name burned into it. Clear its outputs, and
# remove the picture, before you share anything.

# %%
import os
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import polars as pl
from pydicom import Dataset
from pydicom.pixels import apply_color_lut, apply_rescale, pixel_array

from dicom_etl import open_instance
from dicom_etl.core.errors import DicomEtlError
from dicom_etl.core.settings.load import load_settings

MODALITY = os.environ.get("NOTEBOOK_MODALITY", "MR")

# %% [markdown]
# ## Rows
#
# `open_instance` needs five columns of a row: the partition, the three UIDs and `filePath`. In a large lake, filter by
# a study too: files are skipped by it. Jupyter starts in the notebook's folder: a relative `DICOM_ETL_CONFIG` is looked
# for there and in the folders above.

# %%
named = os.environ.get("DICOM_ETL_CONFIG")
folders = (Path.cwd(), *Path.cwd().parents)
found = next((folder / named for folder in folders if named and (folder / named).is_file()), None)
try:
    settings = load_settings(found)
except DicomEtlError as error:
    raise SystemExit(str(error)) from None

instance = pl.scan_delta(f"{settings.lake.root}/{settings.lake.instance_path}")
rows = instance.filter(pl.col("modality") == MODALITY).sort("studyInstanceUid", "sopInstanceUid").collect()
print(f"{len(rows)} instances of modality {MODALITY}")
found_there = instance.select(pl.col("modality").drop_nulls().unique().sort()).collect()["modality"].to_list()
OTHERS = f"set NOTEBOOK_MODALITY to one of {', '.join(found_there)}"
if rows.is_empty():
    raise SystemExit(f"there is no instance of modality {MODALITY}: {OTHERS}")

# %% [markdown]
# ## The largest picture
#
# Headers first: with `stop_before_pixels` no more is read of a file than it takes. Of the first hundred, the largest
# picture is taken that can be decoded. pillow decodes JPEG and JPEG 2000, pyjpegls decodes JPEG-LS, pydicom itself the
# rest but lossless JPEG. Not every instance has pixels, whatever its header says.

# %%
headers = [(row, open_instance(row, settings, stop_before_pixels=True)) for row in rows.head(100).to_dicts()]
headers.sort(key=lambda found: found[1].get("Rows", 0) * found[1].get("Columns", 0), reverse=True)


def frame_of(dataset: Dataset) -> np.ndarray | None:
    """The first frame, colours as RGB; None where there are no pixels, or none that can be decoded."""
    if "PixelData" not in dataset:
        return None
    try:
        return pixel_array(dataset, index=0)
    except (NotImplementedError, RuntimeError, ValueError, AttributeError) as error:
        print(f"one cannot be decoded: {type(error).__name__}")
        return None


for row, header in headers:
    frame = frame_of(dataset := open_instance(row, settings)) if "Rows" in header else None
    if frame is not None and frame.min() < frame.max():
        break
else:
    raise SystemExit(f"no instance of modality {MODALITY} can be drawn: {OTHERS}")
print(f"{dataset.Modality} of {row['studyDate']}: {dataset.Rows} x {dataset.Columns}, {dataset.BitsStored} bits")
if max(dataset.Rows, dataset.Columns) < 64:
    print("it is no picture to look at, but a thumbnail or a test file, and none of these instances has a larger one")

# %% [markdown]
# ## Its pixels
#
# Stored values become those of the modality (Hounsfield units for CT) by slope and intercept. What PixelPaddingValue
# names is no measurement, such as the corners around a CT's circle: it is masked before, or it would count in each
# mean. It is that value alone, or all up to PixelPaddingRangeLimit (PS3.3 C.7.5.1.1.2).
#
# Lossy compression changes the padding as it changes everything: -2000 comes back as -2300 or -1700, which the header
# does not name. In a CT all that is nearer to the padding than to air (-1000 HU) is masked, too; mixtures at its edge
# remain, so that minimum and mean are estimates. In others nothing tells padding from a value. The notebook says so.
#
# Black is the lowest hundredth of the values, white the highest; with MONOCHROME1 it is the other way round.


# %%
def without_padding(frame: np.ndarray, dataset: Dataset) -> np.ma.MaskedArray:
    """The values of the modality without the padding, and a line about it."""
    padding = dataset.get("PixelPaddingValue")
    if not isinstance(padding, int):
        return np.ma.asarray(apply_rescale(frame, dataset))
    # Signed as the pixels are (PixelRepresentation), though some headers have -2000 as 63536.
    ends = np.array([padding, dataset.get("PixelPaddingRangeLimit", padding)]).astype(frame.dtype)
    values = apply_rescale(np.ma.masked_inside(frame, *ends), dataset)
    masked, said = np.ma.count_masked(values), ""
    if dataset.get("LossyImageCompression") == "01":
        if dataset.Modality == "CT" and (middle := (apply_rescale(ends, dataset).max() - 1000) / 2) < -1024:
            values = np.ma.masked_less(values, middle)
            said = f", and {np.ma.count_masked(values) - masked} that are nearer to it than to air"
        said += "; lossy compression has blurred the padding: what is left of it counts in minimum and mean"
    print(f"{masked} of {frame.size} pixels are masked as padding{said}")
    return values


if dataset.PhotometricInterpretation == "PALETTE COLOR":
    frame = apply_color_lut(frame, dataset)
    frame = (frame >> 8 if frame.dtype == np.uint16 else frame).astype(np.uint8)
if frame.ndim == 2:
    frame = without_padding(frame, dataset)
print(f"values from {frame.min():g} to {frame.max():g}, mean {frame.mean():.1f}")

low, high = np.percentile(np.ma.compressed(frame), (1, 99))
grey = "gray_r" if dataset.PhotometricInterpretation == "MONOCHROME1" else "gray"
picture, axes = plt.subplots()
axes.imshow(frame, cmap=grey, vmin=low, vmax=max(high, low + 1e-9))
axes.set_axis_off()
picture_file = Path(os.environ.get("NOTEBOOK_PICTURES", ".")) / f"{MODALITY}.png"
picture_file.parent.mkdir(parents=True, exist_ok=True)
picture.savefig(picture_file, bbox_inches="tight")
print(f"the picture is in {picture_file.resolve()}")
plt.show()

# %% [markdown]
# ## Without the right to the files
#
# Nothing changes. Where `files.root` may not be read, or a file is not there, `open_instance` asks the DICOM service
# for the instance (WADO-RS); that needs `dicom.base_url`, and the role DICOM Data Reader.
