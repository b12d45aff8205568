"""Any DICOM tag as a typed column: the vocabulary of tags, and the reader of headers. Pure, without pyspark."""
