"""One write, told from top to bottom: read, land, merge, roll up, record.

Under a claim, with the steps of the rooms below; nothing here is a verb.
"""
