"""What reads the lake, or its settings, and serves or writes elsewhere.

Never imports `run` or `commands`: a lake is the same whether anything stands on it or not.
"""
