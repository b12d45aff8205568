"""The frames of a DICOM file: as they are stored, or decoded to explicit VR little endian.

design/service-protocol.md: Frames and rendered images.
"""

from __future__ import annotations

import struct
import warnings
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any, cast

import numpy as np
from pydicom import Dataset, dcmread
from pydicom.encaps import get_frame
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.utils import get_nr_frames, pack_bits, unpack_bits

Array = np.ndarray[Any, np.dtype[Any]]

EXPLICIT_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"
_LITTLE_ENDIAN = frozenset({"1.2.840.10008.1.2", EXPLICIT_LITTLE_ENDIAN, "1.2.840.10008.1.2.1.99"})
_NEEDED = ("BitsAllocated", "Columns", "Rows", "PixelData")

# What pydicom, numpy and the decoders raise on pixels that are cut, damaged or of a kind that they do not know.
UNDECODABLE = (
    ArithmeticError, AttributeError, BytesLengthException, EOFError, InvalidDicomError, LookupError, MemoryError,
    NotImplementedError, OSError, RuntimeError, SyntaxError, TypeError, ValueError, struct.error, zlib.error,
)  # fmt: skip


class NoSuchFrame(Exception):
    """The file has no pixels, or fewer frames than asked for."""


class NotDecodable(Exception):
    """The frame is there, and none of our decoders reads it."""


@dataclass(frozen=True)
class Pixels:
    """A file with pixel data: its data set, its transfer syntax and the number of its frames."""

    dataset: Dataset
    syntax: str
    count: int

    def require(self, numbers: Sequence[int]) -> None:
        """Raises NoSuchFrame unless all the numbers, from 1, are frames of the file."""
        if not all(1 <= number <= self.count for number in numbers):
            raise NoSuchFrame


def read_pixels(content: bytes) -> Pixels:
    """The pixels of a PS3.10 file. Raises NoSuchFrame for a file without, and for what is no DICOM file."""
    try:
        dataset = dcmread(BytesIO(content))
        if not all(name in dataset for name in _NEEDED):
            raise NoSuchFrame
        return Pixels(dataset, str(dataset.file_meta.TransferSyntaxUID), get_nr_frames(dataset, warn=False))
    except UNDECODABLE as error:
        raise NoSuchFrame from error


def stored_frame(pixels: Pixels, number: int) -> bytes:
    """The bytes of a frame, from 1, as the file has them. Raises NotDecodable when they are not all there."""
    try:
        if pixels.dataset.file_meta.TransferSyntaxUID.is_encapsulated:
            return get_frame(pixels.dataset.PixelData, number - 1, number_of_frames=pixels.count)
        return _native_frame(pixels, number)
    except UNDECODABLE as error:
        raise NotDecodable from error


def decoded_frame(pixels: Pixels, number: int) -> bytes:
    """The bytes of a frame, from 1, as explicit VR little endian has them. Raises NotDecodable."""
    if pixels.syntax in _LITTLE_ENDIAN:
        return stored_frame(pixels, number)
    try:
        values = frame_values(pixels, number, raw=True)
        if pixels.dataset.BitsAllocated == 1:
            return bytes(pack_bits(values, pad=False))
        return np.ascontiguousarray(values, values.dtype.newbyteorder("<")).tobytes()
    except UNDECODABLE as error:
        raise NotDecodable from error


def frame_values(pixels: Pixels, number: int, *, raw: bool) -> Array:
    """A frame, from 1, as (rows, columns) or (rows, columns, samples).

    Colours are RGB, unless ``raw``: as they are stored. Raises NotDecodable.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they quote values
            decoder = get_decoder(pixels.dataset.file_meta.TransferSyntaxUID)
            values, _ = decoder.as_array(pixels.dataset, index=number - 1, raw=raw)
    except UNDECODABLE as error:
        raise NotDecodable from error
    return np.asarray(values)


def _native_frame(pixels: Pixels, number: int) -> bytes:
    dataset = pixels.dataset
    samples = int(dataset.get("SamplesPerPixel") or 1)
    bits = int(dataset.Rows) * int(dataset.Columns) * samples * int(dataset.BitsAllocated)
    if dataset.get("PhotometricInterpretation") == "YBR_FULL_422":
        bits = bits * 2 // 3
    first, end = (number - 1) * bits, number * bits
    if end > len(dataset.PixelData) * 8:
        raise NotDecodable
    if bits % 8 == 0:
        return bytes(dataset.PixelData[first // 8 : end // 8])
    # Frames of single bits follow each other without padding (PS3.5 §8.1.1).
    all_bits = cast("Array", unpack_bits(dataset.PixelData[first // 8 : -(-end // 8)], as_array=True))
    return bytes(pack_bits(all_bits[first % 8 : first % 8 + bits], pad=False))
