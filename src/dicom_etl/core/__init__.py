"""Words and facts: errors, times, attributes, entries, settings, log lines.

Knows no network and no table, and imports no other room.
"""
