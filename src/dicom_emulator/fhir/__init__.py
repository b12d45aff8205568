"""A FHIR R4 server for tests and the demo, with its own rules: what it keeps, refuses and finds."""
