"""The DICOM service in the standard's words: search, retrieve, store.

Writes nothing to a lake; what it reads goes to whoever asked, as entries, keys or bytes.
"""
