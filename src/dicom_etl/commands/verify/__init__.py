"""`verify`: both sides listed and compared; writes nothing to the lake."""
