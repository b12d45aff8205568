"""A local Azure DICOM service, for tests, demos and third-party clients.

It imports nothing of dicom_etl: it is the oracle of the tests, and shared code would make both wrong together. See
docs/emulator.md.
"""

from dicom_emulator.options import EmulatorOptions
from dicom_emulator.serve import Emulator, serve, serve_in_thread
from dicom_emulator.state.clock import Clock
from dicom_emulator.state.service import DicomService
from dicom_emulator.state.uids import DEFAULT_PARTITION, InstanceKey, instance_key

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
