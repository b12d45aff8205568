"""A local Azure DICOM service, for tests, demos and third-party clients.

It imports nothing else of dicom_etl: it is the oracle of the tests, and shared code would make both
wrong together. See docs/emulator.md.
"""

from dicom_etl.emulator.clock import Clock
from dicom_etl.emulator.options import EmulatorOptions
from dicom_etl.emulator.serve import Emulator, serve, serve_in_thread
from dicom_etl.emulator.service import DicomService
from dicom_etl.emulator.uids import DEFAULT_PARTITION, InstanceKey, instance_key

__all__ = [
    "DEFAULT_PARTITION",
    "Clock",
    "DicomService",
    "Emulator",
    "EmulatorOptions",
    "InstanceKey",
    "instance_key",
    "serve",
    "serve_in_thread",
]
