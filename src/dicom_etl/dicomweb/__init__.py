"""The DICOM service in the standard's words: search, retrieve, store.

Writes nothing to a lake; what it reads goes to its caller, as entries, keys or bytes.
"""
