"""What reads the lake, or its settings, and writes elsewhere."""
