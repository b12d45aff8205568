"""The output `fhir`: ImagingStudy, Endpoint, Patient and dose Observations of a FHIR R4 server, made of the tables."""
