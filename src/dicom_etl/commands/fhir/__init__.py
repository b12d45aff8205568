"""The verbs of `dicom-etl fhir`: keep a FHIR server equal to the tables, check it, and take back what is ours."""
