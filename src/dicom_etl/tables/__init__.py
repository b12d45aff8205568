"""Spark: the three shared tables, DataFrame in and DataFrame out.

Fold, MERGE, roll-ups, maintenance and comparison; writes `instance`, `series` and `study`.
"""
