"""Entries to typed rows, to Parquet files, to one commit of `change` (design/architecture.md: Landing).

Writes the table `change` and nothing else.
"""
