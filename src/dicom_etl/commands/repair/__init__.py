"""`repair`: reads again what differs, or rebuilds the three tables."""
