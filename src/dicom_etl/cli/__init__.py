"""What is typed and printed: the only room with click and rich.

Parses, calls a verb, prints what comes back, and turns errors into exit codes.
"""
