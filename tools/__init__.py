"""What writes the documents; not part of the wheel."""
