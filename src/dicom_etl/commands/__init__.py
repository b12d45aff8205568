"""The verbs, one module or folder each, as functions that return what they did.

Prints nothing; a job, a notebook or a test calls them as the command line does.
"""
