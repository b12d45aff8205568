"""One frame as a picture of eight bits, JPEG or PNG: rescaled, windowed, and as its photometric interpretation asks.

The order is that of PS3.3 C.11: modality, values of interest, presentation (design/service-protocol.md: Frames and
rendered images).
"""

from __future__ import annotations

from io import BytesIO
from typing import Any, Literal

import numpy as np
from PIL import Image
from pydicom import Dataset
from pydicom.multival import MultiValue
from pydicom.pixels.processing import apply_color_lut, apply_modality_lut, apply_voi

from dicom_emulator.dicom.pixels import UNDECODABLE, Array, NotDecodable, Pixels, frame_values

ImageFormat = Literal["jpeg", "png"]


def rendered(pixels: Pixels, number: int, image_format: ImageFormat, quality: int = 100) -> bytes:
    """The frame, from 1, as an image file; `quality` is 1 to 100, for JPEG. Raises NotDecodable.

    Greys are windowed by the file's first window or VOI LUT, or else by the values that the frame has. Overlays and
    functional groups are passed over.
    """
    values = frame_values(pixels, number, raw=False)
    try:
        with np.errstate(all="ignore"):
            bytes_of_image = _eight_bits(values, pixels.dataset)
        target = BytesIO()
        options = {"quality": quality, "subsampling": 0} if image_format == "jpeg" else {}
        Image.fromarray(bytes_of_image).save(target, image_format.upper(), **options)
    except UNDECODABLE as error:
        raise NotDecodable from error
    return target.getvalue()


def _eight_bits(values: Array, dataset: Dataset) -> Array:
    photometric = str(dataset.get("PhotometricInterpretation", "")).strip()
    if photometric == "PALETTE COLOR":
        colours = apply_color_lut(values, dataset)
        return np.asarray(colours >> 8 if colours.dtype == np.uint16 else colours).astype(np.uint8)
    if values.ndim == 3:
        above = max(0, int(dataset.BitsStored) - 8)
        return np.asarray(values >> above).astype(np.uint8)
    greys = _windowed(apply_modality_lut(values, dataset), dataset)
    if photometric == "MONOCHROME1" or str(dataset.get("PresentationLUTShape", "")).strip() == "INVERSE":
        greys = 1.0 - greys
    return np.asarray(np.rint(np.clip(greys, 0.0, 1.0) * 255)).astype(np.uint8)


def _windowed(values: Array, dataset: Dataset) -> Array:
    """The values with those of interest from 0 to 1 (PS3.3 C.11.2)."""
    centre, width = _first(dataset.get("WindowCenter")), _first(dataset.get("WindowWidth"))
    if centre is not None and width is not None and width > 0:
        return _by_window(values.astype(np.float64), centre, width, str(dataset.get("VOILUTFunction") or "LINEAR"))
    if dataset.get("VOILUTSequence"):
        bits = int(dataset.VOILUTSequence[0].LUTDescriptor[2])
        return np.asarray(apply_voi(values, dataset) / (2.0**bits - 1))
    values = values.astype(np.float64)
    least, most = float(values.min()), float(values.max())
    return np.asarray((values - least) / ((most - least) or 1.0))


def _by_window(values: Array, centre: float, width: float, function: str) -> Array:
    if function == "SIGMOID":
        return np.asarray(1.0 / (1.0 + np.exp(-4.0 * (values - centre) / width)))
    if function == "LINEAR_EXACT":
        return np.asarray((values - centre) / width + 0.5)
    if width <= 1:  # a threshold
        return (values > centre - 0.5).astype(np.float64)
    return np.asarray((values - (centre - 0.5)) / (width - 1) + 0.5)


def _first(value: Any) -> float | None:
    """The first of the windows that a file may have."""
    if isinstance(value, MultiValue | list | tuple):
        value = value[0] if value else None
    return None if value in (None, "") else float(value)
