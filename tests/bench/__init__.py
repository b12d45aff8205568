"""How fast dicom-etl is, against its limits and against others, measured side by side in one run (`make bench`)."""
