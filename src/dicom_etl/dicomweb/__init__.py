"""Everything that talks to the DICOM service over HTTP."""
