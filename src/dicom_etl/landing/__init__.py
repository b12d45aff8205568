"""Entries to typed rows, to Parquet files, to one commit of `change` (architecture §2, §5.5).

Writes the table `change` and nothing else.
"""
