"""The change feed: a range of it read completely, each entry once."""
