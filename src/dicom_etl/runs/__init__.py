"""Who writes the lake, what was done, and what is due (architecture §5.1, §5.3, §5.8); no JVM."""
