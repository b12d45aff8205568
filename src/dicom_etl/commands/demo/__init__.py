"""`demo`: the whole story on real DICOM files, against a local DICOM service."""
