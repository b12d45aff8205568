"""What talks to Spark: fold, MERGE, roll-ups, maintenance."""
