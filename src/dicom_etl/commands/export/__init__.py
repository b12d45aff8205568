"""The verb `export`: a result with all that is needed to check and to repeat it."""
