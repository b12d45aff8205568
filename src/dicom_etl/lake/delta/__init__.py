"""delta-rs: open a table, read its marker, make one fenced commit (design/architecture.md: Fencing).

The run id is the fencing token: every commit carries it as app transaction, and none is made below it. delta-rs checks
nothing of this by itself (tried with 1.6.6: from a fresh snapshot a lower version lowers the marker), so the check, the
snapshot and the commit belong together, here.
"""
