"""The output `columns`: any DICOM tag a column of `instance_tags`, `series_tags` and `study_tags`.

Which tags there are is `outputs.columns`, what Spark computes is `tables.tag_rows`; here both meet the lake.
"""
