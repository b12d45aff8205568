"""The lake without a JVM: where its tables lie, whose they are, what was done, what is due.

Reads the logs of all six tables; writes `run` and `rejected`, and claims.
"""
