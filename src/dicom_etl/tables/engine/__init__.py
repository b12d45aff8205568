"""The Spark session: its Java, jars, settings, start and end."""
