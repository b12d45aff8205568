"""One writer at a time: the claim, its file and its sign of life."""
