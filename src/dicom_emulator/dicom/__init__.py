"""Data sets as the service reads, checks and writes them."""
