"""The settings of one command: their sections, rules and defaults."""
