"""For tests: faults, rewritten answers, random feeds, and what was asked."""
