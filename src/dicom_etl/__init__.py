"""Keep Delta tables equal to what an Azure DICOM service holds."""

__version__ = "0.1.0"
